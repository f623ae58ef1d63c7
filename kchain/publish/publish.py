"""Publish a finished phase as a version of a private Kaggle Model: look, show, upload, make the version once.

Tried against kchain's own server and the code of Kaggle's client (2.2.4, kagglesdk 0.1.37), never against kaggle.com.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain.client.connect import open_transport
from kchain.client.models import create_model, create_variation, create_version, find_model
from kchain.client.target import Target
from kchain.client.transport import Transport
from kchain.client.upload import Begun, forget, upload
from kchain.errors import NotNow, PushRefused, Unreachable
from kchain.orchestrator.finished import Link, finished
from kchain.orchestrator.journal.journal import JOURNAL, Journal, Key, read_states
from kchain.orchestrator.journal.lock import only_one
from kchain.phases import Chain
from kchain.publish.content import MODEL_METADATA, VARIATION_METADATA, ExportContent, read_content, read_subject
from kchain.publish.publication import Decision, Name, decide, model_metadata, name_of, notes_of, variation_metadata
from kchain.uses.companions import write_json
from kchain.uses.export import export, export_name

_BEGUN = Path(".kchain") / "uploads.json"
# One upload at a time from a project.
_LOCK = Path(".kchain") / "publish.lock"
# A version that the target took may show up in its lists later: for so many settling times it counts as perhaps there.
_SETTLING = 3
# Told the name of a file, how many of its bytes have left, and how many there are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Draft:
    """A phase on its way to a model.

    Attributes:
        target: where it is published.
        trained: the target whose results it is made of.
        links: its verified adapters.
        folder: where its export lies, or will.
        content: that export; None while it is not made.
        decision: what is to be made of it on the target.
    """

    chain: Chain
    target: Target
    trained: Target
    links: list[Link]
    form: str
    kind: str
    name: Name
    folder: Path
    content: ExportContent | None
    decision: Decision


@dataclass(frozen=True)
class Published:
    """A version that the target has.

    Attributes:
        version: its number; None where the target does not list it yet.
        url: of its page; "" where the target gave none.
        is_processed: whether it can be mounted already, as far as the target tells.
    """

    version: int | None
    url: str
    is_processed: bool


def draft(chain: Chain, phase: str, target: Target, trained: Target, form: str, kind: str, model: str | None) -> Draft:
    """Look at what lies here and at what the target has; changes nothing there.

    Uploads that a version holds by now are forgotten.

    Args:
        target, trained: as in `Draft`.
        form, kind: as in `export`.
        model: slug of the model; None: the chain's name.

    Raises:
        NotNow: the phase is not finished, or a version of it may be about to appear.
        InputError: its export is damaged, or the name is bad.
        PushRefused: the name is another's.
        Unreachable, CredentialsError: the target cannot be asked.
    """
    links = finished(chain, read_states(chain.root, Key(trained.name, chain.owner, chain.name)), phase)
    name = name_of(chain, phase, form, kind, model)
    # A GGUF file has a folder of its own here, with its card.
    folder = chain.root / "exports" / export_name(phase, form, kind).removesuffix(".gguf")
    content = read_content(chain, links, form, kind, folder) if folder.exists() else None
    transport = open_transport(target)
    there = find_model(transport, name.model)
    decision = decide(name, there, form, None if content is None else content.sha256)
    found = Draft(chain, target, trained, links, form, kind, name, folder, content, decision)
    if content is not None and decision.found is None:
        _check_settled(found, content)
    elif content is not None:
        forget(transport, content.paths, "MODEL", Begun(chain.root / _BEGUN))  # of an attempt that got no answer
    return found


def make(draft_: Draft, base: Path | None) -> None:
    """Export the phase to the draft's folder.

    Args:
        base: folder of the base model; None: what the local server has.

    Raises:
        InputError: see `export`.
    """
    subject = read_subject(draft_.chain, draft_.links[-1].phase, draft_.trained, base)
    export(subject, draft_.form, draft_.kind, draft_.folder, force=False, in_folder=True)


def publish(draft_: Draft, progress: Progress) -> Published:
    """Upload what the draft holds, and make a version of it; looks again first, now that nobody else publishes.

    Raises:
        DriverLocked: another kchain publishes from this project.
        NotNow: another one did just now, and its version may be about to appear.
        PushRefused: the target does not want it.
        Ambiguous: it may have been made; the same command looks first.
        Unreachable: an upload broke off; the same command resumes it.
    """
    content, root = draft_.content, draft_.chain.root
    assert content is not None
    with only_one(root / _LOCK, "another kchain publishes from this project"):
        transport, begun = open_transport(draft_.target), Begun(root / _BEGUN)

        def send(path: Path) -> str:
            size = path.stat().st_size
            return upload(transport, path, "MODEL", begun, lambda reached: progress(path.name, reached, size))

        decision = decide(draft_.name, find_model(transport, draft_.name.model), draft_.form, content.sha256)
        if decision.found is not None:
            return Published(decision.found, "", decision.is_processed)
        _check_settled(draft_, content)
        of_model, of_variation = _describe(draft_, content)
        tokens = [send(path) for path in content.paths]
        if decision.new_model:
            create_model(transport, draft_.name.model, of_model)
        made = of_variation if decision.new_variation else None
        url = _make_version(transport, draft_, content, made, tokens)
        forget(transport, content.paths, "MODEL", begun)
        return _published(transport, draft_, content, url)


def _make_version(
    transport: Transport,
    draft_: Draft,
    content: ExportContent,
    variation: Mapping[str, object] | None,
    tokens: Sequence[str],
) -> str:
    """Make the version of the uploaded files, between an event that says so and one that tells the outcome.

    Args:
        variation: the metadata of the variation to make with it; None: it is there.
    """
    name, phase, told = draft_.name, draft_.links[-1].phase, _told(draft_, content)
    with Journal(draft_.chain.root, _key(draft_)) as journal:
        journal.append(phase, "publishing", **told)
        try:
            if variation is not None:
                url = create_variation(transport, name.model, variation, tokens, name.framework)
            else:
                notes = notes_of(content.sha256)
                url = create_version(transport, name.model, (name.framework, name.variation), notes, tokens)
        except PushRefused:
            journal.append(phase, "refused", **told)
            raise
        journal.append(phase, "published", **told)
    return url


def _told(draft_: Draft, content: ExportContent) -> dict[str, Any]:
    return {"name": draft_.name.handle(0), "sha256": content.sha256}


def _describe(draft_: Draft, content: ExportContent) -> tuple[dict[str, object], dict[str, object]]:
    """Write the two metadata files of Kaggle's client beside the files, for use by hand; returns what they hold."""
    of_model = model_metadata(draft_.chain, draft_.name)
    of_variation = variation_metadata(draft_.chain, draft_.links, draft_.name, content, draft_.form)
    write_json(content.folder / MODEL_METADATA, of_model)
    write_json(content.folder / VARIATION_METADATA, of_variation)
    return of_model, of_variation


def _published(transport: Transport, draft_: Draft, content: ExportContent, url: str) -> Published:
    """The version that was just made, as the target lists it."""
    try:
        there = find_model(transport, draft_.name.model)
    except Unreachable:
        return Published(None, url, False)
    decision = decide(draft_.name, there, draft_.form, content.sha256)
    return Published(decision.found, url, decision.is_processed)


def _check_settled(draft_: Draft, content: ExportContent) -> None:
    """Refuse to publish again while an earlier attempt may still show up."""
    if not (draft_.chain.root / JOURNAL).exists():
        return
    with Journal(draft_.chain.root, _key(draft_)) as journal:
        attempts = [each for each in journal.entries() if each.detail == _told(draft_, content)]
    if not attempts or attempts[-1].kind == "refused":
        return
    left = attempts[-1].time + _SETTLING * draft_.target.settle_seconds - time.time()
    if left > 0:
        raise NotNow(
            f"these files were sent to {draft_.name.model} just now, and may show up there any moment",
            f"the same command looks again in {left:.0f} s",
        )


def _key(draft_: Draft) -> Key:
    """Events of publishing stand beside those of the phases, under a target's name of their own."""
    return Key(f"publish {draft_.target.name}", draft_.chain.owner, draft_.chain.name)
