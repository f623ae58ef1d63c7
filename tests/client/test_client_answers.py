"""Values and lists: what the client hands on, and that nothing of it is heavy, secret or endless."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
from client_weather import KEY

from kchain.client.answers import (
    DatasetFile,
    Kernel,
    LogLine,
    OutputFile,
    Outputs,
    Page,
    Pushed,
    Quota,
    SizePage,
    Status,
    StatusAnswer,
)
from kchain.client.client import all_pages, split_ref
from kchain.client.login import Credentials
from kchain.errors import Unreachable

VALUES = [
    Pushed(1, "u"),
    Kernel(1, "{}"),
    Status("RUNNING"),
    OutputFile("a", "http://x/a?sig=secret"),
    Outputs((), ""),
    LogLine("stdout", 0.0, "x"),
    Quota(0, 0, 0),
    DatasetFile("a", 1),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_answers_do_not_change_and_show_no_signed_address(value: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, "other")
    assert "secret" not in repr(value)


@pytest.mark.parametrize(("used", "reserved", "free"), [(0, 0, 100), (60, 30, 10), (90, 30, 0), (200, 0, 0)])
def test_what_running_sessions_hold_is_not_free(used: float, reserved: float, free: float) -> None:
    assert Quota(used, reserved, 100.0).gpu_free == free


def test_a_list_ends_at_its_last_page() -> None:
    pages = {"": Page(nextPageToken="b"), "b": Page(nextPageToken="c"), "c": Page()}
    assert list(all_pages("x", pages.__getitem__)) == list(pages.values())


@pytest.mark.parametrize("tokens", [["a", "a"], ["a", "b", "a"]])
def test_a_token_that_comes_again_is_an_error(tokens: list[str]) -> None:
    replies = iter([Page(nextPageToken=token) for token in tokens])
    with pytest.raises(Unreachable, match="without end"):
        list(all_pages("the files", lambda token: next(replies)))


def test_pages_that_always_name_another_one_are_an_error_too() -> None:
    count = iter(range(10**9))
    with pytest.raises(Unreachable, match="without end"):
        for _ in all_pages("the files", lambda token: Page(nextPageToken=f"t{next(count)}")):
            continue
    assert next(count) < 100_000


@pytest.mark.parametrize(
    ("page", "due"),
    [({}, []), ({"files": None}, []), ({"files": {}}, []), ({"files": [{"name": "a"}, None, "x"]}, ["a"])],
)
def test_lists_that_are_none_are_empty(page: dict[str, Any], due: list[str]) -> None:
    assert [file.name for file in SizePage.model_validate(page).files] == due


@pytest.mark.parametrize(
    "word", ["COMPLETE", "complete", "KernelWorkerStatus.COMPLETE", "KERNEL_WORKER_STATUS_COMPLETE"]
)
def test_a_status_is_one_word_however_it_is_written(word: str) -> None:
    assert StatusAnswer.model_validate({"status": word, "unknown": [1]}).status == "COMPLETE"


def test_an_address_has_two_parts() -> None:
    assert split_ref("ada/first-phase") == ("ada", "first-phase")


def test_credentials_name_where_they_are_from() -> None:
    assert Credentials.key("ada", KEY, "a file").where == "a file"
    assert not Credentials.key("ada", KEY, "a file").renew()


@pytest.mark.parametrize(
    "module",
    [
        *(f"client.{name}" for name in ("client", "answers", "target", "log", "refusals")),
        *(f"orchestrator.judging.{name}" for name in ("gates", "advice", "adapter", "judge")),
    ],
)
def test_what_every_command_may_import_is_light(module: str) -> None:
    heavy = "{'kaggle', 'kagglesdk', 'requests', 'torch', 'transformers', 'jupytext', 'starlette'}"
    program = f"import sys, kchain.{module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"
