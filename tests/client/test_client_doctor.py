"""kchain doctor: what it finds, and what it makes the exit code."""

from __future__ import annotations

import json
import os
import shutil
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest
from click.testing import CliRunner, Result
from client_weather import KEY, Weather, failing, html

from kchain.cli.doctor import doctor
from kchain.client.login import Surroundings
from kchain.orchestrator.doctor import Check, examine, worst

PROJECT = """
[chain]
name = "qwen"
owner = "ada"
[model]
source = "qwen-lm/qwen2.5/transformers/0.5b-instruct/1"
"""
PHASE = """
title = "First phase"
description = "x"
[[data.sources]]
name = "own"
huggingface = "a/b"
fields = { prompt = "p", completion = "c" }
"""
QUOTA = "GetAcceleratorQuotaStatistics"
PLENTY = {"gpuQuota": {"timeUsed": "3600s", "totalTimeAllowed": "108000s"}, "quotaRefreshTime": "2026-11-28T00:00:00Z"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    (folder / "phases").mkdir(parents=True)
    (folder / "kchain.toml").write_text(PROJECT)
    (folder / "phases" / "phase1.toml").write_text(PHASE)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "key"
    path.write_text(KEY)
    monkeypatch.setenv("KCHAIN_KEY_FILE", str(path))
    return path


def run(*words: str) -> Result:
    return CliRunner().invoke(doctor, list(words))


def checks(*words: str) -> dict[str, dict[str, Any]]:
    result = run(*words, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == found["exit_code"]
    return {check["name"]: check for check in found["checks"]} | {"exit": {"code": result.exit_code}}


def test_all_is_well_on_a_server_that_answers(weather: Weather, project: Path, key_file: Path) -> None:
    weather.on(QUOTA, PLENTY)
    found = checks("--target", weather.url)
    assert [name for name in found if name != "exit"] == ["client", "disk", "credentials", "target", "clock", "quota"]
    assert found["exit"]["code"] == 0
    assert "29.0 of 30.0 GPU hours left" in found["quota"]["found"]
    assert "ada" in found["credentials"]["found"]
    assert found["clock"]["state"] == "ok"


def test_the_table_is_for_people_and_names_the_cure(project: Path) -> None:
    result = run("--target", "http://127.0.0.1:9")
    assert result.exit_code == 2
    assert "credentials" in result.stdout
    assert "try:" in result.stdout
    assert "KCHAIN_KEY_FILE" in result.stdout


def test_no_kaggle_credentials_is_a_failure_with_a_cure(project: Path) -> None:
    found = checks()
    assert found["credentials"]["state"] == "fail"
    assert "kaggle auth login" in found["credentials"]["cure"]
    assert found["exit"]["code"] == 2
    assert "target" not in found


@pytest.mark.parametrize(
    ("answer", "name", "code"),
    [(failing(401, "no"), "credentials", 2), (html(), "target", 4), (failing(429, "slow down"), "target", 3)],
)
def test_a_target_that_does_not_answer_well_sets_the_exit_code(
    weather: Weather, project: Path, key_file: Path, answer: Any, name: str, code: int
) -> None:
    weather.on(QUOTA, answer)
    found = checks("--target", weather.url)
    assert found[name]["state"] == "fail"
    assert found["exit"]["code"] == code
    assert found[name]["cure"]


def test_a_clock_that_is_wrong_is_found_by_the_date_of_the_answer(
    weather: Weather, project: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = formatdate(time() - 3600, usegmt=True)
    weather.on(QUOTA, lambda handler: _dated(handler, late))
    found = checks("--target", weather.url)
    assert found["clock"]["state"] == "fail"
    assert "ahead" in found["clock"]["found"]
    assert found["exit"]["code"] == 2


def _dated(handler: Any, date: str) -> None:
    body = json.dumps(PLENTY).encode()
    handler.send_response_only(200)
    for name, value in {"Date": date, "Content-Type": "application/json", "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.mark.parametrize(
    ("used", "state", "code"), [("0s", "ok", 0), ("104000s", "warn", 0), ("108000s", "fail", 3), ("120000s", "fail", 3)]
)
def test_hours_that_run_out_are_told(
    weather: Weather, project: Path, key_file: Path, used: str, state: str, code: int
) -> None:
    gpu = {"timeUsed": used, "totalTimeAllowed": "108000s"}
    weather.on(QUOTA, {"gpuQuota": gpu, "quotaRefreshTime": "2026-11-28T00:00:00Z"})
    found = checks("--target", weather.url)
    assert (found["quota"]["state"], found["exit"]["code"]) == (state, code)
    assert state == "ok" or "2026-11-28" in found["quota"]["cure"]


def test_a_full_disk_is_a_failure(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(project)._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    found = checks()
    assert found["disk"]["state"] == "fail"
    assert "0.1 GB free" in found["disk"]["found"]


def test_it_works_outside_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = checks()
    assert found["client"]["state"] == "ok"
    assert found["exit"]["code"] == 2
    assert checks("--target", "local")["target"]["cure"] == "kchain init my-chain"
    assert checks("--target", "nonsense")["target"]["code"] == 2


def test_a_project_with_problems_is_an_error_like_everywhere(project: Path) -> None:
    (project / "kchain.toml").write_text("[chain]\n")
    result = run()
    assert result.exception is not None
    assert "kchain.toml" in str(result.exception)


def examined(tmp_path: Path, **environ: str) -> list[Check]:
    around = Surroundings(environ, tmp_path / "home", True)
    return examine(None, "kaggle", tmp_path, around)


def test_variables_that_lead_kaggles_own_command_astray_are_named(tmp_path: Path) -> None:
    found = examined(tmp_path, KAGGLE_API_ENVIRONMENT="LOCALHOST", KAGGLE_TOKEN="KGAT_x")
    text = "\n".join(check.found for check in found if check.name == "variables")
    assert "KAGGLE_API_ENVIRONMENT=LOCALHOST" in text
    assert "KAGGLE_TOKEN" in text
    assert "KGAT_x" not in text


@pytest.mark.skipif(os.name != "posix", reason="no such permissions elsewhere")
def test_a_key_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "home" / ".kaggle" / "kaggle.json"
    path.parent.mkdir()
    path.write_text("{}")
    path.chmod(0o644)
    (warning,) = [check for check in examined(tmp_path) if check.name == "key file"]
    assert warning.cure == f"chmod 600 {path}"
    path.chmod(0o600)
    assert not [check for check in examined(tmp_path) if check.name == "key file"]


def test_the_worst_code_counts_and_warnings_do_not() -> None:
    rows = [
        Check("a", "ok", ""),
        Check("b", "warn", ""),
        Check("c", "fail", "", code=2),
        Check("d", "fail", "", code=4),
    ]
    assert worst(rows) == 4
    assert worst(rows[:2]) == 0
    assert worst([]) == 0
