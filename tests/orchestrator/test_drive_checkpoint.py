"""A checkpoint counts only when it is whole, and the one that its session meant."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from kchain.errors import AdapterRefused
from kchain.kernel_metadata import Continuation
from kchain.orchestrator.journal.state import Ancestor, Version
from kchain.orchestrator.judging.checkpoint import NoCheckpoint, Paused, is_whole, no_checkpoint
from kchain.orchestrator.judging.checkpoint import paused as paused_of
from kchain.orchestrator.judging.result import ResultFile, parse
from kchain.runtime.checkpoint import find
from kchain.runtime.failure import Stop
from kchain.runtime.paths import Paths

LINEAGE = (Ancestor("phase1", "1" * 64),)
VERSION = Version(3, "", "b" * 64, LINEAGE, (), resend=False, time=0.0, max_sessions=3)
SECOND = Version(4, "", "c" * 64, LINEAGE, (), False, 0.0, max_sessions=3,
                 continues=Continuation(2, "kernel", "me/two", "checkpoint", "d" * 64))  # fmt: skip


def paused(result: dict[str, Any], version: Version, folder: Path) -> Paused | None:
    return paused_of(parse(ResultFile, result, folder), version, folder)


def missing(reason: str, version: Version) -> NoCheckpoint | None:
    return no_checkpoint(ResultFile(status="failed", reason=reason), version)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def left(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The outputs of a session that its time limit ended, and its result file."""
    place = tmp_path / "checkpoint"
    place.mkdir()
    files = {"adapter.safetensors": b"weights" * 100, "optimizer.pt": b"moments" * 300}
    for name, content in files.items():
        (place / name).write_bytes(content)
    manifest = json.dumps({"step": 600, "steps": 4700, "files": {name: sha256(files[name]) for name in files}}).encode()
    (place / "manifest.json").write_bytes(manifest)
    return tmp_path, {
        "status": "partial",
        "stopped": "time",
        "session": 1,
        "seconds": 30.5,
        "lineage": [{"phase": "phase1", "kind": "kernel", "ref": "me/one", "sha256": "1" * 64}],
        "checkpoint": {"folder": "checkpoint", "sha256": sha256(manifest), "bytes": 1, "step": 600, "steps": 4700},
    }


def test_a_sound_checkpoint_says_how_far_it_is(left: tuple[Path, dict[str, Any]]) -> None:
    folder, result = left
    found = paused(result, VERSION, folder)
    assert found is not None
    assert (found.step, found.steps, found.seconds, found.sha256) == (600, 4700, 30.5, result["checkpoint"]["sha256"])
    assert found.bytes == sum(file.stat().st_size for file in (folder / "checkpoint").iterdir())
    assert found.stopped == "time"
    killed = {"status": "failed", "reason": "the session was ended during evaluate: out of time"}
    assert paused(result | killed, VERSION, folder) == found
    slow = paused(result | {"stopped": "slow"}, VERSION, folder)
    assert slow is not None and slow.stopped == "slow"
    assert is_whole(folder / "checkpoint", found.sha256)


@pytest.mark.parametrize(
    "change",
    [{"status": "complete"}, {"stopped": None}, {"checkpoint": None}],
)
def test_a_session_that_ended_otherwise_has_none(left: tuple[Path, dict[str, Any]], change: dict[str, Any]) -> None:
    folder, result = left
    assert paused(result | change, VERSION, folder) is None


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("optimizer.pt", b"other", r"optimizer\.pt: sha256"),
        ("optimizer.pt", None, "names other files than those beside it"),
        ("more.bin", b"more", "names other files than those beside it"),
        ("manifest.json", b"{}", r"manifest\.json: sha256"),
        ("manifest.json", b"none", "cannot be read as JSON"),
        ("manifest.json", None, "cannot be read as JSON"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    left: tuple[Path, dict[str, Any]], file: str, content: bytes | None, words: str
) -> None:
    folder, result = left
    path = folder / "checkpoint" / file
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AdapterRefused, match=words) as caught:
        paused(result, VERSION, folder)
    assert "--again" in caught.value.hint or "train it again" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"session": 2}, "session is 2, not 1"),
        ({"lineage": []}, "lineage"),
        ({"lineage": [{"phase": "phase1", "sha256": "2" * 64}]}, "lineage"),
        ({"checkpoint": {"folder": "../elsewhere", "sha256": "0" * 64}}, "folder"),
    ],
)
def test_a_checkpoint_of_another_session_is_refused(
    left: tuple[Path, dict[str, Any]], change: dict[str, Any], words: str
) -> None:
    folder, result = left
    with pytest.raises(AdapterRefused, match=words):
        paused(result | change, VERSION, folder)


@pytest.mark.parametrize("manifest", [{"step": "six", "steps": 1}, {"steps": 4700}, {"step": True, "steps": 2}])
def test_a_manifest_without_its_steps_is_refused(left: tuple[Path, dict[str, Any]], manifest: dict[str, Any]) -> None:
    folder, result = left
    path = folder / "checkpoint" / "manifest.json"
    files = json.loads(path.read_bytes())["files"]
    path.write_text(json.dumps(manifest | {"files": files}), encoding="utf-8")
    result["checkpoint"]["sha256"] = sha256(path.read_bytes())
    with pytest.raises(AdapterRefused, match=r"manifest\.json: step is (missing|six|True)"):
        paused(result, VERSION, folder)


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("preflight: continuation: the kernel me/two is not mounted: neither /a nor /b holds anything", True),
        ("preflight: continuation: the checkpoint of kernel me/two is another one", True),
        ("preflight: continuation: the checkpoint of kernel me/two belongs to a run with other parameters", False),
        ("preflight: the model owner/m is not mounted", False),
        ("train: the checkpoint cannot be loaded", False),
        ("", False),
    ],
)
def test_a_session_that_did_not_find_its_checkpoint_is_told_from_one_that_failed(reason: str, found: bool) -> None:
    assert isinstance(missing(reason, SECOND), NoCheckpoint) is found
    assert missing(reason, VERSION) is None, "a first session needs none"


def said_by_the_notebook(root: Path, manifest: bytes | None, sha256_due: str, parameters: str) -> str:
    """The reason that the real runtime gives, with this manifest in the mount of the kernel's own output."""
    place = root / "input" / "notebooks" / "me" / "two" / "checkpoint"
    place.mkdir(parents=True)
    if manifest is not None:
        (place / "manifest.json").write_bytes(manifest)
    told = {"session": 2, "kind": "kernel", "ref": "me/two", "folder": "checkpoint", "sha256": sha256_due}
    with pytest.raises(Stop) as stopped:
        find(Paths(root / "input", root, root), told, parameters)
    return f"preflight: {stopped.value.reason}"


TOLD = {"step": 1, "steps": 2, "parameters": "these", "data": "d", "batch": 1, "processes": 1, "recovered": []}
MANIFEST = json.dumps({**TOLD, "files": {}}).encode()


@pytest.mark.parametrize(
    ("manifest", "due", "parameters", "found"),
    [
        (None, sha256(MANIFEST), "these", True),
        (MANIFEST, "0" * 64, "these", True),
        (json.dumps({**TOLD, "files": {"gone": "0"}}).encode(), None, "these", True),
        (MANIFEST, sha256(MANIFEST), "others", False),
    ],
    ids=["not mounted", "another one", "not whole", "of another training"],
)
def test_what_the_notebook_says_of_a_checkpoint_is_understood(
    tmp_path: Path, manifest: bytes | None, due: str | None, parameters: str, found: bool
) -> None:
    reason = said_by_the_notebook(tmp_path, manifest, due or sha256(manifest or b""), parameters)
    assert isinstance(missing(reason, SECOND), NoCheckpoint) is found, reason
