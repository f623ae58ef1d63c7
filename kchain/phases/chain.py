"""A chain as the rest of kchain sees it: phases resolved over the chain's defaults, linked, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, cast

from slugify import slugify

from kchain.errors import InputError
from kchain.phases.data import Data
from kchain.phases.machines import Accelerator
from kchain.phases.schema import Gates, Lora, ModelTable, Precision, Samples, SettledTraining, TokensTable, Training
from kchain.phases.uses import UseGates, UseTable


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One training step, or one use of its result.

    Attributes:
        name: the stem of its file; what is typed on the command line.
        after: name of the phase whose result this one builds on, None for a root.
        adapter: "merge" to train a new adapter on all before it, "continue" to train the parent's own adapter on.
        tokens: tokens whose rows its adapter trains; those of its parent where it continues that one's adapter.
        precision_reason: why the precision is what it is, in words for the plan.
        session_timeout: seconds.
        file: the phase's own file, relative to the project.
        use: what is done with the result of `after` where nothing is trained; such a phase has no sources of its own,
            and all else that a training has is that of the phase whose result it uses.
    """

    name: str
    title: str
    description: str
    after: str | None
    adapter: Literal["merge", "continue"]
    accelerator: Accelerator
    internet: bool
    session_timeout: int
    data: Data
    tokens: TokensTable
    lora: Lora
    precision_reason: str
    samples: Samples
    gates: Gates | UseGates
    file: Path
    use: UseTable | None = None

    @property
    def kind(self) -> str:
        """What its notebook does: "train", or the kind of its use."""
        return "train" if self.use is None else self.use.kind

    @property
    def files(self) -> dict[str, str]:
        """Files of the project that it names, by the key of the phase file that does."""
        if self.use is not None:
            return self.use.files
        named = enumerate(self.data.sources)
        return {f"data.sources.{n}.{each.kind.key}": each.place for n, each in named if each.kind.travels}

    @property
    def slug(self) -> str:
        """Kaggle makes a kernel's address from its title, whatever `id` says."""
        return str(slugify(self.title))


@dataclass(frozen=True, kw_only=True)
class WrittenPhase(_Step):
    """A phase as its files say it: `training` may leave values to kchain; the machine has decided the precision."""

    training: Training
    precision: Precision

    def settled(self, training: SettledTraining, choices: tuple[str, ...] = ()) -> Phase:
        """The phase with everything chosen."""
        return Phase(
            **{field.name: getattr(self, field.name) for field in fields(_Step)}, training=training, choices=choices
        )


@dataclass(frozen=True, kw_only=True)
class Phase(_Step):
    """A phase with nothing left open.

    Attributes:
        choices: what `[training]` left to kchain, what was chosen, and why.
    """

    training: SettledTraining
    choices: tuple[str, ...] = ()

    @property
    def precision(self) -> Precision:
        """Of its arithmetic, whether it trains or answers."""
        return self.training.precision

    @property
    def processes(self) -> int:
        """Training processes: the most GPUs that share the accumulated batches evenly; 1 on a CPU, and for a use."""
        return 1 if self.use is not None else self.accelerator.processes(self.training.accumulation)


@dataclass(frozen=True)
class Chain:
    """The phases and what they share; parents stand before their children.

    Attributes:
        root: folder of the project.
        files: JSON lines of every file of the project that a phase names, by its path as written there.
    """

    root: Path
    name: str
    owner: str
    target: str
    seed: int
    model: ModelTable
    phases: tuple[Phase, ...]
    files: Mapping[str, str]

    @property
    def trained(self) -> tuple[Phase, ...]:
        """The phases that train an adapter; the others use the results of these."""
        return tuple(phase for phase in self.phases if phase.use is None)

    def phase(self, name: str) -> Phase:
        """The phase of that name.

        Raises:
            InputError: there is none; says which there are.
        """
        for phase in self.phases:
            if phase.name == name:
                return phase
        names = ", ".join(phase.name for phase in self.phases)
        raise InputError(f"there is no phase {name!r}", f"phases of this chain: {names}")

    def trained_phase(self, name: str) -> Phase:
        """As `phase`, of one that trains an adapter.

        Raises:
            InputError: there is none of that name, or it trains nothing.
        """
        phase = self.phase(name)
        if phase.use is not None:
            raise InputError(f"{name} trains nothing: it uses {phase.after}", f"name {phase.after}")
        return phase

    def lineage(self, name: str) -> tuple[Phase, ...]:
        """The phases whose adapters a phase is built on, root first: merged ones, then the one it continues, if any.

        An adapter that was continued is not among them: the adapter that it became has taken its place.
        """
        continued = self.continued(name)
        return self.merged(name) if continued is None else (*self.merged(name), continued)

    def merged(self, name: str) -> tuple[Phase, ...]:
        """The phases whose adapters are merged into the base before a phase trains, or its use begins, root first."""
        phase = self.phase(name)
        if phase.after is None:
            return ()
        below = self.merged(phase.after)
        return below if phase.adapter == "continue" else (*below, self.phase(phase.after))

    def continued(self, name: str) -> Phase | None:
        """The phase whose own adapter a phase trains on; None where it trains a new one."""
        phase = self.phase(name)
        return self.phase(phase.after) if phase.adapter == "continue" and phase.after is not None else None

    def children(self, name: str) -> tuple[Phase, ...]:
        """The phases that are trained directly on this one."""
        return tuple(phase for phase in self.trained if phase.after == name)

    def kernel(self, name: str) -> str:
        """`owner/slug` of the kernel that runs a phase."""
        return f"{self.owner}/{self.phase(name).slug}"


def choose_precision(wanted: str, accelerator: Accelerator) -> tuple[Precision, str]:
    """The arithmetic of a phase, and why.

    Raises:
        ValueError: the accelerator cannot do what is wanted.
    """
    if wanted == "auto":
        if not accelerator.is_gpu:
            return "fp32", "a CPU is slower in half precision than in fp32"
        if accelerator.bf16:
            return "bf16", f"{accelerator.name} has bf16: the range of fp32, no loss scaling"
        major, minor = accelerator.capability
        return "fp16", f"{accelerator.name} has no bf16 (compute capability {major}.{minor})"
    if wanted == "bf16" and not accelerator.bf16:
        raise ValueError(f'{accelerator.name} has no bf16; use precision = "auto"')
    if wanted == "fp16" and not accelerator.is_gpu:
        raise ValueError('fp16 training needs a GPU; use precision = "auto"')
    return cast("Precision", wanted), "as the phase file says"
