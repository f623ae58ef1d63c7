"""What a rehearsal showed and what it did not, in sentences that are exactly true. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kchain.demo.tokenizer import QWEN
from kchain.phases import Chain, Gates, Phase
from kchain.phases.plan import training_plan
from kchain.rehearse.model import specials
from kchain.rehearse.run import Rehearsal, Rehearsed
from kchain.rehearse.settings import EPOCHS, Stand


def rehearsed(done: Rehearsal) -> list[str]:
    """What the phases that ended have shown."""
    outcomes = [outcome for outcome in done.outcomes if outcome.result is not None and outcome.failure is None]
    if not outcomes:
        return []
    return list(_rehearsed(done, outcomes, [done.chain.phase(outcome.phase) for outcome in outcomes]))


def not_rehearsed(done: Rehearsal) -> list[str]:
    """What is not known yet."""
    passed = {outcome.phase for outcome in done.outcomes if outcome.failure is None}
    left = [name for name in done.names if name not in passed]
    sentences = [f"{', '.join(left)}: a phase failed, see below"] if left else []
    if passed:
        trained = [phase for phase in done.chain.trained if phase.name in passed]
        sentences += _not_rehearsed(done, trained)
    return sentences


def _rehearsed(done: Rehearsal, outcomes: Sequence[Rehearsed], phases: Sequence[Phase]) -> Iterator[str]:
    most = max(len(outcome.differences) for outcome in outcomes)
    yield (
        f"every code cell of {_names(phases)}, word for word, by the code hash of what will be pushed; the parameter "
        f"cell alone differs, in at most {most} values (--json lists them)"
    )
    strict = ", set to refuse what Kaggle refuses" if done.chain.target == "kaggle" else ""
    yield f"push, run, fetch and verification, with Kaggle's own client and a server on this machine{strict}"
    yield (
        "the adapters: rank, shapes, size, finite, not all zero, pad id, lineage by hash; training to its last step, "
        "with a loss that stayed finite and did not rise"
    )
    if merged := [phase for phase in phases if phase.after is not None]:
        yield f"the merge of earlier adapters into the base model, before {_names(merged)}"
    if uses := [phase for phase in phases if phase.use is not None]:
        listed = ", ".join(f"{each.name} ({each.kind})" for each in uses)
        yield f"what uses the adapters, on a few short answers: {listed}"
    if nf4 := [phase for phase in phases if phase.training.quantization == "nf4"]:
        yield f"the base in 4 bits, in real layers of bitsandbytes, in {_names(nf4)}"
    if done.base.tokenizer is not None:
        model = done.chain.model
        yield f"the tokenizer and chat template from {done.base.whence}: {model.eos_token} is {model.eos_id} there"
    skipped = {(outcome.phase, name) for outcome in outcomes for name, _ in outcome.skipped}
    read = [stand for stand in done.stands if (stand.phase, stand.source) not in skipped]
    names = {phase.name for phase in phases}
    for kind, words in (("project", "files of this project"), ("yours", "samples of yours")):
        found = [f"{stand.words} ({stand.phase}/{stand.source})" for stand in read if _is(stand, kind, names)]
        if found:
            yield f"columns and conditions, on {words}: {', '.join(found)}"


def _not_rehearsed(done: Rehearsal, phases: Sequence[Phase]) -> Iterator[str]:
    chain = done.chain
    yield (
        f"{chain.model.source} itself: a tiny {done.base.family} with random weights stood in for it; its loss and "
        "token accuracy say nothing about yours"
    )
    if done.base.tokenizer is None:
        model = chain.model
        genuine = specials(done.base.family, model).ids == QWEN.ids
        with_ids = "Qwen's special tokens" if genuine else f"{model.eos_token} as {model.eos_id}"
        yield (
            f"its tokenizer and chat template: none was found on this machine, one with {with_ids} was made up "
            "(the real one: kchain rehearse --tokenizer DIR)"
        )
    yield from _other_data(chain, phases, done.stands)
    for outcome in done.outcomes:
        yield from (f"{outcome.phase}/{name}, which failed and is optional: {why}" for name, why in outcome.skipped)
    keys = [key for key in Gates.model_fields if key != "all_epochs"]
    asked = [key for key in keys if any(getattr(phase.gates, key) is not None for phase in phases)]
    if asked:
        yield f"the gates {', '.join(asked)}: they mean nothing on random weights"
    yield "the thresholds of [data.quality]: they mean nothing on a few examples (the log has what was found)"
    yield from _machines(chain, phases)
    changed = [each for outcome in done.outcomes for each in outcome.differences]
    if shared := {each.real for each in changed if each.key == "training.processes"}:
        yield f"training in {max(shared)} processes, a GPU each: here it was one"
    if steps := ", ".join(f"{phase.name} {training_plan(chain, phase.name).steps:,}" for phase in phases):
        yield f"the length: {EPOCHS} passes over a few batches in place of all steps ({steps} planned)"


def _other_data(chain: Chain, phases: Sequence[Phase], stands: Sequence[Stand]) -> Iterator[str]:
    names = {phase.name for phase in phases}
    invented = [stand for stand in stands if _is(stand, "invented", names)]
    if invented:
        listed = ", ".join(f"{stand.phase}/{stand.source}" for stand in invented)
        yield (
            "what is in the data: rows were INVENTED, with the columns that the phase files name, without a look "
            f'whether the real ones have them, for {listed} (a sample of yours: rehearsal = "FILE" in the source)'
        )
    by_place = {(phase.name, source.name): source for phase in chain.phases for source in phase.data.sources}
    away = [by_place[stand.phase, stand.source] for stand in stands if stand.ref and stand.phase in names]
    if away:
        yield f"reading the data where it is: {', '.join(dict.fromkeys(source.place for source in away))}"


def _machines(chain: Chain, phases: Sequence[Phase]) -> Iterator[str]:
    machines = list(dict.fromkeys(phase.accelerator.name for phase in phases if phase.accelerator.is_gpu))
    if machines:
        precisions = " and ".join(dict.fromkeys(phase.precision for phase in phases if phase.precision != "fp32"))
        arithmetic = f"{precisions} arithmetic, " if precisions else ""
        yield f"{', '.join(machines)}: {arithmetic}memory, speed; this was fp32 on the CPU"
    if chain.target == "kaggle":
        yield "kaggle.com: the packages of its image, the network, your rights to model and data, queue and quota"
    elif chain.target != "local":
        yield f"{chain.target}"


def _is(stand: Stand, kind: str, names: set[str]) -> bool:
    return stand.kind == kind and stand.phase in names


def _names(phases: Sequence[Phase]) -> str:
    return ", ".join(phase.name for phase in phases)
