"""The bundle as Kaggle's own client sends it: the real `kernels_push`, stopped just before the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bundle_tools import write_project

from kchain.bundle import Bundle, build, canonical_hash, cell_diff, find_hash, source_bytes, write
from kchain.bundle.cells import cells_of

PUSH = """
import contextlib, json, sys
from types import SimpleNamespace
from kaggle.api.kaggle_api_extended import KaggleApi

class Stopped(KaggleApi):
    @contextlib.contextmanager
    def build_kaggle_client(self):
        client = SimpleNamespace(save_kernel=lambda request: request)
        yield SimpleNamespace(kernels=SimpleNamespace(kernels_api_client=client))

request = Stopped().kernels_push(sys.argv[1], sys.argv[2])
json.dump(request.to_dict(request), open(sys.argv[3], "w"))
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return build(write_project(tmp_path), "three", "kaggle", {})


@pytest.fixture
def sent(tmp_path: Path, bundle: Bundle) -> dict[str, Any]:
    """The SaveKernel request that the client makes of the folder."""
    out = tmp_path / "request.json"
    command = [sys.executable, "-c", PUSH, str(write(bundle, tmp_path)), str(bundle.timeout), str(out)]
    environment = {**os.environ, "HOME": str(tmp_path), "KAGGLE_USERNAME": "someone", "KAGGLE_KEY": "0" * 32}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "does not resolve" not in done.stdout, "title and id agree"
    return dict(json.loads(out.read_text(encoding="utf-8")))


def test_what_the_client_sends_has_the_reviewed_hash(bundle: Bundle, sent: dict[str, Any]) -> None:
    assert canonical_hash(cells_of(sent["text"]), bundle.metadata, bundle.timeout) == bundle.hash
    assert find_hash(sent["text"]) == bundle.hash
    assert cell_diff(bundle.notebook, cells_of(sent["text"])) == []


def test_its_size_is_the_size_that_is_checked(bundle: Bundle, sent: dict[str, Any]) -> None:
    assert len(sent["text"]) == source_bytes(bundle.notebook) < 2**20


def test_it_goes_to_the_kernel_with_the_machine_and_the_sources_of_the_phase(sent: dict[str, Any]) -> None:
    assert sent["slug"] == "someone/demo-phase-three"
    assert sent["newTitle"] == "Demo phase three"
    assert sent["machineShape"] == "NvidiaTeslaT4"
    assert (sent["enableGpu"], sent["enableInternet"], sent["isPrivate"]) == (True, True, True)
    assert sent["kernelDataSources"] == ["someone/demo-phase-one", "someone/demo-phase-two"]
    assert sent["datasetDataSources"] == ["a/b"]
    assert sent["modelDataSources"] == ["a/b/transformers/c/1"]
    assert sent["sessionTimeoutSeconds"] == 9 * 3600
