"""The bundle folders of a chain on one target: rendered, written, read again, and copied for a push.

What is pushed is what lies on the disk; what lies on the disk must be what renders now and what a person reviewed.
Rendering imports nbformat and jinja2, so it happens only when a bundle is asked for.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kchain.errors import InputError
from kchain.kernel_metadata import METADATA_FILE, NOTEBOOK_FILE, Continuation
from kchain.orchestrator.journal import KeptBundle
from kchain.orchestrator.target import Target
from kchain.phases import Chain

if TYPE_CHECKING:
    from kchain.bundle import AdapterSource, Bundle


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


class BundleFolders:
    """`build/<target>/<phase>/` of every phase.

    Args:
        adopted: phases whose adapter was trained elsewhere, with where it is mounted from.
    """

    def __init__(self, chain: Chain, target: Target, adopted: Mapping[str, AdapterSource]) -> None:
        self._chain = chain
        self._target = target
        self._adopted = adopted
        self._rendered: dict[str, Bundle] = {}

    def folder(self, phase: str) -> Path:
        from kchain.bundle import bundle_folder

        return bundle_folder(self._chain.root, self._target.name, phase)

    def rendered(self, phase: str) -> Bundle:
        """The bundle as it renders now."""
        from kchain.bundle import build

        if phase not in self._rendered:
            self._rendered[phase] = build(self._chain, phase, self._target.name, self._adopted)
        return self._rendered[phase]

    def write(self, phase: str) -> Path:
        """Render and write the folder."""
        from kchain.bundle import write

        return write(self.rendered(phase), self._chain.root)

    def disk_hash(self, phase: str) -> str:
        """The canonical hash of what lies in the folder; empty where that is no bundle, or one edited by hand."""
        return self._hash(phase, self.folder(phase))

    def lint(self, phase: str) -> tuple[str, ...]:
        """The errors (not the warnings) that linting the folder finds, one line each."""
        return _errors(self.folder(phase)) if self.folder(phase).is_dir() else ()

    def lint_rendered(self, phase: str) -> tuple[str, ...]:
        """As `lint`, of the bundle as it renders now; the folder is left alone."""
        from kchain.bundle import write

        with tempfile.TemporaryDirectory(prefix="kchain-lint-") as name:
            return _errors(write(self.rendered(phase), Path(name)))

    @contextmanager
    def snapshot(self, phase: str) -> Iterator[Snapshot]:
        """A copy of the folder that nobody else can change, hashed from the copy.

        Raises:
            InputError: the folder is not there or holds no bundle.
        """
        with tempfile.TemporaryDirectory(prefix="kchain-push-") as name:
            copy = Path(name)
            texts = {}
            for file in (NOTEBOOK_FILE, METADATA_FILE):
                try:
                    content = (self.folder(phase) / file).read_bytes()
                    texts[file] = content.decode("utf-8")
                except (OSError, UnicodeDecodeError) as error:
                    raise InputError(f"{self.folder(phase) / file}: {error}", f"kchain review {phase}") from None
                (copy / file).write_bytes(content)
            kept = KeptBundle(self._hash(phase, copy), texts[METADATA_FILE], texts[NOTEBOOK_FILE])
            configured = self._chain.phase(phase)
            yield Snapshot(copy, kept, configured.session_timeout, configured.training.max_sessions)

    @contextmanager
    def continued(self, kept: KeptBundle, continuation: Continuation) -> Iterator[Snapshot]:
        """As `snapshot`, of another session of a bundle that was pushed or reviewed.

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

    def same_training(self, phase: str, kept: KeptBundle | None) -> bool:
        """Whether the bundle of now can go on from a checkpoint of that one."""
        from kchain.bundle import same_training

        return kept is not None and same_training(self.rendered(phase).notebook, json.loads(kept.notebook))

    def recognised(self, phase: str, source: str) -> tuple[KeptBundle, Continuation | None] | None:
        """The bundle of now, or a later session of it, where a kernel's source is that; else None.

        Outputs, ids and notebook metadata do not count: the client and the target rewrite them.
        """
        from kchain.bundle import continuation_of, continued, same_cells

        try:
            found = json.loads(source)
            continuation = continuation_of(found)
            bundle = continued(self.rendered(phase), continuation)
            same = same_cells(found, bundle.notebook)
        except (ValueError, KeyError, TypeError):
            return None
        return (keep(bundle), continuation) if same else None

    def _hash(self, phase: str, folder: Path) -> str:
        from kchain.bundle import read

        try:
            bundle = read(folder)
        except InputError:
            return ""
        return bundle.hash if bundle.phase == phase else ""


def keep(bundle: Bundle) -> KeptBundle:
    """A bundle as the journal keeps it."""
    from kchain.bundle import metadata_text, notebook_text

    return KeptBundle(bundle.hash, metadata_text(bundle.metadata), notebook_text(bundle))


def session_of(kept: KeptBundle, continuation: Continuation | None) -> Bundle:
    """Another session of a kept bundle; None: its first."""
    from kchain.bundle import continued, parse

    return continued(parse(kept.notebook, kept.metadata), continuation)


def _errors(folder: Path) -> tuple[str, ...]:
    from kchain.bundle.lint import lint

    return tuple(
        f"{finding.where}: {finding.message} [{finding.rule}]; {finding.cure}"
        for finding in lint(folder)
        if finding.severity == "error"
    )
