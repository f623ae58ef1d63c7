"""GGUF files that kchain writes, loaded by llama.cpp, against transformers in fp32: do they say the same?

Needs llama-cpp-python, which is compiled for some ten minutes and therefore no dependency of kchain or its tests:
pip install llama-cpp-python==0.3.36

`python benchmarks/export_gguf.py [--models NAME …] [--folder DIR …] [--json]`; a folder is an export of
kchain export --format safetensors. Ends with 1 when a file is outside the bounds that docs/use-the-model.md states.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_models import KINDS, build  # noqa: E402

from kchain.uses.gguf import TYPES, write_gguf  # noqa: E402

PROMPTS = (
    "Write a Python function that adds two numbers.",
    "How do I list all files, hidden ones too?\n\n\tls -la\t| wc -l",
    "Es war einmal ein König; 这是一个测试。 안녕하세요 සිංහල 🦙🦙",
    "for i in range(10):\n    print(i ** 2)  # 3.14159 2026 12345",
    "I've seen that they'll say it's done, WE'RE told.",
)
GREEDY = 24
LONG = 160  # tokens of the longest prompt: positions beyond every wave length that is scaled
# At most: KL divergence in nats and the share of positions with another first choice.
BOUNDS = {"f16": {"kl": 1e-4, "other": 0.01}, "q8_0": {"kl": 0.02, "other": 0.2}}


def main() -> int:
    """Compares every model in every type; prints a table and, with --json, one list on the last line."""
    options = _options()
    if options.ask:
        answer(options.ask)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folders = {each: build(Path(name) / each.replace(" ", "-"), each) for each in options.models}
        folders |= {folder.name: folder for folder in options.folder}
        found = [
            {"model": title, "type": kind, **compare(folder, kind, Path(name))}
            for title, folder in folders.items()
            for kind in TYPES
        ]
    print_table(found)
    if options.json:
        print(json.dumps(found))
    return 0 if all(each["within"] for each in found) else 1


def compare(folder: Path, kind: str, scratch: Path) -> dict[str, Any]:
    """One model in one type: how far llama.cpp's logits and answers are from those of transformers in fp32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    file = scratch / f"{folder.name}-{kind}.gguf"
    write_gguf(folder, file, kind, {"general.name": folder.name}, tokenizer.eos_token_id)
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    prompts.append((sum(prompts, []) * 8)[:LONG])
    told = _ask_llama(file, prompts, tokenizer.eos_token_id)
    mine, theirs = np.concatenate([_logits(model, ids) for ids in prompts]), np.load(file.with_suffix(".npy"))
    file.with_suffix(".npy").unlink()
    error = float(np.abs(mine - theirs).max())
    answers = [_greedy(model, ids, tokenizer.eos_token_id) for ids in prompts]
    tie = 2 * error if kind == "f16" else 0.0
    agreed = [_agree(model, *three, tie) for three in zip(prompts, answers, told["answers"], strict=True)]
    kl = float(np.mean([_divergence(*pair) for pair in zip(mine, theirs, strict=True)]))
    top = float((mine.argmax(-1) == theirs.argmax(-1)).mean())
    same_tokens = told["tokens"] == prompts[: len(PROMPTS)]
    near = kl <= BOUNDS[kind]["kl"] and 1 - top <= BOUNDS[kind]["other"]
    return {
        "bytes": file.stat().st_size,
        "same_tokens": same_tokens,
        "max_logit_error": error,
        "logit_spread": float(mine.std()),
        "kl": kl,
        "top1": top,
        "greedy_equal": sum(agreed),
        "prompts": len(agreed),
        "within": same_tokens and near and (kind != "f16" or all(agreed)),
    }


def _logits(model: Any, ids: list[int]) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].float().numpy()


def _greedy(model: Any, ids: list[int], eos: int) -> list[int]:
    import torch

    with torch.no_grad():
        made = model.generate(
            torch.tensor([ids]), max_new_tokens=GREEDY, min_new_tokens=GREEDY, do_sample=False, pad_token_id=eos
        )
    return [int(each) for each in made[0, len(ids) :]]


def _agree(model: Any, ids: list[int], mine: list[int], theirs: list[int], tie: float) -> bool:
    """Whether both answers are the same, up to a place where the two first choices are not more than `tie` apart."""
    for place, (first, second) in enumerate(zip(mine, theirs, strict=True)):
        if first != second:
            last = _logits(model, ids + mine[:place])[-1]
            return bool(last[first] - last[second] <= tie)
    return True


def _ask_llama(file: Path, prompts: list[list[int]], eos: int) -> dict[str, Any]:
    """llama.cpp in a process of its own: its OpenMP and torch's do not live in one."""
    command = [sys.executable, __file__, "--ask", str(file)]
    done = subprocess.run(command, input=json.dumps([prompts, eos]), stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def answer(file: Path) -> None:
    """That process: prompts and the EOS id on stdin; prints tokens and answers, leaves the logits beside the file."""
    from llama_cpp import Llama

    model = Llama(str(file), n_ctx=256, logits_all=True, verbose=False)
    prompts, eos = json.loads(sys.stdin.read())
    logits, answers = [], []
    for ids in prompts:
        model.reset()
        model.eval(ids)
        logits.append(model.scores[: len(ids)].copy())
        answers.append([_next(model, eos) for _ in range(GREEDY)])
    np.save(file.with_suffix(".npy"), np.concatenate(logits))
    print(json.dumps({"tokens": [model.tokenize(text.encode(), special=True) for text in PROMPTS], "answers": answers}))


def _next(model: Any, eos: int) -> int:
    """As `generate` with min_new_tokens: the EOS token is never chosen."""
    scores = model.scores[model.n_tokens - 1].copy()
    scores[eos] = -np.inf
    model.eval([int(scores.argmax())])
    return int(scores.argmax())


def _divergence(mine: Any, theirs: Any) -> float:
    """KL divergence in nats of llama.cpp's prediction from that of transformers, at one position."""
    first, second = _log_softmax(mine), _log_softmax(theirs)
    return float((np.exp(first) * (first - second)).sum())


def _log_softmax(logits: Any) -> Any:
    wide = logits.astype(np.float64)
    wide -= wide.max()
    return wide - np.log(np.exp(wide).sum())


def print_table(found: list[dict[str, Any]]) -> None:
    """For people."""
    heads = ("model", "type", "size", "logit error", "spread", "KL", "top-1", "greedy", "tokens")
    print("{:16}{:6}{:>9}{:>13}{:>8}{:>10}{:>8}{:>8}{:>8}".format(*heads))
    for each in found:
        print(
            f"{each['model'][:15]:16}{each['type']:6}{each['bytes'] / 1e6:>6.1f} MB{each['max_logit_error']:>13.4f}"
            f"{each['logit_spread']:>8.2f}{each['kl']:>10.1e}{each['top1']:>8.3f}"
            f"{each['greedy_equal']:>6}/{each['prompts']}{'same' if each['same_tokens'] else 'OTHER':>8}"
            + ("" if each["within"] else "  OUTSIDE THE BOUNDS")
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--folder", nargs="+", type=Path, default=[], help="models of kchain export")
    parser.add_argument("--json", action="store_true", help="one list on the last line")
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
