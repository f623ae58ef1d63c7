"""kchain's runtime: the code that runs inside a notebook, and all of it.

It depends on nothing of kchain, only on the Python standard library, numpy, torch, transformers, peft, safetensors and,
where a phase asks for them, bitsandbytes and datasets. The driver cells of a notebook are these lines and no more:

    from kchain_runtime import session

    run = session.start(PARAMETERS, BUNDLE)  # one event per line, a kchain-result.json from the start
    run.install()      # packages of the environment; nothing on one's own machine
    run.preflight()    # the right GPU, disk, inputs and precision, or a stop with the reason
    run.merge()        # earlier adapters into the base, as fp16 on scratch; nothing for a first phase
    run.load_data()    # sources -> examples -> token ids and labels
    run.check_data()   # what is wrong with the examples, or a stop where too much is
    run.train()        # transformers.Trainer over LoRA weights in fp32; adapter/
    run.evaluate()     # before and after: losses, what was forgotten, answers side by side
    run.save()         # validation.jsonl, kchain-result.json

Folders lie under KCHAIN_KAGGLE_ROOT (default /kaggle): input, working (kept), temp (scratch).
"""
