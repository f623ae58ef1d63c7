"""The machine shapes kchain trains on, with what each can do.

Kaggle's are named by its `machineShape` words, the others by kchain. Memory is what a program can really use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kchain.units import GIB


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
    kaggle: bool = True

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


_KAGGLE = "Kaggle's docs/kernels.md, February 2026"
_CUDA = "memory as CUDA reports it, at least"
_SCRATCH = 57 * GIB
# Of the peak in a data sheet (dense, half precision), as in Qwen's steps on an A100 (benchmarks/plan_time.py).
# A T4 is held back by its 70 W: a fifth of its 65e12, by judgement; nobody has measured kchain's own notebook on one.
_REACHED = 0.42
_T4_FLOPS = 13e12
# fp32 of one AVX2 core: 68e9 in matrix products (measured), less than half of it in training.
_CORE_FLOPS = 30e9
_KAGGLE_CORES = 4


def _gpu(
    name: str, gpus: int, gib: float, capability: tuple[int, int], teraflops: float, gigabytes: int, source: str = ""
) -> Accelerator:
    """A machine of GPUs; `teraflops` and `gigabytes` a second are its data sheet's. Without a source: not Kaggle's."""
    speeds = (_REACHED * teraflops * 1e12, gigabytes * 1e9)
    return Accelerator(name, gpus, int(gib * GIB), capability, _SCRATCH, *speeds, source or _CUDA, bool(source))


def _cpu(name: str, cores: int, kaggle: bool = False) -> Accelerator:
    return Accelerator(name, 0, 0, (0, 0), _SCRATCH, cores * _CORE_FLOPS, 0, f"no GPU, {cores} cores", kaggle)


def _t4(name: str, source: str) -> Accelerator:
    # 14.56 GiB: the lower end of what CUDA reports as usable on a 16 GB T4.
    return Accelerator(name, 2, int(14.56 * GIB), (7, 5), _SCRATCH, _T4_FLOPS, 320e9, source)


ACCELERATORS: dict[str, Accelerator] = {
    accelerator.name: accelerator
    for accelerator in (
        _cpu("cpu", _KAGGLE_CORES, kaggle=True),
        _t4("NvidiaTeslaT4", "two T4s; memory as CUDA reports it"),
        _t4("NvidiaTeslaT4Highmem", _KAGGLE),
        _gpu("NvidiaL4", 4, 22, (8, 9), 121, 300, _KAGGLE),
        _gpu("NvidiaL4X1", 1, 22, (8, 9), 121, 300, _KAGGLE),
        _gpu("NvidiaTeslaA100", 1, 39, (8, 0), 312, 1555, _KAGGLE),
        _gpu("NvidiaH100", 1, 79, (9, 0), 989, 3350, _KAGGLE),
        _gpu("NvidiaRtxPro6000", 1, 94, (12, 0), 500, 1792, _KAGGLE),
        # One's own, or a cloud's: for a kchain server.
        _gpu("NvidiaA10G", 1, 22, (8, 6), 70, 600),
        _gpu("NvidiaRtx3090", 1, 23.6, (8, 6), 71, 936),
        _gpu("NvidiaRtx4090", 1, 23.6, (8, 9), 165, 1008),
        _gpu("NvidiaL40S", 1, 44.3, (8, 9), 362, 864),
        _gpu("NvidiaRtxA6000", 1, 47.4, (8, 6), 155, 768),
        _gpu("NvidiaA100X80", 1, 79.1, (8, 0), 312, 2039),
    )
}

# Kaggle replaces these silently by another machine (2.2.5's list of retired accelerators).
RETIRED: dict[str, str] = {"NvidiaTeslaP100": "NvidiaTeslaT4", "TpuV38": "TpuV5E8", "Tpu1VmV38": "TpuV5E8"}

# Kaggle's own, and of no use to a LoRA fine-tune with bitsandbytes.
TPUS: frozenset[str] = frozenset({"TpuV5E8", "TpuV6E8"})


def known_accelerator(name: str) -> Accelerator:
    """The accelerator of that name; `cpu-48` is a CPU with 48 cores.

    Raises:
        ValueError: kchain does not train there; says where it does.
    """
    if name in RETIRED:
        raise ValueError(f"Kaggle retired {name} and gives you a {RETIRED[name]} without a word; name that one")
    if cores := re.fullmatch(r"cpu-([1-9]\d{0,3})", name):
        return _cpu(name, int(cores[1]))
    if name not in ACCELERATORS:
        raise ValueError(f"unknown accelerator {name!r}; one of {', '.join(ACCELERATORS)}, or cpu-48 for 48 cores")
    return ACCELERATORS[name]


def not_on_kaggle(machine: Accelerator) -> str:
    """Why a machine cannot be asked of Kaggle, with what can; empty for one of Kaggle's."""
    if machine.kaggle:
        return ""
    names = ", ".join(other.name for other in ACCELERATORS.values() if other.kaggle)
    return f"{machine.name} is no machine of Kaggle's: use one of {names}, or target = \"local\" or a server's URL"
