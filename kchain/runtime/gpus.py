"""The GPUs of the machine, looked at by a process of its own: looking takes memory of a GPU until the process ends.

`python -m kchain_runtime.gpus` prints one JSON list.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from .failure import Stop

SECONDS = 300  # importing torch on a cold disk takes a minute


@dataclass(frozen=True)
class Gpu:
    """One GPU that torch sees. `free` and `total` are bytes; looking itself takes some hundred MiB of what is free."""

    name: str
    capability: tuple[int, int]
    total: int
    free: int


def look() -> list[Gpu]:
    """The GPUs that a process of this session sees.

    Raises:
        Stop: torch cannot even be asked.
    """
    package = __package__ or ""
    command = [sys.executable, "-m", f"{package}.gpus"]
    root = Path(__file__).resolve().parents[len(package.split("."))]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        last = (error.stderr or "nothing").strip().splitlines()[-1] if isinstance(error.stderr, str) else "nothing"
        raise Stop(
            f"torch cannot look at the GPUs; it said: {last}", "check the driver and the version of torch"
        ) from None
    found = json.loads(done.stdout.splitlines()[-1])
    return [Gpu(**{**gpu, "capability": tuple(gpu["capability"])}) for gpu in found]


def others() -> list[str]:
    """Programs that compute on the GPUs now, as the driver tells them; nothing where it does not."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def main() -> None:
    """Prints what torch sees."""
    import torch

    found = []
    for number in range(torch.cuda.device_count()):
        seen = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        found.append(Gpu(seen.name, (seen.major, seen.minor), total, free))
    print(json.dumps([asdict(gpu) for gpu in found]))


if __name__ == "__main__":
    main()
