"""A finished phase of a project on this machine, as what can be exported, asked and evaluated."""

from __future__ import annotations

from pathlib import Path

from kchain.export.companions import read_json
from kchain.export.subject import Part, Subject
from kchain.orchestrator.base_model import base_folder
from kchain.orchestrator.finished import Link, finished
from kchain.orchestrator.journal import Key, read_states
from kchain.orchestrator.target import Target
from kchain.phases import Chain
from kchain.runtime.adapters import Adapter

WORK = Path(".kchain") / "merged"


def read_subject(chain: Chain, phase: str, target: Target, base: Path | None) -> Subject:
    """A finished phase, its adapters verified again.

    Args:
        base: folder of the base model; None: the one that the server on this machine has.

    Raises:
        NotNow, InputError, AdapterRefused: see `finished` and `base_folder`.
    """
    states = read_states(chain.root, Key(target.name, chain.owner, chain.name))
    links = finished(chain, states, phase)
    folder = base_folder(chain, target, base, links)
    for file in sorted(folder.glob("*.json")):
        read_json(file)  # damage is told now, by name, not by whichever library meets it first
    last = chain.phase(phase)
    return Subject(
        chain=chain.name,
        phase=phase,
        title=last.title,
        description=last.description,
        system_prompt=last.data.system_prompt,
        base_model=chain.model.source,
        seed=chain.seed,
        pad={"token": chain.model.eos_token, "id": chain.model.eos_id},
        lora=last.lora.model_dump(),
        quantization=last.training.quantization,
        parts=[_part(chain, link) for link in links],
        base=folder,
        work=chain.root / WORK,
    )


def _part(chain: Chain, link: Link) -> Part:
    phase, recorded = chain.phase(link.phase), link.recorded
    adapter = Adapter(link.phase, recorded.kind, recorded.ref, link.folder, link.sha256, link.bytes)
    sources = [source.model_dump(include={"name", "dataset", "huggingface", "file"}) for source in phase.data.sources]
    return Part(adapter, recorded.version, recorded.adopted, link.result, phase.tokens.all, sources)
