"""From tables to phases: what a file leaves out is taken from the chain, or from the phase that is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kchain.phases.accelerators import known_accelerator, not_on_kaggle
from kchain.phases.chain import Phase, choose_precision
from kchain.phases.models import Shape
from kchain.phases.reading import CHAIN_FILE, PHASE_FOLDER, Table
from kchain.phases.schema import ChainFile, PhaseFile, Tokens
from kchain.phases.settling import defaults, settle
from kchain.phases.uses import UseFile
from kchain.phases.using import following, use_phase


def resolve(chain: ChainFile, files: Mapping[str, PhaseFile | UseFile], problems: list[str]) -> tuple[Phase, ...]:
    """Every phase but those with problems, parents before children."""
    trained = {name: table for name, table in files.items() if isinstance(table, PhaseFile)}
    found: dict[str, Phase] = {}
    for name in _in_order(files):
        table, label = files[name], f"{PHASE_FOLDER}/{name}.toml"
        if isinstance(table, PhaseFile):
            phase = _train_phase(name, label, table, chain, _tokens(name, trained), problems)
        elif phase := found.get(table.after):
            phase = use_phase(name, table, phase, label, problems)
        if phase is not None:
            found[name] = phase
    for phase in found.values():
        if chain.chain.target == "kaggle" and (problem := not_on_kaggle(phase.accelerator)):
            own = files[phase.name].accelerator
            problems.append(f"{phase.file if own else CHAIN_FILE}: accelerator: {problem}")
    return tuple(found.values())


def settled(phases: tuple[Phase, ...], shape: Shape | None, files: Mapping[str, str]) -> tuple[Phase, ...]:
    """The phases with every "auto" chosen."""
    done: dict[str, Phase] = {}
    for phase in phases:
        parent = done[phase.after] if phase.use is not None and phase.after is not None else None
        done[phase.name] = settle(phase, shape, files) if parent is None else following(phase, parent)
    return tuple(done.values())


def _in_order(files: Mapping[str, PhaseFile | UseFile]) -> list[str]:
    """Names with parents before children, otherwise by name."""

    def depth(name: str) -> int:
        parent = files[name].after
        return 0 if parent is None else depth(parent) + 1

    return sorted(files, key=lambda name: (depth(name), name))


def _train_phase(
    name: str, label: str, table: PhaseFile, chain: ChainFile, tokens: Tokens, problems: list[str]
) -> Phase | None:
    training = _over(chain.training, table.training)
    place = f"{label}: accelerator" if table.accelerator else f"{CHAIN_FILE}: accelerator"
    try:
        accelerator = known_accelerator(table.accelerator or chain.chain.accelerator)
    except ValueError as error:
        problems.append(f"{place}: {error}")
        return None
    try:
        precision, reason = choose_precision(training.precision, accelerator)
    except ValueError as error:
        own = table.training is not None and "precision" in table.training.model_fields_set
        problems.append(f"{label if own else CHAIN_FILE}: training.precision: {error}")
        return None
    internet = chain.chain.internet if table.internet is None else table.internet
    if not internet:
        problems += [
            f"{label}: data.sources.{index}: {source.name!r} needs internet, which is off; "
            "set internet = true or attach the data as a Kaggle data set"
            for index, source in enumerate(table.data.sources)
            if source.kind == "huggingface"
        ]
    return Phase(
        name=name,
        title=table.title,
        description=table.description,
        after=table.after,
        adapter=table.adapter,
        accelerator=accelerator,
        internet=internet,
        session_timeout=table.session_timeout or chain.chain.session_timeout,
        data=table.data,
        tokens=tokens,
        lora=_over(chain.lora, table.lora),
        wanted=training,
        training=defaults(training),
        choices=(),
        precision=precision,
        precision_reason=reason,
        samples=_over(chain.samples, table.samples),
        gates=_over(chain.gates, table.gates),
        file=Path(label),
    )


def _over(chain: Table, phase: Table | None) -> Table:
    """The chain's table with what the phase says in its place."""
    if phase is None:
        return chain
    return chain.model_copy(update={key: getattr(phase, key) for key in phase.model_fields_set})


def _tokens(name: str, phase_files: Mapping[str, PhaseFile]) -> Tokens:
    """The tokens of a phase's adapter; what a continued adapter added is there when it is trained on."""
    table = phase_files[name]
    if table.adapter == "continue" and table.after is not None:
        return Tokens(trained=_tokens(table.after, phase_files).all)
    return table.tokens
