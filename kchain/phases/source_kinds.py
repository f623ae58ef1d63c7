"""The kinds of data source, one row each: all that kchain asks about a source is answered here.

A new kind is a row of this table and its reader: an entry in SOURCES of kchain/runtime/readers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kchain.phases.values import Ref, Text


@dataclass(frozen=True)
class SourceKind:
    """One kind of source.

    Attributes:
        name: as the notebook's parameters and its readers call it.
        key: of `[[data.sources]]`, which says where the examples are; a source is of the first kind whose key it has.
        form: type of that key's value.
        help: what the key is, for whoever writes a phase file.
        words: where a source of this kind comes from, for people.
        refused: keys that belong to other kinds alone -> why they make no sense here.
        needs_internet: its rows are fetched by the session.
        attached: list of `kernel-metadata.json` that names it; None: nothing is mounted.
        travels: it is a file of the project, counted beforehand and written into the notebook as JSON lines; in a
            rehearsal it stands for itself. For any other kind a data set of samples or invented rows stands in.
    """

    name: str
    key: str
    form: Any
    help: str
    words: Callable[[Any], str]
    refused: tuple[tuple[str, str], ...] = ()
    needs_internet: bool = False
    attached: str | None = None
    travels: bool = False


def _dataset_words(source: Any) -> str:
    if source.split and not source.file:
        return f"the {source.split} files of {source.place}"
    return f"{source.file or 'the only file'} of {source.place}"


def _huggingface_words(source: Any) -> str:
    subset = f", {source.subset}" if source.subset else ""
    return f"{source.place} on Hugging Face ({source.split or 'train'}{subset})"


SOURCE_KINDS: tuple[SourceKind, ...] = (
    SourceKind(
        name="dataset",
        key="dataset",
        form=Ref,
        help="Kaggle data set owner/slug, mounted into the session",
        words=_dataset_words,
        attached="dataset_sources",
    ),
    SourceKind(
        name="huggingface",
        key="huggingface",
        form=Ref,
        help="Hugging Face data set owner/name; needs internet",
        words=_huggingface_words,
        refused=(("file", "a huggingface source has subset and split, not file"),),
        needs_internet=True,
    ),
    # The last one: `file` also names a file inside a source of another kind.
    SourceKind(
        name="project",
        key="file",
        form=Text,
        help="",
        words=lambda source: f"{source.place} of this project",
        refused=(("split", "a file of this project has no split"),),
        travels=True,
    ),
)
PLACES = tuple(kind.key for kind in SOURCE_KINDS)
