"""A small project on disk, and hand-written bundle folders to lint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kchain.phases import Chain, load_chain

CHAIN = '[chain]\nname = "demo"\nowner = "someone"\n{more}[model]\nsource = "a/b/transformers/c/1"\n'
PHASE = (
    'title = "Demo phase {name}"\ndescription = "Teaches {name}."\n{after}[data]\n'
    'sources = [{{ name = "s", dataset = "a/b", file = "c.jsonl", fields = {{ prompt = "p", completion = "c" }} }}]\n'
)
METADATA: dict[str, Any] = {
    "id": "someone/my-training",
    "title": "My training",
    "code_file": "notebook.ipynb",
    "language": "python",
    "kernel_type": "notebook",
    "is_private": True,
    "enable_gpu": True,
    "enable_tpu": False,
    "enable_internet": True,
    "machine_shape": "NvidiaTeslaT4",
    "dataset_sources": [],
    "kernel_sources": [],
    "model_sources": [],
    "competition_sources": [],
}
KERNELSPEC = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def write_project(root: Path, more: str = "") -> Chain:
    """Three phases in a row."""
    (root / "phases").mkdir(parents=True, exist_ok=True)
    (root / "kchain.toml").write_text(CHAIN.format(more=more), encoding="utf-8")
    for name, after in (("one", ""), ("two", 'after = "one"\n'), ("three", 'after = "two"\n')):
        (root / "phases" / f"{name}.toml").write_text(PHASE.format(name=name, after=after), encoding="utf-8")
    return load_chain(root)


def write_folder(folder: Path, *cells: str, markdown: str = "", **metadata: Any) -> Path:
    """A bundle as someone would write it by hand; metadata values of None leave the key out."""
    folder.mkdir(parents=True, exist_ok=True)
    code = [
        {"cell_type": "code", "source": cell, "metadata": {}, "outputs": [], "execution_count": None} for cell in cells
    ]
    text = [{"cell_type": "markdown", "source": [markdown], "metadata": {}}] if markdown else []
    notebook = {"cells": [*text, *code], "metadata": KERNELSPEC, "nbformat": 4, "nbformat_minor": 4}
    (folder / "notebook.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    kept = {key: value for key, value in {**METADATA, **metadata}.items() if value is not None}
    (folder / "kernel-metadata.json").write_text(json.dumps(kept), encoding="utf-8")
    return folder
