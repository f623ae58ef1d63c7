"""Pushing with the official client: what it sends, what its answers mean, and that it is never sent twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from client_weather import FAST, KEY, MakeBundle, Weather, cut_after, failing, html, reset, silent

from kchain.client.transport import Patience
from kchain.errors import (
    Ambiguous,
    CredentialsError,
    InputError,
    KchainError,
    NotNow,
    PushRefused,
    QuotaUsedUp,
    RateLimited,
    SessionCap,
    StillRunning,
    Unreachable,
)

SAVE = "SaveKernel"
ACCEPTED = {
    "ref": "/code/ada/first-phase",
    "url": "https://x/code/ada/first-phase",
    "versionNumber": 3,
    "error": "",
    "invalidTags": [],
    "invalidDatasetSources": [],
}


def push(weather: Weather, tmp_path: Path, bundle: Path, patience: Patience = FAST) -> Any:
    return weather.client(tmp_path, patience).push(bundle, 3600)


def refused(weather: Weather, tmp_path: Path, bundle: Path, answer: Any) -> KchainError:
    weather.on(SAVE, answer)
    with pytest.raises(KchainError) as caught:
        push(weather, tmp_path, bundle)
    assert len(weather.calls(SAVE)) == 1, "a push must never be sent twice"
    return caught.value


def test_a_push_sends_the_bundle_and_returns_its_version(
    weather: Weather, tmp_path: Path, make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    weather.on(SAVE, ACCEPTED)
    bundle = make_bundle("x = 1", machine_shape="NvidiaTeslaT4", enable_gpu=True, kernel_sources=["ada/zero-phase"])
    pushed = push(weather, tmp_path, bundle)
    assert (pushed.version, pushed.url, pushed.invalid) == (3, "https://x/code/ada/first-phase", ())
    sent = weather.calls(SAVE)[0].body
    assert sent["slug"] == "ada/first-phase"
    assert sent["newTitle"] == "First phase"
    assert sent["sessionTimeoutSeconds"] == 3600
    assert sent["machineShape"] == "NvidiaTeslaT4"
    assert sent["enableGpu"] is True
    assert sent["isPrivate"] is True
    assert sent["kernelDataSources"] == ["ada/zero-phase"]
    assert json.loads(sent["text"])["cells"][0]["source"] == "x = 1"
    assert capsys.readouterr() == ("", "")


def test_every_kind_of_invalid_source_is_reported(weather: Weather, tmp_path: Path, make_bundle: MakeBundle) -> None:
    lists = {
        "invalidDatasetSources": ["ada/data"],
        "invalidKernelSources": ["ada/gone"],
        "invalidModelSources": ["q/m/t/v/1"],
        "invalidCompetitionSources": ["titanic"],
        "invalidTags": ["x"],
    }
    weather.on(SAVE, ACCEPTED | lists)
    pushed = push(weather, tmp_path, make_bundle())
    assert pushed.version == 3
    assert sorted(pushed.invalid) == [
        "competition titanic",
        "data set ada/data",
        "kernel ada/gone",
        "model q/m/t/v/1",
        "tag x",
    ]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("Maximum batch GPU session count of 2 reached.", SessionCap),
        ("Maximum batch CPU session count of 5 reached.", SessionCap),
        ("Maximum weekly GPU quota of 30.00 hours reached.", QuotaUsedUp),
        ("Kernel not found", PushRefused),
        ("Notebook not found", PushRefused),
        ("The database operation conflicted with another update.", Ambiguous),
        ("Something nobody has seen before", PushRefused),
        ("Phone verification is required to use a GPU", PushRefused),
    ],
)
def test_refusals_that_come_with_http_200(
    weather: Weather, tmp_path: Path, make_bundle: MakeBundle, words: str, error: type[KchainError]
) -> None:
    found = refused(weather, tmp_path, make_bundle(), {"error": words})
    assert type(found) is error
    assert words in found.message
    assert found.hint


@pytest.mark.parametrize(
    ("status", "words", "error"),
    [
        (400, "The source has 1200000 bytes; at most 1048576 are accepted.", PushRefused),
        (401, "Unauthenticated", CredentialsError),
        (403, "Permission 'kernels.update' was denied", PushRefused),
        (404, "Not found", PushRefused),
        (409, "Conflict", PushRefused),
        (409, "The title 'First phase' is already in use by another notebook.", PushRefused),
        (409, "The title makes the slug other, but this notebook is first-phase.", PushRefused),
        (409, "Dataset ada/data is still being processed.", NotNow),
        (409, "A version of this notebook is still running.", StillRunning),
        (413, "Too large", PushRefused),
        (429, "Too many requests", RateLimited),
    ],
)
def test_definite_refusals(
    weather: Weather, tmp_path: Path, make_bundle: MakeBundle, status: int, words: str, error: type[KchainError]
) -> None:
    found = refused(weather, tmp_path, make_bundle(), failing(status, words))
    assert type(found) is error or (error is RateLimited and isinstance(found, RateLimited))
    assert found.hint


def test_a_conflict_without_a_reason_names_every_known_cause(
    weather: Weather, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    hint = refused(weather, tmp_path, make_bundle(), failing(409, "Conflict")).hint
    for cause in ("title", "another account", "data set", "running"):
        assert cause in hint


@pytest.mark.parametrize(
    "answer",
    [
        failing(500, "internal"),
        failing(503, "unavailable"),
        (502, "<html>bad gateway</html>", {}),
        html(),
        html(403),
        (200, "", {"Content-Type": "application/json"}),
        (200, '{"versionNumber": 3', {"Content-Type": "application/json"}),
        (200, [], {}),
        {},
        {"url": "https://x", "error": ""},
        ACCEPTED | {"versionNumber": "3"},
        ACCEPTED | {"invalidTags": None},
        ACCEPTED | {"error": "Maximum batch GPU session count of 2 reached."},
        (302, "", {"Location": "http://login.example/"}),
        reset,
        cut_after(10, json.dumps(ACCEPTED).encode()),
    ],
)
def test_whatever_leaves_it_open_whether_a_version_exists_is_ambiguous(
    weather: Weather, tmp_path: Path, make_bundle: MakeBundle, answer: Any
) -> None:
    found = refused(weather, tmp_path, make_bundle(), answer)
    assert type(found) is Ambiguous
    assert "looks" in found.hint


def test_silence_after_a_push_is_ambiguous(weather: Weather, tmp_path: Path, make_bundle: MakeBundle) -> None:
    weather.on(SAVE, silent(weather))
    with pytest.raises(Ambiguous):
        push(weather, tmp_path, make_bundle(), Patience(silence=0.3))
    assert len(weather.calls(SAVE)) == 1


def test_a_push_that_never_left_is_not_ambiguous(tmp_path: Path, make_bundle: MakeBundle) -> None:
    gone = Weather()
    client = gone.client(tmp_path)
    gone.close()
    with pytest.raises(Unreachable) as caught:
        client.push(make_bundle(), 60)
    assert type(caught.value) is Unreachable


def test_a_version_that_landed_at_another_address_is_refused(
    weather: Weather, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    found = refused(weather, tmp_path, make_bundle(), ACCEPTED | {"ref": "/code/ada/another-phase"})
    assert type(found) is PushRefused
    assert "ada/another-phase" in found.message


@pytest.mark.parametrize(
    "metadata",
    [
        {"language": "cobol"},
        {"code_file": "gone.ipynb"},
        {"title": "abc"},
        {"kernel_sources": ["no-owner"]},
        {"id": ""},
    ],
)
def test_a_bundle_the_client_does_not_take_is_not_sent(
    weather: Weather, tmp_path: Path, make_bundle: MakeBundle, metadata: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        push(weather, tmp_path, make_bundle(**metadata))
    assert weather.seen == []


def test_a_folder_without_metadata_is_not_sent(weather: Weather, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kernel-metadata.json"):
        push(weather, tmp_path, tmp_path)
    assert weather.seen == []


def test_a_notebook_that_is_no_json_is_not_sent(weather: Weather, tmp_path: Path, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    (bundle / "notebook.ipynb").write_text("{ not json")
    with pytest.raises(InputError):
        push(weather, tmp_path, bundle)
    assert weather.seen == []


PROGRAM = """
import json, sys, time
from pathlib import Path
from client_weather import Weather
weather = Weather()
weather.on("SaveKernel", {"ref": "/code/ada/first-phase", "versionNumber": 1, "url": "u"})
weather.on("IntrospectToken", {"active": True, "username": "mallory"})
print(weather.client(Path(sys.argv[1])).push(Path(sys.argv[2]), 60).version)
import kaggle
kaggle.api.config_values
print([seen.path.rpartition("/")[2] for seen in weather.seen])
print([seen.headers.get("Authorization", "").partition(" ")[0] for seen in weather.seen])
"""


def test_the_official_client_brings_no_login_no_output_and_no_folder(
    tmp_path: Path, make_bundle: MakeBundle, request: pytest.FixtureRequest
) -> None:
    """In a process of its own: `import kaggle` would log in with these variables, print, and make ~/.config/kaggle."""
    home = tmp_path / "empty-home"
    home.mkdir()
    here = Path(__file__).parent
    root = request.config.rootpath
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join((str(root), str(here))),
        "KAGGLE_API_TOKEN": "KGAT_secret_of_the_user",
        "KAGGLE_USERNAME": "mallory",
        "KAGGLE_KEY": "key-of-kaggle-itself",
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "VERBOSE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    words = [sys.executable, "-c", PROGRAM, str(tmp_path), str(make_bundle())]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines() == ["1", "['SaveKernel']", "['Basic']"], done.stderr
    assert done.stderr == ""
    assert list(home.rglob("*")) == []
    assert KEY not in done.stdout
