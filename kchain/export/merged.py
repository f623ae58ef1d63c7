"""The chain as an ordinary model: every adapter added to the base in fp32, rounded once to fp16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kchain.export.companions import copy_licences, copy_tokenizer, force_ids
from kchain.export.place import workshop
from kchain.export.subject import Subject, stops_told


@contextmanager
def merged_model(subject: Subject) -> Iterator[Path]:
    """The folder of the chain merged as it is exported; it is gone afterwards.

    Raises:
        InputError: the disk lacks the room for it, or an adapter does not fit.
    """
    size = sum(file.stat().st_size for file in subject.base.glob("*.safetensors"))
    with workshop(subject.work, size, force=False) as shop:
        write_merged(subject, shop / "model")
        yield shop / "model"


def write_merged(subject: Subject, folder: Path) -> list[str]:
    """Write the model, its tokenizer and its configurations into `folder`, which must not exist.

    Returns:
        The names of the licence texts that went along.

    Raises:
        InputError: an adapter does not fit the base, or a sum does not fit into fp16.
    """
    from kchain.runtime.merge import merge
    from kchain.runtime.tokenizer import tokenizer_folder

    with stops_told():
        merge(subject.base, subject.adapters, subject.lora, folder)
    copy_tokenizer(tokenizer_folder(subject.base, subject.adapters), subject.base, folder, subject.pad)
    force_ids(folder, subject.pad)
    return copy_licences(subject.base, folder)
