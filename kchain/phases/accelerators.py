"""The machine shapes kchain trains on, with what each can do.

Names are Kaggle's `machineShape` words. Memory is what a program can really use, in bytes per GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Accelerator:
    """One machine shape.

    Attributes:
        name: the word that goes into `kernel-metadata.json` as `machine_shape`; "cpu" is kchain's word for none.
        gpus: number of GPUs in the machine.
        memory: usable bytes of one GPU (0 without one).
        capability: CUDA compute capability, (0, 0) without a GPU.
        disk: bytes of scratch a session may fill.
        source: where these figures come from.
    """

    name: str
    gpus: int
    memory: int
    capability: tuple[int, int]
    disk: int
    source: str

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
_SCRATCH = 57 * GIB

ACCELERATORS: dict[str, Accelerator] = {
    accelerator.name: accelerator
    for accelerator in (
        Accelerator("cpu", 0, 0, (0, 0), _SCRATCH, "no GPU"),
        # 14.56 GiB: the lower end of what CUDA reports as usable on a 16 GB T4.
        Accelerator("NvidiaTeslaT4", 2, int(14.56 * GIB), (7, 5), _SCRATCH, "two T4s; memory as CUDA reports it"),
        Accelerator("NvidiaTeslaT4Highmem", 2, int(14.56 * GIB), (7, 5), _SCRATCH, _KAGGLE),
        Accelerator("NvidiaL4", 4, 22 * GIB, (8, 9), _SCRATCH, _KAGGLE),
        Accelerator("NvidiaL4X1", 1, 22 * GIB, (8, 9), _SCRATCH, _KAGGLE),
        Accelerator("NvidiaTeslaA100", 1, 39 * GIB, (8, 0), _SCRATCH, _KAGGLE),
        Accelerator("NvidiaH100", 1, 79 * GIB, (9, 0), _SCRATCH, _KAGGLE),
        Accelerator("NvidiaRtxPro6000", 1, 94 * GIB, (12, 0), _SCRATCH, _KAGGLE),
    )
}

# Kaggle replaces these silently by another machine (2.2.5's list of retired accelerators).
RETIRED: dict[str, str] = {"NvidiaTeslaP100": "NvidiaTeslaT4", "TpuV38": "TpuV5E8", "Tpu1VmV38": "TpuV5E8"}

# Kaggle's own, and of no use to a LoRA fine-tune with bitsandbytes.
TPUS: frozenset[str] = frozenset({"TpuV5E8", "TpuV6E8"})
