"""What only a GPU can show of kchain, in one run on one card: `make gpu`, or `python benchmarks/gpu.py --json FILE`.

Twelve checks, each PASS, FAIL or SKIP with figures; a failure ends none but its own. Models are random, in the shapes
of published ones, and made here; trainings run as a notebook starts them, held to the memory and the kernels of a T4,
several at a time where the card has room. Without a card, or with `--tiny`, models are tiny, and what needs a card is
skipped with the reason. Needs 45 GB of scratch.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from gpu_checks import kernels, memory, shapes, speed, training, using  # noqa: E402
from gpu_checks.bench import GIB, T4_MEMORY, Bench, Skip  # noqa: E402
from gpu_checks.findings import Findings  # noqa: E402

Check = Callable[[Bench, Findings], None]
PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors", "triton", "trl", "liger-kernel",
)  # fmt: skip
# A card's lane: what a T4 has, and what the context of a process takes beside.
LANE = 16 * GIB
MOST_LANES = 4
SCRATCH = 45 * 10**9
CARD = """
import json, torch
seen = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
told = seen and [seen.name, [seen.major, seen.minor], seen.total_memory, torch.version.cuda]
print(json.dumps(told))
"""
# Number -> what it is about, and whether it needs the card for itself. Those that do come last.
CHECKS: dict[int, tuple[str, Check, bool]] = {
    1: ("fp16, fp32, bf16 and NF4: 40 steps of a 0.5 B", training.half_precision, False),
    2: ("overflow, an example that is no number, activations beyond 65,504", training.overflows, False),
    3: ("7 B in NF4", memory.four_bits, False),
    4: ("a paged optimizer saved, and gone on with", memory.paged, False),
    6: ("peak memory against the plan", memory.plan, False),
    9: ("attention of a T4: kernels by profiler", kernels.attention, False),
    10: ("20 steps against 10 + 10", training.goes_on, False),
    11: ("three adapters merged into 15 GB", using.merging, False),
    12: ("judging and samples against a plain forward", using.judging, False),
    5: ("a real out of memory, at the trial and at step 15", memory.runs_out, True),
    8: ("the chunked loss beside stock and Liger", kernels.chunked_loss, True),
    7: ("useful tokens a second beside other stacks", speed.speed, True),
}
PARTS: dict[str, Callable[..., Any]] = {
    "make": shapes.main,
    "loss": kernels.main_loss,
    "attention": kernels.main_attention,
    "speed": speed.main,
    "merge": using.main_merge,
    "judge": using.main_judge,
}


def main() -> int:
    """Runs the checks, prints a line for each as it ends and all of them at the end; 1 where one failed."""
    options = _options()
    if options.part:
        print("\n" + json.dumps(PARTS[options.part[0]](*options.part[1:])))
        return 0
    began = time.monotonic()
    about = versions()
    cuda = about["card"] is not None and not options.tiny
    lanes = min(MOST_LANES, about["memory"] // LANE) if cuda else 1
    print(f"check 0   {json.dumps(about)}", flush=True)
    folder = scratch(options.folder, SCRATCH if cuda else 10**9)
    bench = Bench(folder, cuda, threading.Semaphore(max(1, lanes)), began + options.seconds)
    found: dict[int, dict[str, Any]] = {}
    try:
        run_all(bench, options.checks, found, lambda: write(options.json, about, found, began))
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    write(options.json, about, found, began)
    print_table(about, found, time.monotonic() - began)
    return 1 if any(each["verdict"] == "FAIL" for each in found.values()) else 0


def versions() -> dict[str, Any]:
    """Check 0: the card, as a process of its own sees it, and the versions."""
    done = subprocess.run([sys.executable, "-c", CARD], capture_output=True, text=True, check=True)
    card = json.loads(done.stdout.splitlines()[-1]) or [None, None, 0, None]
    found = {name: importlib.metadata.version(name) for name in PACKAGES if _is_there(name)}
    about = {"card": card[0], "capability": card[1], "memory": card[2], "cuda": card[3], "driver": _driver()}
    held_to = {"held_to": {"memory": T4_MEMORY, "capability": [7, 5]}}
    return {**about, **held_to, "python": platform.python_version(), "cpus": os.cpu_count(), "versions": found}


def scratch(chosen: Path | None, needed: int) -> Path:
    """A new folder: where it was asked for, in memory where that has room, or where temporary files are."""
    shared = Path("/dev/shm")
    if chosen is None and shared.is_dir() and shutil.disk_usage(shared).free > needed and needed > 10**9:
        chosen = shared
    return Path(tempfile.mkdtemp(prefix="kchain-gpu-", dir=chosen))


def run_all(bench: Bench, chosen: list[int], found: dict[int, dict[str, Any]], save: Callable[[], None]) -> None:
    """Those that share the card at once, then one by one those that need it for themselves."""
    together = [number for number in CHECKS if number in chosen and not CHECKS[number][2]]
    with ThreadPoolExecutor(max(1, len(together) if bench.cuda else 1)) as pool:
        futures = [pool.submit(run, bench, number, found, save) for number in together]
        for future in futures:
            future.result()
    for number in CHECKS:
        if number in chosen and CHECKS[number][2]:
            run(bench, number, found, save)


def run(bench: Bench, number: int, found: dict[int, dict[str, Any]], save: Callable[[], None]) -> None:
    """One check; whatever goes wrong in it is its own failure."""
    title, check, _ = CHECKS[number]
    seen, began = Findings(), time.monotonic()
    try:
        check(bench, seen)
    except Skip as skip:
        seen.skip(str(skip))
    except Exception as error:
        seen.must(f"{type(error).__name__}: {str(error)[:1500]}", False)
    seconds = round(time.monotonic() - began, 1)
    found[number] = {"title": title, **seen.as_dict(), "seconds": seconds}
    print(f"check {number:<3} {seen.verdict}  {seconds} s  {title}", flush=True)
    for word, what in [*(("failed", each) for each in seen.failed), *(("skipped", each) for each in seen.skipped)]:
        print(f"          {word}: {what}", flush=True)
    save()


def write(path: Path | None, about: dict[str, Any], found: dict[int, dict[str, Any]], began: float) -> None:
    """The JSON, as far as it is known."""
    if path is not None:
        checks = {str(number): found[number] for number in sorted(found)}
        told = {"about": about, "seconds": round(time.monotonic() - began, 1), "checks": checks}
        path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def print_table(about: dict[str, Any], found: dict[int, dict[str, Any]], seconds: float) -> None:
    """For people: every check with its figures."""
    print(f"\n{about['card'] or 'no CUDA card: tiny models on the CPU'}, {seconds:.0f} s")
    for number in sorted(found):
        each = found[number]
        print(f"{number:>3}  {each['verdict']}  {each['title']} ({len(each['held'])} of what is asked for holds)")
        for name, figure in each["figures"].items():
            print(f"       {name}: {json.dumps(figure)[:300]}")


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True)
    return done.stdout.strip() or None


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name.replace("-", "_")) is not None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checks", nargs="+", type=int, choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU, whatever there is")
    parser.add_argument("--seconds", type=float, default=450.0, help="after these nothing more is begun")
    parser.add_argument("--folder", type=Path, help="for scratch")
    parser.add_argument("--keep", action="store_true", help="leave scratch there")
    parser.add_argument("--json", type=Path, help="file for all figures; it grows with every check")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
