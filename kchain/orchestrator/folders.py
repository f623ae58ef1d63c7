"""The bundle folders of a chain on one target: rendered, written, read again, and copied for a push.

What is pushed is what lies on the disk; what lies on the disk must be what renders now and what a person reviewed.
Rendering imports nbformat and jinja2, so it happens only when a bundle is asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kchain.errors import InputError
from kchain.kernel_metadata import METADATA_FILE, NOTEBOOK_FILE
from kchain.orchestrator.journal import KeptBundle
from kchain.orchestrator.target import Target
from kchain.phases import Chain

if TYPE_CHECKING:
    from kchain.bundle import AdapterSource, Bundle


@dataclass(frozen=True)
class Snapshot:
    """A private copy of a bundle folder, and its texts with the hash they really have."""

    folder: Path
    kept: KeptBundle


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
            yield Snapshot(copy, kept)

    def _hash(self, phase: str, folder: Path) -> str:
        from kchain.bundle import read

        try:
            bundle = read(folder)
        except InputError:
            return ""
        return bundle.hash if bundle.phase == phase else ""


def _errors(folder: Path) -> tuple[str, ...]:
    from kchain.bundle.lint import lint

    return tuple(
        f"{finding.where}: {finding.message} [{finding.rule}]; {finding.cure}"
        for finding in lint(folder)
        if finding.severity == "error"
    )
