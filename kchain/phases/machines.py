"""The machine shapes kchain trains on, with what each can do; their table is machines.toml."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from kchain.units import GIB

# Bytes of scratch a session may fill.
_SCRATCH = 57 * GIB
# Of the peak in a data sheet, as in Qwen's steps on an A100 (benchmarks/plan_time.py).
_REACHED = 0.42
# fp32 of one AVX2 core: 68e9 in matrix products (measured), less than half of it in training.
_CORE_FLOPS = 30e9


@dataclass(frozen=True)
class Accelerator:
    """One machine shape.

    Attributes:
        name: the word that goes into `kernel-metadata.json` as `machine_shape`; "cpu" is kchain's word for none.
        gpus: number of GPUs in the machine.
        memory: usable bytes of one GPU (0 without one).
        capability: CUDA compute capability, (0, 0) without a GPU.
        disk: bytes of scratch a session may fill.
        flops: multiplications and additions a second that training reaches on one GPU (on all cores of a CPU).
        bandwidth: bytes a second between one GPU and its memory (0 without one).
        source: where these figures come from.
        kaggle: whether Kaggle has it.
    """

    name: str
    gpus: int
    memory: int
    capability: tuple[int, int]
    disk: int
    flops: float
    bandwidth: float
    source: str
    kaggle: bool

    @property
    def is_gpu(self) -> bool:
        return self.gpus > 0

    @property
    def bf16(self) -> bool:
        """bf16 arithmetic starts with compute capability 8.0."""
        return self.capability >= (8, 0)

    def processes(self, accumulation: int) -> int:
        """Training processes, one a GPU: as many as share the batches of a step evenly; 1 on a CPU."""
        return max((count for count in range(1, self.gpus + 1) if accumulation % count == 0), default=1)


def _accelerator(row: dict[str, Any]) -> Accelerator:
    """A row of machines.toml: one with `cores` is a CPU."""
    kaggle = row.get("kaggle", False)
    if cores := row.get("cores"):
        source = f"no GPU, {cores} cores"
        return Accelerator(row["name"], 0, 0, (0, 0), _SCRATCH, cores * _CORE_FLOPS, 0, source, kaggle)
    return Accelerator(
        name=row["name"],
        gpus=row["gpus"],
        memory=int(row["gib"] * GIB),
        capability=(row["capability"][0], row["capability"][1]),
        disk=_SCRATCH,
        flops=row.get("reached", _REACHED) * row["teraflops"] * 1e12,
        bandwidth=row["gigabytes"] * 1e9,
        source=row.get("source", "memory as CUDA reports it, at least"),
        kaggle=kaggle,
    )


_TABLE = tomllib.loads(files("kchain.phases").joinpath("machines.toml").read_text(encoding="utf-8"))
ACCELERATORS: dict[str, Accelerator] = {row["name"]: _accelerator(row) for row in _TABLE["machines"]}
# Word of a machine that Kaggle no longer has -> the machine it gives in its place.
RETIRED: dict[str, str] = _TABLE["retired"]
TPUS: frozenset[str] = frozenset(_TABLE["tpus"]["names"])


def known_accelerator(name: str) -> Accelerator:
    """The accelerator of that name; `cpu-48` is a CPU with 48 cores.

    Raises:
        ValueError: kchain does not train there; says where it does.
    """
    if name in RETIRED:
        raise ValueError(f"Kaggle retired {name} and silently gives you a {RETIRED[name]}; name that one")
    if cores := re.fullmatch(r"cpu-([1-9]\d{0,3})", name):
        return _accelerator({"name": name, "cores": int(cores[1])})
    if name not in ACCELERATORS:
        raise ValueError(f"unknown accelerator {name!r}; one of {', '.join(ACCELERATORS)}, or cpu-48 for 48 cores")
    return ACCELERATORS[name]


def not_on_kaggle(machine: Accelerator) -> str:
    """Why a machine cannot be asked of Kaggle, with what can; empty for one of Kaggle's."""
    if machine.kaggle:
        return ""
    names = ", ".join(other.name for other in ACCELERATORS.values() if other.kaggle)
    return f'Kaggle has no {machine.name}; use one of {names}, or target = "local" or a server\'s URL'
