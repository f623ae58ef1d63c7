"""The bundle folder of each phase: rendered, written, read again, copied for a push; and what was rehearsed of it.

What is pushed is the folder on the disk; it must be what the phase file renders to now, and what a person reviewed.
Rendering imports nbformat and jinja2, so it happens only when a bundle is asked for.
"""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kchain.client.target import Target
from kchain.errors import InputError
from kchain.kernel_metadata import METADATA_FILE, NOTEBOOK_FILE, Continuation
from kchain.orchestrator.driving.actions import Reporter
from kchain.orchestrator.journal.journal import JOURNAL, Journal, KeptBundle, Key, read_states
from kchain.orchestrator.journal.state import PhaseState
from kchain.phases import CHAIN_FILE, Chain

if TYPE_CHECKING:
    from kchain.bundle import AdapterSource, Bundle

# Takes the place of a target's name in the journal; no target can be called that.
REHEARSAL = "rehearsal"


@dataclass(frozen=True)
class Snapshot:
    """A private copy of a bundle folder, and its texts with the hash they really have.

    Attributes:
        timeout: seconds after which the target is to end the session.
        max_sessions: sessions that the phase may take.
    """

    folder: Path
    kept: KeptBundle
    timeout: int
    max_sessions: int


class BundleFolder:
    """`build/<target>/<phase>/`: the bundle of a phase as it renders now, and as it is on the disk.

    Args:
        adopted: phases whose adapter was trained elsewhere, with where it is mounted from.
    """

    def __init__(self, chain: Chain, target: Target, phase: str, adopted: Mapping[str, AdapterSource]) -> None:
        self.phase = phase
        self._chain = chain
        self._target = target
        self._adopted = adopted

    @property
    def path(self) -> Path:
        from kchain.bundle import bundle_folder

        return bundle_folder(self._chain.root, self._target.name, self.phase)

    @cached_property
    def rendered(self) -> Bundle:
        """The bundle as it renders now."""
        from kchain.bundle import build

        return build(self._chain, self.phase, self._target.name, self._adopted)

    def write(self) -> Bundle:
        """Render and write the folder."""
        from kchain.bundle import write

        write(self.rendered, self._chain.root)
        return self.rendered

    def disk_hash(self) -> str:
        """The canonical hash of the folder's content; empty where that is not a bundle, or was edited by hand."""
        return self._hash(self.path)

    def lint(self) -> tuple[str, ...]:
        """The errors (not the warnings) that linting the folder finds, one line each."""
        return _errors(self.path) if self.path.is_dir() else ()

    def lint_rendered(self) -> tuple[str, ...]:
        """As `lint`, of the bundle as it renders now; the folder is left alone."""
        from kchain.bundle import write

        with tempfile.TemporaryDirectory(prefix="kchain-lint-") as name:
            return _errors(write(self.rendered, Path(name)))

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """A copy of the folder that nobody else can change, hashed from the copy.

        Raises:
            InputError: the folder is not there or holds no bundle.
        """
        with tempfile.TemporaryDirectory(prefix="kchain-push-") as name:
            copy = Path(name)
            texts = {}
            for file in (NOTEBOOK_FILE, METADATA_FILE):
                try:
                    content = (self.path / file).read_bytes()
                    texts[file] = content.decode("utf-8")
                except (OSError, UnicodeDecodeError) as error:
                    raise InputError(f"{self.path / file}: {error}", f"kchain review {self.phase}") from None
                (copy / file).write_bytes(content)
            kept = KeptBundle(self._hash(copy), texts[METADATA_FILE], texts[NOTEBOOK_FILE])
            configured = self._chain.phase(self.phase)
            yield Snapshot(copy, kept, configured.session_timeout, configured.training.max_sessions)

    def same_training(self, kept: KeptBundle | None) -> bool:
        """Whether the bundle of now can resume from a checkpoint of that one."""
        from kchain.bundle import same_training

        try:
            return kept is not None and same_training(self.rendered.notebook, json.loads(kept.notebook))
        except (ValueError, KeyError, TypeError):
            # Taken over from the target as it was there: not a notebook of this kchain's.
            return False

    def recognised(self, source: str) -> tuple[KeptBundle, Continuation | None] | None:
        """The bundle of now, or a later session of it, where a kernel's source is that; else None.

        Outputs, ids and notebook metadata do not count: the client and the target rewrite them.
        """
        from kchain.bundle import continuation_of, continued, same_cells

        try:
            found = json.loads(source)
            continuation = continuation_of(found)
            bundle = continued(self.rendered, continuation)
            same = same_cells(found, bundle.notebook)
        except (ValueError, KeyError, TypeError):
            return None
        return (keep(bundle), continuation) if same else None

    def _hash(self, folder: Path) -> str:
        from kchain.bundle import read

        try:
            bundle = read(folder)
        except InputError:
            return ""
        return bundle.hash if bundle.phase == self.phase else ""


def bundle_folders(chain: Chain, target: Target, states: Mapping[str, PhaseState]) -> dict[str, BundleFolder]:
    """The folder of every phase, by name; `states` says which phases were adopted."""
    names = [phase.name for phase in chain.phases]
    adopted = _adapter_sources({name: states[name] for name in names if name in states})
    return {name: BundleFolder(chain, target, name, adopted) for name in names}


@contextmanager
def later_session(kept: KeptBundle, continuation: Continuation) -> Iterator[Snapshot]:
    """As `BundleFolder.snapshot`, of another session of a bundle that was pushed or reviewed.

    Raises:
        InputError: it does not lint.
    """
    from kchain.bundle import parameters_of, write

    bundle = session_of(kept, continuation)
    with tempfile.TemporaryDirectory(prefix="kchain-push-") as name:
        folder = write(bundle, Path(name))
        if errors := _errors(folder):
            raise InputError(f"session {continuation.session} does not lint:\n" + "\n".join(errors))
        max_sessions = int(parameters_of(bundle.notebook)["training"]["max_sessions"])
        yield Snapshot(folder, keep(bundle), bundle.timeout, max_sessions)


def session_of(kept: KeptBundle, continuation: Continuation | None) -> Bundle:
    """Another session of a kept bundle; None: its first."""
    from kchain.bundle import continued, parse

    return continued(parse(kept.notebook, kept.metadata), continuation)


def keep(bundle: Bundle) -> KeptBundle:
    """A bundle as the journal keeps it."""
    from kchain.bundle import metadata_text, notebook_text

    return KeptBundle(bundle.hash, metadata_text(bundle.metadata), notebook_text(bundle))


def _errors(folder: Path) -> tuple[str, ...]:
    from kchain.bundle.lint import lint

    return tuple(
        f"{finding.where}: {finding.message} [{finding.rule}]; {finding.cure}"
        for finding in lint(folder)
        if finding.severity == "error"
    )


def adopted(root: Path, target: str) -> dict[str, AdapterSource]:
    """The adopted phases of the project in `root` on a target; empty without a journal.

    Raises:
        InputError: the journal is damaged.
    """
    table = tomllib.loads((root / CHAIN_FILE).read_text(encoding="utf-8"))["chain"]
    return _adapter_sources(read_states(root, Key(target, table["owner"], table["name"])))


def _adapter_sources(states: Mapping[str, PhaseState]) -> dict[str, AdapterSource]:
    """Adapters trained elsewhere, as rendering needs them: where each is mounted from and what it must be."""
    taken = {phase: state.result for phase, state in states.items() if state.result and state.result.adopted}
    if not taken:
        return {}
    from kchain.bundle import AdapterSource

    return {
        phase: AdapterSource(
            phase=phase,
            kind="dataset" if result.kind == "dataset" else "kernel",
            ref=result.ref,
            folder=result.source_folder,
            sha256=result.sha256,
        )
        for phase, result in taken.items()
    }


def record_rehearsal(chain: Chain, phase: str, code_hash: str) -> None:
    """Remember that a phase's code ran to its end here."""
    with Journal(chain.root, Key(REHEARSAL, chain.owner, chain.name)) as journal:
        journal.append(phase, "rehearsed", code=code_hash)


def rehearsals(chain: Chain) -> Mapping[tuple[str, str], float]:
    """(phase, code hash) of all that was rehearsed, with the last time of each in seconds since the epoch."""
    if not (chain.root / JOURNAL).exists():
        return {}
    with Journal(chain.root, Key(REHEARSAL, chain.owner, chain.name)) as journal:
        return {(entry.phase, str(entry.detail.get("code"))): entry.time for entry in journal.entries()}


def unrehearsed(chain: Chain, target: Target, folders: Iterable[BundleFolder]) -> Mapping[str, str]:
    """A warning for each phase that is about to cost quota and whose code never ran here."""
    if not target.is_kaggle:
        return {}
    known = rehearsals(chain)
    return {
        folder.phase: f"never rehearsed as it is now; in minutes and without quota: kchain rehearse {folder.phase}"
        for folder in folders
        if (folder.phase, folder.rendered.code_hash) not in known
    }


def tell_unrehearsed(chain: Chain, target: Target, folders: Iterable[BundleFolder], reporter: Reporter) -> None:
    """Tell these warnings."""
    for phase, warning in unrehearsed(chain, target, folders).items():
        reporter.note(phase, warning)
