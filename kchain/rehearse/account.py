"""What a rehearsal showed and what it did not, in sentences that are exactly true. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kchain.phases import Chain, Phase, Source
from kchain.phases.plan import describe_source, plan
from kchain.rehearse.base import Base
from kchain.rehearse.run import Outcome, Rehearsal
from kchain.rehearse.settings import EPOCHS, Stand


def rehearsed(done: Rehearsal) -> list[str]:
    """What the phases that came to their end have shown."""
    outcomes = [outcome for outcome in done.outcomes if outcome.result is not None and outcome.failure is None]
    if not outcomes:
        return []
    return list(_rehearsed(done, outcomes, [done.chain.phase(outcome.phase) for outcome in outcomes]))


def not_rehearsed(done: Rehearsal) -> list[str]:
    """What nobody knows yet."""
    passed = {outcome.phase for outcome in done.outcomes if outcome.failure is None}
    return list(_not_rehearsed(done, [phase for phase in done.chain.phases if phase.name in passed]))


def _rehearsed(done: Rehearsal, outcomes: Sequence[Outcome], phases: Sequence[Phase]) -> Iterator[str]:
    most = max(len(outcome.differences) for outcome in outcomes)
    yield (
        f"every code cell of {_names(phases)}, word for word: the code hash is that of the bundle to be pushed; only the "
        f"parameter cell differs (in at most {most} values: --json lists them)"
    )
    strict = ", which refused nothing that it refuses where Kaggle does" if done.chain.target == "kaggle" else ""
    yield f"push, run, fetch and verification, with Kaggle's own client against a server on this machine{strict}"
    yield (
        "the adapters: rank, shapes, size, finite, not all zero, the pad id, the lineage by hash, training to its last "
        "step, a loss that stayed finite and did not rise"
    )
    if merged := [phase for phase in phases if phase.after is not None]:
        yield f"the merge of earlier adapters into the base model, before {_names(merged)}"
    if nf4 := [phase for phase in phases if phase.training.quantization == "nf4"]:
        yield f"a base in 4 bits, with the layers of bitsandbytes itself, in {_names(nf4)}"
    if done.base.tokenizer is not None:
        model = done.chain.model
        yield f"the real tokenizer ({done.base.whence}): {model.eos_token} is {model.eos_id}, and its chat template"
    yield from _real_data(done.stands, {phase.name for phase in phases})


def _real_data(stands: Sequence[Stand], names: set[str]) -> Iterator[str]:
    for kind, words in (("project", "of this project's own files"), ("yours", "of the samples you named")):
        found = [f"{stand.phase}/{stand.source} ({stand.words})" for stand in stands if _is(stand, kind, names)]
        if found:
            yield f"filters and columns {words}: {', '.join(found)}"


def _not_rehearsed(done: Rehearsal, phases: Sequence[Phase]) -> Iterator[str]:
    chain = done.chain
    yield (
        f"{chain.model.source} itself: a tiny {done.base.family} with random weights stood in for it, so loss and token "
        "accuracy tell nothing about your data"
    )
    if done.base.tokenizer is None:
        yield _made_up(chain, done.base)
    yield from _other_data(chain, phases, done.stands)
    yield from _gates(phases)
    yield from _machines(chain, phases)
    yield from _lengths(chain, phases)


def _made_up(chain: Chain, base: Base) -> str:
    model = chain.model
    ids = "Qwen's own special tokens" if base.family.startswith("qwen") else f"{model.eos_token} as {model.eos_id}"
    return (
        f"its tokenizer and chat template: none is on this machine, so one with {ids} was made up "
        "(the real one: kchain rehearse --tokenizer DIR)"
    )


def _other_data(chain: Chain, phases: Sequence[Phase], stands: Sequence[Stand]) -> Iterator[str]:
    names = {phase.name for phase in phases}
    sources = {(phase.name, source.name): source for phase in chain.phases for source in phase.data.sources}
    invented = [stand for stand in stands if _is(stand, "invented", names)]
    if invented:
        listed = ", ".join(f"{stand.phase}/{stand.source} ({stand.words})" for stand in invented)
        yield (
            f"what these sources really hold: {listed}. Rows with the columns that the phase file names were INVENTED; "
            'whether the real ones have them nobody looked (a sample of yours: rehearsal = "FILE" in the source)'
        )
    away = [sources[stand.phase, stand.source] for stand in stands if stand.ref and stand.phase in names]
    if away:
        yield f"fetching {', '.join(dict.fromkeys(map(_place, away)))}"


def _place(source: Source) -> str:
    return describe_source(source) if source.kind != "project" else f"{source.file} in the notebook"


def _gates(phases: Sequence[Phase]) -> Iterator[str]:
    keys = ("max_loss", "min_loss_fall", "min_token_accuracy")
    asked = [key for key in keys if any(getattr(phase.gates, key) is not None for phase in phases)]
    if asked:
        yield f"the gates {', '.join(asked)}: they mean nothing on random weights"


def _machines(chain: Chain, phases: Sequence[Phase]) -> Iterator[str]:
    machines = list(dict.fromkeys(phase.accelerator.name for phase in phases if phase.accelerator.is_gpu))
    if machines:
        precisions = " and ".join(dict.fromkeys(phase.precision for phase in phases if phase.precision != "fp32"))
        arithmetic = f"{precisions} arithmetic, " if precisions else ""
        yield f"{', '.join(machines)}: {arithmetic}its memory, its speed; this was fp32 on the CPU"
    if chain.target == "kaggle":
        yield "kaggle.com: what its image installs, the network, your rights to the sources, queue and quota"
    elif chain.target != "local":
        yield f"{chain.target}"


def _lengths(chain: Chain, phases: Sequence[Phase]) -> Iterator[str]:
    steps = ", ".join(f"{phase.name} {plan(chain, phase.name).steps:,}" for phase in phases)
    if steps:
        yield f"the length: {EPOCHS} passes over a few batches each, in place of the planned steps ({steps})"


def _is(stand: Stand, kind: str, names: set[str]) -> bool:
    return stand.kind == kind and stand.phase in names


def _names(phases: Sequence[Phase]) -> str:
    return ", ".join(phase.name for phase in phases)
