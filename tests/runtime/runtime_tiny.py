"""What the tests of the runtime build: a tiny Qwen2 with genuine token ids, parameters, sources, whole sessions."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime_warm import warm

Events = Callable[[], list[dict[str, Any]]]  # the events printed since the last call
SOURCE = "tiny/qwen/transformers/nano/1"
EOS, EOS_ID = "<|im_end|>", 151645
SPECIALS = {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>", 151654: "<|vision_pad|>"}
ROWS = 151936  # embedding rows of the genuine models: more than there are tokens
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nTemplate default.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(pad: str | None = "<|vision_pad|>") -> Any:
    """Byte-level BPE; filler entries keep the special tokens at their genuine ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    trained.train_from_iterator(
        ["list all files ls -la", "count the lines wc -l", "system user assistant"] * 3, trainer
    )
    state = json.loads(trained.to_str())
    vocabulary = state["model"]["vocab"]
    for number in range(len(vocabulary), 151665):
        vocabulary[SPECIALS.get(number, f"<filler-{number}>")] = number
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS.values()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token=pad, chat_template=TEMPLATE
    )


def build_model(folder: Path, dtype: str = "float16", tied: bool = True, rows: int = ROWS, **options: Any) -> Path:
    """A two-layer Qwen2 with random weights; options go to save_pretrained."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(7)
    config = Qwen2Config(
        vocab_size=rows,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        eos_token_id=EOS_ID,
        max_position_embeddings=512,
    )
    model = Qwen2ForCausalLM(config)
    model.model.norm.weight.data *= 20.0  # random logits far enough apart that a few steps move them
    model.to(getattr(torch, dtype)).save_pretrained(folder, **options)
    return folder


def parameters(**changes: Any) -> dict[str, Any]:
    """PARAMETERS of a first phase that trains a few steps on a project's JSONL file."""
    values: dict[str, Any] = {
        "chain": "tiny",
        "phase": "phase1",
        "title": "A tiny phase",
        "description": "For tests.",
        "seed": 42,
        "target": "local",
        "model": {"source": SOURCE},
        "pad": {"token": EOS, "id": EOS_ID},
        "adapter_mode": "merge",
        "lineage": [],
        "tokens": {"added": [], "trained": []},
        "lora": {
            "r": 4,
            "alpha": 8,
            "dropout": 0.05,
            "targets": ["q_proj", "k_proj", "v_proj", "o_proj"],
            "bias": "none",
        },
        "training": {
            "epochs": 1,
            "max_steps": None,
            "batch": 2,
            "accumulation": 1,
            "learning_rate": 1e-2,
            "scheduler": "linear",
            "warmup": 0.0,
            "weight_decay": 0.0,
            "optimizer": "adamw_torch",
            "precision": "fp32",
            "quantization": "none",
            "max_length": 64,
            "checkpointing": False,
            "logging_steps": 2,
            "step_seconds": 60.0,
            "processes": 1,
            "max_sessions": 1,
        },
        "samples": {"count": 2, "tokens": 8},
        "data": {
            "recipe": "prompt_completion",
            "system_prompt": "You are a shell.",
            "max_examples": 12,
            "validation": 0.2,
            "max_validation": 50,
            "deduplicate": "normalized",
            "quality": {},
            "sources": [source()],
        },
        "accelerator": {"name": "cpu", "gpus": 0, "memory": 0, "capability": [0, 0]},
        "session_timeout": 3600,
        "continuation": None,
        "environment": {"install": [], "uninstall": []},
    }
    values = copy.deepcopy(values)
    for path, value in changes.items():
        place = values
        *front, last = path.split("__")
        for key in front:
            place = place[key]
        place[last] = value
    return values


def source(**changes: Any) -> dict[str, Any]:
    """A source that reads `train.jsonl` of the project."""
    return {
        "name": "shell",
        "kind": "project",
        "dataset": None,
        "huggingface": None,
        "file": "train.jsonl",
        "subset": None,
        "split": None,
        "fields": {"prompt": "ask", "completion": "answer"},
        "style": None,
        "where": [],
        "limit": None,
        "seed": None,
        "optional": False,
        **changes,
    }


ROWS_OF_PROJECT = [{"ask": f"list file {n}", "answer": f"ls -la {n}"} for n in range(12)]


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    """Writes rows, one a line; text is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def run_session(values: dict[str, Any]) -> Any:
    """All stages, as the notebook's cells call them."""
    from kchain.runtime import session

    with warm():
        run = session.start(values, "b" * 64)
        run.install()
        run.preflight()
        run.merge()
        run.load_data()
        run.check_data()
        run.train()
        run.evaluate()
        run.save()
    return run


def read_result(root: Path) -> dict[str, Any]:
    """The result file of the session under a root."""
    result: dict[str, Any] = json.loads((root / "working" / "kchain-result.json").read_text(encoding="utf-8"))
    return result


def events_in(text: str) -> list[dict[str, Any]]:
    """The events among printed lines."""
    return [json.loads(line.removeprefix("kchain: ")) for line in text.splitlines() if line.startswith("kchain: ")]


def encode_one(example: Any, chat: Any) -> Any:
    """An example that is encoded in one piece."""
    from kchain.runtime.encode import encode

    (found,) = encode(example, chat)
    return found


def rounded(model: Any) -> Any:
    """A model whose weights are stored as fp16; its buffers (frequencies of positions) are stored nowhere."""
    for weight in model.parameters():
        weight.data = weight.data.half().float()
    return model


def mount(root: Path, where: str, what: Path) -> None:
    """Mounts a folder into a session, read-only by convention."""
    place = root / "input" / where
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(what)


def make_root(root: Path, base: Path) -> Path:
    """A session's root with the base model mounted (new layout) and the project's file on scratch."""
    mount(root, f"models/{SOURCE}", base)
    write_jsonl(root / "temp" / "project" / "train.jsonl", ROWS_OF_PROJECT)
    return root


def ancestor(phase: str, ref: str, **changes: Any) -> dict[str, Any]:
    """One entry of a lineage: the output of a kernel."""
    return {
        "phase": phase,
        "kind": "kernel",
        "ref": ref,
        "folder": "adapter",
        "sha256": None,
        "use": "merge",
        **changes,
    }


def second_phase(**changes: Any) -> dict[str, Any]:
    """PARAMETERS of a phase on top of the one that kernel me/one ran."""
    return parameters(**{"phase": "phase2", "lineage": [ancestor("phase1", "me/one")], **changes})
