"""Three adapters into a 1 GB base model as kchain does it, against copying the files and against PEFT's own ways.

The base has the shape of Qwen2.5-0.5B with random weights, once as one fp16 file and once as bf16 shards. Each
side runs in a process of its own. kchain's result must equal, bit for bit, PEFT's merge in fp32 stored as fp16, or the
comparison says so and fails. `python benchmarks/merge.py [--json]`
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SIDES = {
    "copy": "copying the files",
    "kchain": "kchain: streamed, fp32 sums",
    "peft-fp32": "PEFT merge_and_unload in fp32, then half()",
    "peft-fp16": "PEFT merge_and_unload in fp16",
}
BASES = {"fp16": "one fp16 file", "bf16": "bf16 shards"}
ADAPTERS = 3
LORA = {"r": 16, "alpha": 32}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
# Qwen2.5-0.5B's config.json.
SHAPE = {
    "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
SMALL = {"vocab_size": 2_000, "num_hidden_layers": 2}
SAMPLING = 0.002  # seconds between two looks at the memory


def main() -> int:
    """Runs every side on both bases, prints a table and, with --json, one object on the last line."""
    options = _options()
    if options.side:
        print(json.dumps(run_side(options.side, options.folder, options.base, options.rounds, options.small)))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        _in_own_process("make", folder, "fp16", 1, options.small)
        found = {base: compare(folder, base, options.rounds) for base in BASES}
    print_table(found)
    if options.json:
        print(json.dumps(found))
    return 0 if all(result["equal"] for result in found.values()) else 1


def compare(folder: Path, base: str, rounds: int) -> dict[str, Any]:
    """All sides on one base, and kchain's ratios to copying and to PEFT in fp32."""
    sides = {side: _in_own_process(side, folder, base, rounds) for side in SIDES}
    ours, exact, copying = sides["kchain"], sides["peft-fp32"], sides["copy"]
    weights = sum(file.stat().st_size for file in (folder / base).glob("*.safetensors"))
    return {
        "time_over_copy": ours["seconds"] / copying["seconds"],
        "flushed_time_over_copy": ours["flushed_seconds"] / copying["flushed_seconds"],
        "memory_over_weights": ours["anonymous_bytes"] / weights,
        "time_over_peft": ours["seconds"] / exact["seconds"],
        "memory_over_peft": ours["anonymous_bytes"] / exact["anonymous_bytes"],
        "weights_bytes": weights,
        "equal": differing(folder / f"{base}-kchain", folder / f"{base}-peft-fp32") == 0,
        "fp16_differs": differing(folder / f"{base}-peft-fp16", folder / f"{base}-peft-fp32"),
        "sides": sides,
    }


def run_side(side: str, folder: Path, base: str, rounds: int, small: bool) -> dict[str, Any]:
    """Does one side `rounds` times.

    Returns:
        The best wall-clock seconds of the rounds, into the page cache and until all is on the disk, their best CPU
        seconds, and the most anonymous memory, in bytes, over that of the interpreter with its imports.
    """
    sys.path.insert(0, str(ROOT))
    if side == "make":
        make_base(folder, {**SHAPE, **SMALL} if small else SHAPE)
        return {}
    work = {"copy": _copy, "kchain": _kchain, "peft-fp32": _peft, "peft-fp16": _peft}[side]
    _import_first(side)
    for file in (folder / base).glob("*.safetensors"):
        file.read_bytes()  # every side reads from the page cache
    seconds, flushed, cpu_seconds, memory = [], [], [], []
    for _ in range(rounds):
        target = folder / f"{base}-{side}"
        shutil.rmtree(target, ignore_errors=True)
        with _peak_of_anonymous_memory() as peak:
            begin, begin_cpu = time.perf_counter(), time.process_time()
            work(folder, folder / base, target, side)
            seconds.append(time.perf_counter() - begin)
            cpu_seconds.append(time.process_time() - begin_cpu)
            for file in target.iterdir():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            flushed.append(time.perf_counter() - begin)
        memory.append(peak[0])
    return {
        "seconds": min(seconds),
        "flushed_seconds": min(flushed),
        "cpu_seconds": min(cpu_seconds),
        "anonymous_bytes": memory[0],
    }


def _import_first(side: str) -> None:
    """What a side needs is there before its clock starts."""
    import kchain.runtime.merge  # noqa: F401

    if side.startswith("peft"):
        import peft  # noqa: F401
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()


def make_base(folder: Path, shape: dict[str, Any]) -> None:
    """The base in both forms, and adapters whose B matrices are not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**shape)).half()
    model.save_pretrained(folder / "fp16")
    for number in range(ADAPTERS):
        config = LoraConfig(r=LORA["r"], lora_alpha=LORA["alpha"], target_modules=TARGETS, task_type="CAUSAL_LM")
        adapted = get_peft_model(model, config)
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.data = torch.randn_like(weight) * 0.02
        adapted.save_pretrained(folder / f"adapter{number}")
        model = adapted.unload()
    largest = (folder / "fp16" / "model.safetensors").stat().st_size // 3
    model.bfloat16().save_pretrained(folder / "bf16", max_shard_size=largest)


def differing(one: Path, other: Path) -> int:
    """How many values differ in a bit between two folders of the same tensors; all of them if names differ."""
    import numpy as np
    from safetensors import safe_open

    def tensors(folder: Path) -> dict[str, Any]:
        opened = [safe_open(file, framework="np") for file in folder.glob("*.safetensors")]
        return {name: file.get_tensor(name).view(np.int16) for file in opened for name in file.keys()}  # noqa: SIM118

    ones, others = tensors(one), tensors(other)
    if ones.keys() != others.keys():
        return sys.maxsize
    return sum(int(np.count_nonzero(ones[name] != others[name])) for name in ones)


def _copy(folder: Path, base: Path, target: Path, side: str) -> None:
    target.mkdir()
    for file in base.glob("*.safetensors"):
        shutil.copyfile(file, target / file.name)


def _kchain(folder: Path, base: Path, target: Path, side: str) -> None:
    from kchain.runtime.adapters import Adapter
    from kchain.runtime.merge import merge

    folders = [folder / f"adapter{number}" for number in range(ADAPTERS)]
    merge(base, [Adapter(each.name, "kernel", "", each, "", 0) for each in folders], LORA, target)


def _peft(folder: Path, base: Path, target: Path, side: str) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    dtype = torch.float32 if side == "peft-fp32" else torch.float16
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    for number in range(ADAPTERS):
        model = PeftModel.from_pretrained(model, folder / f"adapter{number}").merge_and_unload()
    model.half().save_pretrained(target)


@contextmanager
def _peak_of_anonymous_memory() -> Iterator[list[int]]:
    """The one number in the list is the peak, in bytes over what the process had at the beginning."""
    start, over = _anonymous(), threading.Event()
    peak = [0]

    def watch() -> None:
        while not over.wait(SAMPLING):
            peak[0] = max(peak[0], _anonymous() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def _anonymous() -> int:
    """Anonymous resident memory of this process in bytes: what it allocated, without files that are mapped."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this benchmark reads Linux's /proc")


def print_table(found: dict[str, dict[str, Any]]) -> None:
    """For people: every side on every base, and kchain's ratios."""
    for base, result in found.items():
        size = result["weights_bytes"]
        print(f"\n{ADAPTERS} adapters into {BASES[base]}, {size / 1e6:.0f} MB")
        print(f"{'':45}{'seconds':>9}{'to disk':>9}{'CPU s':>8}{'anonymous memory':>19}")
        for side, row in result["sides"].items():
            memory = f"{row['anonymous_bytes'] / 1e6:.0f} MB ({row['anonymous_bytes'] / size:.2f} x)"
            times = f"{row['seconds']:>9.2f}{row['flushed_seconds']:>9.2f}{row['cpu_seconds']:>8.2f}"
            print(f"{SIDES[side]:45}{times}{memory:>19}")
        print(
            f"kchain takes {result['flushed_time_over_copy']:.2f} x copying to the disk "
            f"({result['time_over_copy']:.2f} x within the page cache), "
            f"{result['time_over_peft']:.2f} x PEFT in fp32, {result['memory_over_peft']:.3f} x its memory;\n"
            + ("equal to PEFT in fp32 bit for bit" if result["equal"] else "NOT EQUAL to PEFT in fp32")
            + f"; PEFT in fp16 differs from it in {result['fp16_differs']:,} values"
        )


def _in_own_process(side: str, folder: Path, base: str, rounds: int, small: bool = False) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--base", base, "--folder", str(folder)]
    command += ["--rounds", str(1 if side.startswith("peft") else rounds), *(["--small"] if small else [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of copying and of kchain; the best counts")
    parser.add_argument("--folder", type=Path, help="where 6 GB of files are made and removed again")
    parser.add_argument("--small", action="store_true", help="two layers and 2,000 words: to see that it works")
    parser.add_argument("--json", action="store_true", help="one object with the ratios, on the last line")
    parser.add_argument("--side", choices=[*SIDES, "make"], help=argparse.SUPPRESS)
    parser.add_argument("--base", choices=BASES, default="fp16", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
