"""A finished phase on this machine: its adapters, root first, each verified again, and the base model below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kchain.client.target import LOCAL, Target
from kchain.errors import InputError, NotNow
from kchain.orchestrator.journal.state import PhaseState, Result
from kchain.orchestrator.judging.adapter import expect, verify
from kchain.orchestrator.judging.result import ResultFile
from kchain.orchestrator.status import FINISHED, state_word
from kchain.phases import Chain
from kchain.runtime.contract import TOKENIZER_CONFIG


@dataclass(frozen=True)
class Link:
    """One verified adapter of a lineage.

    Attributes:
        folder: where its files lie.
        sha256, bytes: of its weights file.
        recorded: what the journal knows of it.
        result: its kchain-result.json; None where it has none.
    """

    phase: str
    folder: Path
    sha256: str
    bytes: int
    recorded: Result
    result: ResultFile | None


def choose_phase(chain: Chain, wanted: str | None) -> str:
    """The phase that was asked for, or the one at the end of the chain.

    Raises:
        InputError: there is no such phase, it trains nothing, or the chain has several ends and none was named.
    """
    if wanted is not None:
        return chain.trained_phase(wanted).name
    ends = [phase.name for phase in chain.trained if not chain.children(phase.name)]
    if len(ends) > 1:
        raise InputError(f"this chain has {len(ends)} ends: {', '.join(ends)}", f"name one, such as {ends[0]}")
    return ends[0]


def finished(chain: Chain, states: Mapping[str, PhaseState], phase: str) -> list[Link]:
    """The adapters that make up a phase's result, its own last; of one that was trained on, only what it became counts.

    Raises:
        NotNow: one of the phases has no verified adapter, or one that was trained on a replaced adapter.
        InputError: an adapter's files are not here.
        AdapterRefused: what is here is not what was verified.
    """
    names = [*(ancestor.name for ancestor in chain.merged(phase)), phase]
    for name in names:
        word = state_word(chain, states, name)
        if word == "stale":
            raise NotNow(
                f"{name} was trained on an adapter that has been replaced since",
                f"train it again: kchain review {name}, then kchain watch",
            )
        if word not in FINISHED:
            raise NotNow(f"{name} has no verified adapter: it is {word}", "finish the chain: kchain watch")
    return [_link(chain, states, name) for name in names]


def _link(chain: Chain, states: Mapping[str, PhaseState], name: str) -> Link:
    recorded = states[name].result
    assert recorded is not None, "a finished phase has a result"
    folder = chain.root / recorded.folder
    if not folder.is_dir():
        cure = f"kchain adopt {name} once more" if recorded.adopted else f"kchain pull {name}"
        raise InputError(f"the adapter of {name} is not here: {folder} is missing", cure)
    kept = {"sha256": recorded.sha256, "lineage": recorded.lineage}
    adapter = verify(folder.parent, expect(chain, name, needs_result=False, folder=folder.name, **kept))
    return Link(name, folder, adapter.sha256, adapter.bytes, recorded, adapter.result)


def base_folder(chain: Chain, target: Target, given: Path | None, links: Sequence[Link]) -> Path:
    """The folder of the original base model.

    Args:
        given: the folder the user names; None: looked for.
        links: the adapters that will be put on it; their sessions recorded the size of its weights.

    Raises:
        InputError: it is not here, is not a model, or is not the one that the sessions had.
    """
    folder = given
    if folder is None:
        from kchain.server.publish import model_folder

        # What the server on this machine mounts into its sessions.
        folder = model_folder(target.local_root, *chain.model.source.lower().split("/"))
        if target.name != LOCAL or not folder.is_dir():
            raise InputError(f"the base model {chain.model.source} is not on this machine", _how_to_get(chain))
    for name in ("config.json", TOKENIZER_CONFIG):
        if not (folder / name).is_file():
            raise InputError(f"{folder} is not the folder of a model: {name} is missing", _how_to_get(chain))
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if not size:
        raise InputError(f"{folder} holds no *.safetensors; other weights are not opened", _how_to_get(chain))
    for link in links:
        had = link.recorded.moved.get("base_bytes")
        if had is not None and had != size:
            raise InputError(
                f"{folder} is another base model: its weights have {size} bytes, {link.phase} trained on {had}",
                f"give the folder of {chain.model.source}: --base DIR",
            )
    return folder


def _how_to_get(chain: Chain) -> str:
    return (
        f"get it once with Kaggle's client: kaggle models instances versions download {chain.model.source} "
        "-p base-model --untar; then add: --base base-model"
    )
