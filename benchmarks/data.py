"""A million JSON lines filtered, mapped, de-duplicated, drawn and tokenized: kchain's runtime against plain `datasets`.

Both sides read the same file, keep the rows about one language, make pairs of question and answer, drop duplicates by
their normalized text, take 25,000 of what is left and tokenize them with the same tokenizer and chat template. Each
runs in a process of its own, so that its peak memory is its own. `python benchmarks/data.py [--json]`
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SIDES = ("kchain", "datasets")
LIMIT = 25_000
MAX_LENGTH = 1024
SEED = 42
MEMORY = 10**9  # bytes that kchain's side may take at most


def main() -> int:
    """Runs both sides, prints a table and, with --json, one object on the last line; 1 if kchain takes too much."""
    options = _options()
    if options.side:
        print(json.dumps(run_side(options.side, Path(options.folder))))
        return 0
    with tempfile.TemporaryDirectory(prefix="kchain-bench-") as folder:
        place = Path(folder)
        write_rows(place / "rows.jsonl", options.rows)
        write_model(place / "model")
        size = (place / "rows.jsonl").stat().st_size
        sides = {side: _in_own_process(side, place) for side in SIDES}
    found = {"rows": options.rows, "file_bytes": size, "sides": sides, "fits": sides["kchain"]["peak_bytes"] < MEMORY}
    print_table(found)
    if options.json:
        print(json.dumps(found))
    return 0 if found["fits"] else 1


def write_rows(path: Path, count: int) -> None:
    """Questions and answers in two languages; one in twenty repeats an earlier one in other case, some are broken."""
    sys.path.insert(0, str(ROOT))
    from kchain.demo.tokenizer import texts

    chance = random.Random(SEED)
    words = sorted({word for text in texts() for word in text.split()})
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            own = random.Random(number if number % 20 else number // 2)
            ask, told = " ".join(own.choices(words, k=12)), " ".join(own.choices(words, k=25))
            row = {"id": number, "meta": {"lang": own.choice(["bash", "python"])}, "question": ask, "response": told}
            if number % 20 == 0:
                row["question"] = ask.upper()
            file.write(json.dumps(row) + "\n")
            if chance.random() < 0.0001:
                file.write('{"id": "half a row\n')


def write_model(folder: Path) -> None:
    """The demo's tokenizer: byte-level BPE with Qwen's special tokens and a chat template."""
    sys.path.insert(0, str(ROOT))
    from kchain.demo.tokenizer import texts, write_tokenizer

    folder.mkdir()
    write_tokenizer(texts(), folder)


def run_side(side: str, folder: Path) -> dict[str, Any]:
    """One side from file to token ids.

    Returns:
        Seconds (and of the CPU) until the examples are drawn and until they are tokenized, peak memory of the process
        in bytes, examples, tokens, and what became of the rows, as far as that side knows.
    """
    sys.path.insert(0, str(ROOT))
    from transformers import AutoTokenizer

    from kchain.runtime.failure import peak_memory

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.eos_token = "<|im_end|>"
    begin, begin_cpu = time.perf_counter(), time.process_time()
    examples, counts = (draw_kchain if side == "kchain" else draw_datasets)(folder)
    drawn, drawn_cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    tokens = (tokenize_kchain if side == "kchain" else tokenize_datasets)(examples, tokenizer)
    return {
        "seconds": time.perf_counter() - begin,
        "drawn_seconds": drawn,
        "drawn_cpu_seconds": drawn_cpu,  # what a busy machine does not blur
        "cpu_seconds": time.process_time() - begin_cpu,
        "peak_bytes": peak_memory(),
        "examples": len(examples),
        "tokens": tokens,
        "counts": counts,
    }


def draw_kchain(folder: Path) -> tuple[Any, dict[str, Any]]:
    """As in a notebook: `data.load`, whose counts add up."""
    from kchain.runtime import data
    from kchain.runtime.paths import Paths

    source = {
        "name": "rows",
        "kind": "path",
        "place": str(folder / "rows.jsonl"),
        "fields": {"prompt": ["instruction", "question"], "completion": ["output", "response"]},
        "where": [{"column": "meta.lang", "equals": "bash"}],
        "limit": LIMIT,
    }
    table = {
        "recipe": "prompt_completion",
        "system_prompt": "You are a helpful assistant.",
        "max_examples": LIMIT,
        "validation": 0.0,
        "max_validation": 1,
        "deduplicate": "normalized",
        "sources": [source],
    }
    mix = data.load(Paths(folder, folder, folder), table, SEED, tell=lambda event, **fields: None)
    return mix.train, mix.reports[0].counts()


def tokenize_kchain(examples: Any, tokenizer: Any) -> int:
    """As in a notebook: ids and labels, the question masked."""
    from kchain.runtime.chat import Chat
    from kchain.runtime.encode import encode_all

    encoded = encode_all(examples, Chat(tokenizer), MAX_LENGTH)
    return sum(len(example) for example in encoded.examples)


def draw_datasets(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The usual calls: load, filter, map, filter what was seen, shuffle, select. Broken lines would end it; out."""
    import datasets

    datasets.disable_progress_bars()
    clean = folder / "clean.jsonl"
    with (folder / "rows.jsonl").open("rb") as whole, clean.open("wb") as kept:
        kept.writelines(line for line in whole if line.endswith(b"}\n"))
    cache = str(folder / "cache")
    rows = datasets.load_dataset("json", data_files=str(clean), split="train", cache_dir=cache)
    rows = rows.filter(lambda batch: [meta["lang"] == "bash" for meta in batch["meta"]], batched=True)
    rows = rows.map(_pairs, batched=True, remove_columns=rows.column_names)
    seen: set[bytes] = set()

    def first(row: dict[str, str]) -> bool:
        told = f"{' '.join(row['prompt'].lower().split())}\0{' '.join(row['completion'].lower().split())}"
        key = hashlib.blake2b(told.encode(), digest_size=16).digest()
        new = key not in seen
        seen.add(key)
        return new

    rows = rows.filter(first)
    rows = rows.shuffle(seed=SEED).select(range(min(LIMIT, len(rows))))
    return rows, {"distinct": len(seen)}


def _pairs(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {"prompt": batch["question"], "completion": batch["response"]}


def tokenize_datasets(rows: Any, tokenizer: Any) -> int:
    """The same text of the same chat template, in batches; no labels."""
    system = {"role": "system", "content": "You are a helpful assistant."}

    def encode(batch: dict[str, list[str]]) -> dict[str, Any]:
        chats = [
            [system, {"role": "user", "content": asked}, {"role": "assistant", "content": told}]
            for asked, told in zip(batch["prompt"], batch["completion"], strict=True)
        ]
        texts = tokenizer.apply_chat_template(chats, tokenize=False)
        return {"input_ids": tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]}

    encoded = rows.map(encode, batched=True, remove_columns=rows.column_names)
    return sum(len(ids) for ids in encoded["input_ids"])


def print_table(found: dict[str, Any]) -> None:
    """For people: both sides, and what became of the rows."""
    print(f"{found['rows']:,} rows, {found['file_bytes'] / 2**20:.0f} MiB; {LIMIT:,} drawn and tokenized")
    print(f"{'':10}{'drawn after':>13}{'(CPU)':>9}{'tokenized':>13}{'(CPU)':>9}{'peak memory':>14}{'tokens':>12}")
    for name, side in found["sides"].items():
        print(f"{name:10}{side['drawn_seconds']:>11.1f} s{side['drawn_cpu_seconds']:>7.1f} s", end="")
        print(f"{side['seconds']:>11.1f} s{side['cpu_seconds']:>7.1f} s", end="")
        print(f"{side['peak_bytes'] / 2**20:>10.0f} MiB{side['tokens']:>12,}")
    counts = found["sides"]["kchain"]["counts"]
    told = ", ".join(f"{name} {value:,}" for name, value in counts.items() if isinstance(value, int))
    print(f"kchain: {told}")
    print("peak memory includes the interpreter and transformers" + ("" if found["fits"] else "; TOO MUCH for kchain"))


def _in_own_process(side: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="one object with the figures, on the last line")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
