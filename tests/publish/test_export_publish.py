"""`kchain publish` on the real server: made once, found again, gone on with after kill -9, refused in words."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from command import kchain

from kchain.server import launch

SERVICE = "models.ModelApiService"


class Project:
    """A finished project with its export, and the server it publishes to."""

    def __init__(self, root: Path, **switches: float) -> None:
        self.root = root
        launch.write_profile(root / ".kchain" / "local", "machine", switches)
        self.endpoint = launch.ensure_running(root / ".kchain" / "local", idle_seconds=600)

    def publish(self, *arguments: str, code: int = 0) -> str:
        """What `kchain publish …` says."""
        done = kchain(self.root, "publish", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())

    def faults(self, *faults: dict[str, Any]) -> None:
        launch.control(self.endpoint, "faults", {"faults": list(faults)})

    def rpc(self, method: str, **body: Any) -> dict[str, Any]:
        session = requests.Session()
        session.trust_env = False
        url = f"{self.endpoint.url}/api/v1/{SERVICE}/{method}"
        answer = session.post(url, json={"ownerSlug": "demo", **body}, auth=("demo", self.endpoint.key), timeout=300)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def variations(self, model: str = "tiny") -> dict[str, tuple[int, str]]:
        """Slug of each variation -> (newest version, its notes)."""
        listed = self.rpc("ListModelInstances", modelSlug=model)["instances"]
        return {each["slug"]: (each["versionNumber"], each["versionNotes"]) for each in listed}


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished project with phase 2 exported, as the other tests copy it."""
    root = Path(shutil.copytree(finished, tmp_path_factory.mktemp("exported") / "project"))
    assert kchain(root, "export", "phase2").returncode == 0
    return root


@pytest.fixture
def project(exported: Path, tmp_path: Path) -> Iterator[Project]:
    root = Path(shutil.copytree(exported, tmp_path / "project"))
    yield Project(root)
    launch.stop(root / ".kchain" / "local")


def test_a_phase_is_published_privately_once_and_then_as_versions(project: Project, tmp_path: Path) -> None:
    before = sorted(path for path in project.root.rglob("*") if "local" not in path.parts)
    said = project.publish("--dry-run")
    assert "demo/tiny (new, private)" in said and "in all, from exports/phase2-model" in said
    assert "licence none" in said
    assert sorted(path for path in project.root.rglob("*") if "local" not in path.parts) == before
    assert "there is no terminal to ask on" in project.publish(code=3)

    said = project.publish("--yes")
    assert 'source = "demo/tiny/transformers/phase2/1"' in said
    model = project.rpc("GetModel", modelSlug="tiny")
    (instance,) = model["instances"]
    assert instance["baseModelInstanceInformation"]["modelSlug"] == "tiny-qwen"
    assert model["isPrivate"] is True and instance["licenseName"] == ""
    assert "## Lineage" in instance["usage"] and "---" not in instance["usage"].splitlines()[0]
    assert "nothing to publish: version 1 holds these files" in project.publish("--yes")

    card = project.root / "exports/phase2-model/README.md"
    card.write_text(card.read_text().replace("license: unknown", "license: apache-2.0"))
    assert "licence Apache 2.0" in project.publish("--dry-run")
    assert "demo/tiny/transformers/phase2/2" in project.publish("--yes")
    number, notes = project.variations()["phase2"]
    assert number == 2 and "sha256" in notes

    # What Kaggle's own client downloads is what was exported.
    environment = {**os.environ, "HOME": str(tmp_path), "KAGGLE_USERNAME": "demo", "KAGGLE_KEY": project.endpoint.key}
    environment |= {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "HTTP_PROXY": project.endpoint.url, "NO_PROXY": ""}
    command = [str(Path(sys.executable).with_name("kaggle")), "models", "variations", "versions", "download"]
    command += ["demo/tiny/transformers/phase2/1", "-p", str(tmp_path / "got"), "--untar"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    got = {path.name: path.read_bytes() for path in (tmp_path / "got").iterdir()}
    assert "model-metadata.json" not in got and "README.md" in got
    weights = "model.safetensors"
    assert got[weights] == (project.root / "exports/phase2-model" / weights).read_bytes()


def test_kill_9_during_an_upload_loses_nothing_and_makes_one_version(project: Project) -> None:
    project.faults({"method": "Upload", "kind": "hang", "skip": 5, "seconds": 600})
    command = [sys.executable, "-m", "kchain", "publish", "--yes"]
    process = subprocess.Popen(command, cwd=project.root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    begun = project.root / ".kchain" / "uploads.json"
    for line in process.stdout:
        if "model.safetensors" in line and "sending" in line:
            break
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (begun.exists() and "model.safetensors" in begun.read_text()):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    entries = json.loads(begun.read_text())
    assert begun.stat().st_mode & 0o077 == 0, "addresses of uploads are nobody else's"
    # The store got half of the file before the crash.
    (url,) = (entry["url"] for key, entry in entries.items() if "model.safetensors" in key)
    data = (project.root / "exports/phase2-model/model.safetensors").read_bytes()
    half = len(data) // 2
    project.faults()
    header = {"Content-Range": f"bytes 0-{half - 1}/{len(data)}"}
    assert requests.put(url, data=data[:half], headers=header, timeout=300).status_code == 308
    # Only what was not begun may be begun now.
    project.faults({"method": "StartBlobUpload", "kind": "403", "skip": 8 - len(entries), "calls": 99})
    said = project.publish("--yes")
    assert "resuming model.safetensors at 14.7 MB of 29.4 MB" in said
    assert "demo/tiny/transformers/phase2/1" in said
    assert project.variations() == {"phase2": (1, "")}
    got = project.root / ".kchain/local/models/demo/tiny/transformers/phase2/1/model.safetensors"
    assert got.read_bytes() == data
    assert json.loads(begun.read_text()) == {}


@pytest.mark.parametrize("arrived", [True, False])
def test_an_answer_that_never_came_makes_no_second_version(project: Project, arrived: bool) -> None:
    kind = "commit-then-reset" if arrived else "reset"
    project.faults({"method": "CreateModelInstance", "kind": kind})
    project.publish("--yes", code=4)
    if arrived:
        assert "version 1 holds these files" in project.publish("--yes")
        assert json.loads((project.root / ".kchain/uploads.json").read_text()) == {}, "its uploads are used up"
    else:
        assert "may show up there any moment" in project.publish("--yes", code=3)
        journal = project.root / ".kchain/journal.db"
        _earlier(journal, 60)
        assert "demo/tiny/transformers/phase2/1" in project.publish("--yes")
    assert project.variations() == {"phase2": (1, "")}


def test_an_upload_that_breaks_off_leaves_no_model_without_a_version(project: Project) -> None:
    project.faults({"method": "Upload", "kind": "reset", "calls": 99})
    project.publish("--yes", code=4)
    assert project.rpc("ListModels", owner="demo").get("models", []) == []


def _earlier(journal: Path, seconds: int) -> None:
    """As if everything had happened so much earlier."""
    with sqlite3.connect(journal) as db:
        db.execute("DROP TRIGGER event_is_final")
        db.execute("UPDATE event SET time = time - ?", (seconds,))


def test_an_adapter_and_a_gguf_file_are_variations_of_their_own(project: Project) -> None:
    pytest.importorskip("gguf")
    assert "demo/tiny/transformers/phase2-adapter/1" in project.publish("--format", "adapter", "--yes")
    said = project.publish("--format", "gguf", "--type", "q8_0", "--yes", "--model", "other-name")
    assert "demo/other-name/gguf/phase2-q8-0/1" in said and "phase2-q8_0.gguf" in said
    assert set(project.variations()) == {"phase2-adapter"}
    made = project.root / ".kchain/local/models/demo/other-name/gguf/phase2-q8-0/1"
    assert sorted(path.name for path in made.iterdir()) == ["README.md", "kchain-export.json", "phase2-q8_0.gguf"]


def test_a_version_that_is_still_processed_is_told_so(exported: Path, tmp_path: Path) -> None:
    project = Project(Path(shutil.copytree(exported, tmp_path / "project")), dataset_seconds=3600)
    try:
        said = project.publish("--yes")
        assert "demo/tiny/transformers/phase2/1" in said and "the target still processes it" in said
        assert "the target still processes it" in project.publish("--yes")
    finally:
        launch.stop(project.root / ".kchain" / "local")


def test_a_name_that_holds_something_else_is_refused_and_so_is_a_public_model(project: Project) -> None:
    project.rpc("CreateModel", slug="tiny", title="Mine", isPrivate=False)
    said = project.publish("--yes", code=3)
    assert "model demo/tiny is public" in said and "--model SLUG" in said
    assert "demo/tiny (PUBLIC)" in project.publish("--dry-run")
    assert project.variations() == {}
    assert "phase2/1" in project.publish("--yes", "--public")
    state = project.root / ".kchain/local/state.db"
    with sqlite3.connect(state) as db:
        db.execute("UPDATE model_instances SET details = json_set(details, '$.overview', 'by hand')")
    assert "is not a safetensors that kchain published" in project.publish("--yes", "--public", code=1)


def test_what_cannot_be_published_is_told_before_anything_is_sent(project: Project) -> None:
    assert "not a name for a model" in project.publish("--model", "No_Slug", code=2)
    project.publish("--type", "q8_0", code=2)
    config = project.root / "exports/phase2-model/config.json"
    config.write_text(config.read_text() + " ")
    assert "config.json is not what was exported" in project.publish("--yes", code=2)
    shutil.rmtree(config.parent)
    config.parent.mkdir()
    assert "is not an export of kchain" in project.publish("--yes", code=2)
    config.parent.rmdir()
    shutil.rmtree(project.root / ".kchain/local/models/kchain")
    assert "--base" in project.publish("--yes", code=2)
    text = (project.root / "phases/phase2.toml").read_text()
    (project.root / "phases/new.toml").write_text(text.replace("Tiny Phase 2", "Tiny New"))
    assert "new has no verified adapter" in project.publish("new", "--yes", code=3)
    listed = project.rpc("ListModels", owner="demo")
    assert listed["models"] == []
