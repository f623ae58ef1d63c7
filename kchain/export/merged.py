"""The chain as an ordinary model: every adapter added to the base in fp32, rounded once to fp16."""

from __future__ import annotations

from pathlib import Path

from kchain.export.companions import copy_licences, copy_tokenizer, force_ids
from kchain.export.subject import Subject, stops_told


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
