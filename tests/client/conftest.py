from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from client_weather import MakeBundle, Weather


@pytest.fixture
def weather() -> Iterator[Weather]:
    found = Weather()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def clean_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of whoever runs the tests, and a home folder that may be looked into."""
    import os

    for name in list(os.environ):
        if name.startswith("KAGGLE_") or name in ("KCHAIN_KEY_FILE", "XDG_CONFIG_HOME", "HTTP_PROXY", "http_proxy"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """Writes a bundle folder: a notebook of code cells and its metadata, some of it replaced."""

    def make(*cells: str, **metadata: Any) -> Path:
        folder = tmp_path / "bundle"
        folder.mkdir(exist_ok=True)
        notebook = nbformat.v4.new_notebook()
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells or ("print('hello')",)]
        nbformat.write(notebook, folder / "notebook.ipynb")
        fields = {
            "id": "ada/first-phase",
            "title": "First phase",
            "code_file": "notebook.ipynb",
            "language": "python",
            "kernel_type": "notebook",
            "is_private": True,
            "enable_gpu": False,
            "enable_tpu": False,
            "enable_internet": False,
            "dataset_sources": [],
            "kernel_sources": [],
            "model_sources": [],
            "competition_sources": [],
            "keywords": [],
        }
        (folder / "kernel-metadata.json").write_text(json.dumps(fields | metadata), encoding="utf-8")
        return folder

    return make
