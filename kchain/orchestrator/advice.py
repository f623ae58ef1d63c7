"""What a failure probably means and what to change: one table, most telling first. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from kchain.orchestrator.failing import failing_cell

__all__ = ["Advice", "advise", "failing_cell"]

_EVENT = re.compile(r"^kchain: (\{.*\"event\": ?\"failed\".*\})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Advice:
    """What it probably means, and what to change."""

    meaning: str
    change: str


def _row(pattern: str, meaning: str, change: str) -> tuple[re.Pattern[str], Advice]:
    return re.compile(pattern, re.IGNORECASE), Advice(meaning, change)


# Phrases are those of torch, transformers, peft, bitsandbytes, datasets, pip, papermill and Kaggle's own messages.
TABLE = (
    _row(
        r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        "the GPU's memory was not enough for one step",
        "halve `batch` and double `accumulation` (the effective batch stays), keep `checkpointing = true`, "
        "lower `max_length`; fewer examples spare time and host memory, not GPU memory",
    ),
    _row(
        r"DeadKernelError|Kernel died|exit(ed with)? (code|status) (137|-9)|allocate more memory than is available"
        r"|\bMemoryError\b|\bOOM-?kill",
        "the machine's own memory was not enough, and the system ended the notebook",
        "lower `max_examples`, or give the largest source a `limit`",
    ),
    _row(
        r"No space left on device|Errno 28|disk quota exceeded|out of disk",
        "the session's disk was full",
        "merge onto a smaller base, or keep fewer checkpoints; /kaggle/working has 20 GB",
    ),
    _row(
        r"was ended during (evaluate|judge)",
        "the session was ended while it judged the adapter that it had saved: the training itself was done",
        "give it more time: a larger `session_timeout`, or a smaller `max_validation` in [data]",
    ),
    _row(
        r"Attempting to unscale FP16 gradients",
        "the LoRA weights themselves were in fp16, where fp16 training needs them in fp32",
        "render again with this kchain, whose notebooks keep LoRA weights in fp32",
    ),
    _row(
        r"not implemented for '?BFloat16|bf16.{0,60}(not supported|no bf16|Ampere)|has no bf16",
        "bf16 arithmetic on a GPU that has none (a T4 has not)",
        '`precision = "auto"` or "fp16" in [training]',
    ),
    _row(
        r"incompatible version of torchao|(ImportError|ModuleNotFoundError).{0,200}torchao|torchao.{0,200}ImportError",
        "peft refuses the torchao of Kaggle's image",
        "kchain's notebooks uninstall torchao in their first cell: render again, and keep internet on",
    ),
    _row(
        r"No kernel name found in notebook",
        "the notebook has no kernelspec, so nothing could run it",
        "render it again; kchain lint finds this before a push",
    ),
    _row(
        r"no kernel image is available for execution on the device|sm_60",
        "the GPU is older than this torch supports (a P100, for instance)",
        '`accelerator = "NvidiaTeslaT4"` in kchain.toml',
    ),
    _row(
        r"(asked for, and )?torch sees no GPU|No CUDA GPUs are available|Found no NVIDIA driver"
        r"|Torch not compiled with CUDA|CUDA is required but not available",
        "the session had no GPU",
        "check `accelerator`, the account's phone verification and the GPU quota (kchain doctor)",
    ),
    _row(
        r"gated (repo|dataset)|You must be authenticated to access|401 Client Error.{0,80}huggingface",
        "the Hugging Face data set wants a login, and a pushed notebook has none",
        "use an open data set, or attach a copy of it as a Kaggle data set",
    ),
    _row(
        r"name resolution|Name or service not known|getaddrinfo failed|NameResolutionError"
        r"|Failed to establish a new connection|Couldn't reach|OfflineModeIsEnabled|LocalEntryNotFoundError"
        r"|pip .* failed with status",
        "the session could not reach the network: internet is off, or the account's phone is not verified",
        "`internet = true` for this phase (and verify the phone), or attach the data as a Kaggle data set",
    ),
    _row(
        r"is not mounted|No such file or directory: '?/kaggle/input|FileNotFoundError.{0,120}/kaggle/input",
        "something this notebook builds on was not there: a source was not attached, or Kaggle mounted it empty",
        "look at the invalid sources of the push, the names in the phase file and who may see them; then push again",
    ),
    _row(
        r"DatasetNotFoundError|doesn't exist on the Hub|BuilderConfig .* not found|Unknown split",
        "a Hugging Face data set, its subset or its split is not called that",
        "check `huggingface`, `subset` and `split` of the source; `optional = true` skips a source that fails",
    ),
    _row(
        r"is not valid JSON|JSONDecodeError|ArrowInvalid|Error tokenizing data|DatasetGenerationError",
        "a source's file is not what its ending says",
        "look at the file; `optional = true` on the source skips it",
    ),
    _row(
        r"is gzip although|can't decode byte 0x8b",
        "a text file is really gzip",
        "unpack it and publish it again",
    ),
    _row(
        r"size mismatch for (.*\.)?(lm_head|embed_tokens)",
        "the adapter was saved with another vocabulary than the model has",
        "load the tokenizer saved with the adapter, resize the embeddings, and only then load the adapter",
    ),
    _row(
        r"Expected all tensors to be on the same device",
        "the model was spread over two GPUs",
        'keep it on one: kchain\'s notebooks do; in one written by hand, no device_map="auto"',
    ),
    _row(
        r"the loss is (nan|-?inf)|\bloss['\"]?: ?['\"]?nan|holds NaN|NaN or inf",
        "the training diverged",
        "lower `learning_rate`, add some `warmup`, and look at the longest and oddest examples",
    ),
    _row(
        r"\bpad[ _]id\b.{0,20}(wanted|due|is|was)\b|has id \d+, the chain says|pads with",
        "the pad token is not the chain's: such an adapter answers gibberish",
        "set `eos_token` and `eos_id` in [model] to what the base model's tokenizer has, and train the phase again",
    ),
    _row(
        r"a step takes .* where .* planned",
        "the training crawled, and stopped itself before it could use up the week's hours",
        "check that the GPU is the planned one and nothing else runs on it; else raise `step_seconds`, "
        "or lower `max_length`",
    ),
    _row(
        r"session's time is nearly over|CANCEL_ACKNOWLEDGED|time ?limit|timed? ?out after|exceeded the .*run ?time",
        "the session came to its time limit, or someone stopped it",
        "fewer `max_examples` or `epochs`, or a larger `session_timeout` (12h at most)",
    ),
    _row(
        r"unexpected keyword argument|cannot import name|No module named|ImportError|ModuleNotFoundError",
        "a library in the session has another version than the notebook was made for",
        "keep internet on so that the pinned versions are installed; kchain render writes today's pins",
    ),
    _row(
        r"\b409\b|Conflict for url|ALREADY_EXISTS",
        "Kaggle saw a conflict: a running version, a title in use, or a data set still being processed",
        "wait until nothing runs and the data set is ready, check the title, then repeat the command",
    ),
    _row(
        r"useruser|gibberish",
        "the model never learned to end its answer: the end was hidden from the loss, or the pad token was another",
        "check the pad id of every adapter of the chain (kchain status), and train the first wrong one again",
    ),
    _row(
        r"got no figure: ",
        "a gate asks for a figure that this run has not got; the gate's own line says why",
        "ask it only of phases that have the figure (in their own [gates], not in kchain.toml's), give the session "
        "more time, or fewer or shorter [samples]",
    ),
    _row(
        r"forgotten: wanted",
        "what an earlier phase had learned was partly unlearned",
        "a lower `learning_rate` or fewer `epochs`, some of the earlier phases' examples among the sources, "
        "or a larger `max_forgotten`",
    ),
    _row(
        r"answers that end by themselves: wanted",
        "the model does not stop, or needs more tokens for an answer than it was given",
        "raise `tokens` in [samples] if samples are cut in mid-answer (kchain status --html shows them); "
        "else check the pad id, and that `max_length` does not cut the ends off the data's answers",
    ),
    _row(
        r"style separation: wanted",
        "answers in the phase's styles are alike in length, or were cut before they could differ",
        "more examples of each style, trained `[tokens]`, more `tokens` in [samples], more `epochs`",
    ),
    _row(
        r"token accuracy|loss at the end|fall of the loss|validation loss",
        "the training ran, but the model learned less than its gate asks for",
        "more `epochs` or examples, another `learning_rate`, or a gate that fits this data",
    ),
)


def advise(text: str) -> Advice | None:
    """Advice on a log, a failure message or an error; None where nothing in it is known.

    What the notebook itself said when it stopped counts first, then the traceback that ended it, then everything else:
    a log is full of warnings that ended nothing.
    """
    said = _said(text)
    if said is not None:
        return said
    texts = (failing_cell(text) or "", text)
    return next((advice for part in texts for pattern, advice in TABLE if pattern.search(part)), None)


def _said(text: str) -> Advice | None:
    """The last `failed` event of a log, where it carries a cure of its own."""
    for found in reversed(_EVENT.findall(text)):
        try:
            event = json.loads(found)
        except ValueError:
            continue
        reason, cure = event.get("reason"), event.get("cure")
        if isinstance(reason, str) and isinstance(cure, str) and "traceback" not in cure:
            return Advice(reason, cure)
    return None
