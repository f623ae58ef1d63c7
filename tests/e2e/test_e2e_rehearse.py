"""The shipped T4 chain, rehearsed offline by the command a user types; what a push to Kaggle says before and after."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import kchain, started

from kchain.bundle import build
from kchain.client.client import connect
from kchain.client.target import KAGGLE, LOCAL, Target
from kchain.errors import StillRunning
from kchain.orchestrator.driving.drive import Ports
from kchain.orchestrator.push import push
from kchain.phases import load_chain
from kchain.phases.init import make_project
from kchain.rehearse.run import AREA
from kchain.server import launch

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]


class Listener:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, phase: str, text: str) -> None:
        self.notes.append(f"{phase} {text}")

    def waiting(self, phase: str, text: str) -> None:
        """Nobody looks."""

    def event(self, phase: str, event: Mapping[str, Any]) -> None:
        """Nobody looks."""


def rehearse(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`kchain rehearse …` in a project, with no network and no caches of this machine's user."""
    nowhere = {"HF_HOME": str(project / "none"), "KAGGLEHUB_CACHE": str(project / "none")}
    nowhere |= dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return started(project, "rehearse", *arguments, **nowhere)


def warned_of_a_push_to_kaggle(project: Path, **options: Any) -> bool:
    """Push phase1 to the target "kaggle", which a server of this machine answers for; its sessions stay queued."""
    chain, listener = load_chain(project), Listener()
    ports = Ports(lambda target: connect(Target(LOCAL, target.owner, target.root)))
    with contextlib.suppress(StillRunning):
        push(chain, "phase1", Target(KAGGLE, chain.owner, project), listener, yes=True, ports=ports, **options)
    return any("phase1 never rehearsed" in note for note in listener.notes)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("rehearse") / "project"
    make_project(folder, "qwen-t4", "someone")
    (folder / "broken.json").write_text('[{"instruction": "list', encoding="utf-8")
    phase = folder / "phases" / "phase2.toml"  # its last source is the optional one
    phase.write_text(phase.read_text(encoding="utf-8") + 'rehearsal = "broken.json"\n', encoding="utf-8")
    local = folder / ".kchain" / "local"
    launch.ensure_running(local, profile="like-kaggle", switches={"queue_seconds": 1e6})
    yield folder
    launch.stop(local)


@pytest.fixture(scope="module")
def told(project: Path) -> dict[str, Any]:
    """What `kchain rehearse phase2 --json` says, after a push that was warned of."""
    assert warned_of_a_push_to_kaggle(project)
    assert re.search(r"rehearsed +never \(kchain rehearse phase2\)", kchain(project, "review", "phase2").stdout)
    done = rehearse(project, "phase2", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_both_phases_come_to_their_end_with_the_code_that_will_be_pushed(project: Path, told: dict[str, Any]) -> None:
    chain = load_chain(project)
    assert [row["phase"] for row in told["phases"]] == ["phase1", "phase2"]
    for row in told["phases"]:
        assert row["state"] == "rehearsed"
        assert row["code_hash"] == build(chain, row["phase"], "kaggle", {}).code_hash
        assert row["steps"] == 4 and row["loss_last"] < row["loss_first"]


def test_the_results_lie_in_a_place_of_their_own(project: Path, told: dict[str, Any]) -> None:
    runs = project / AREA / "work" / "runs" / "local"
    result = json.loads((runs / "phase2" / "v1" / "kchain-result.json").read_text(encoding="utf-8"))
    assert result["status"] == "complete"
    assert [line["phase"] for line in result["lineage"]] == ["phase1"]
    assert not (project / "runs").exists()
    assert not (project / "build" / "local").exists()


def test_it_says_what_stood_in(told: dict[str, Any]) -> None:
    assert told["tokenizer"] is None and told["family"] == "qwen2"
    assert [source["kind"] for source in told["sources"]] == ["invented"] * 4 + ["yours"]
    assert any(sentence.startswith("phase2/terminal-commands, which failed") for sentence in told["not_rehearsed"])
    assert not any("broken.json" in sentence for sentence in told["rehearsed"])
    assert any("INVENTED" in sentence for sentence in told["not_rehearsed"])


def test_no_server_of_it_is_left(project: Path, told: dict[str, Any]) -> None:
    assert launch.find(project / AREA / "work" / ".kchain" / "local") is None


def test_a_push_to_kaggle_no_longer_warns(project: Path, told: dict[str, Any]) -> None:
    assert not warned_of_a_push_to_kaggle(project, again=True, wait=False)
    assert re.search(r"rehearsed +yes \(\d{4}-", kchain(project, "review", "phase2").stdout)
    assert re.search(r"rehearsed +never", kchain(project, "review", "phase3").stdout)


def test_what_has_not_changed_is_left_alone(project: Path, told: dict[str, Any]) -> None:
    done = rehearse(project, "phase1", "phase2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("unchanged") == 2 and "pushed version" not in done.stdout
    assert "Nothing has changed since the last rehearsal." in done.stdout


@pytest.mark.long
def test_a_phase_that_fails_gives_the_advice_that_kaggle_would(project: Path, told: dict[str, Any]) -> None:
    path = project / "kchain.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("eos_id = 151645", "eos_id = 151644"), encoding="utf-8")
    try:
        done = rehearse(project, "phase1")
    finally:
        path.write_text(text, encoding="utf-8")
    assert done.returncode == 1
    assert "<|im_end|> has id 151645, the chain says 151644" in done.stderr
    assert "run.load_data()" in done.stderr and "eos_id" in done.stderr
    assert "after a change: kchain rehearse phase1" in done.stderr
    assert "phase1: a phase failed" in done.stdout
