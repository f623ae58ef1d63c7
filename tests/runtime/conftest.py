"""Fixtures of the runtime's tests: the tiny base model, a session's folders, and two phases that really ran."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime_tiny import (
    EOS,
    EOS_ID,
    Events,
    build_model,
    build_tokenizer,
    events_in,
    make_root,
    mount,
    parameters,
    run_session,
    second_phase,
)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a two-layer Qwen2 with random fp16 weights and its tokenizer."""
    folder = build_model(tmp_path_factory.mktemp("base"))
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(base: Path) -> Any:
    """The tokenizer as the runtime loads it: pad forced to EOS."""
    from kchain.runtime import tokenizer

    return tokenizer.load(base, {"token": EOS, "id": EOS_ID})


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """A session sets environment variables; no test sees those of another."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def kaggle(base: Path, tmp_path: Path) -> Path:
    """The root of a session that has not begun."""
    root = make_root(tmp_path / "kaggle", base)
    os.environ["KCHAIN_KAGGLE_ROOT"] = str(root)
    return root


@pytest.fixture(scope="session")
def two_phases(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The outputs of two phases that really ran, the second on the first; session.log beside the first's folders."""
    before = os.environ.get("KCHAIN_KAGGLE_ROOT")
    first = make_root(tmp_path_factory.mktemp("first"), base)
    os.environ["KCHAIN_KAGGLE_ROOT"] = str(first)
    with (first / "session.log").open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        run_session(parameters())
    second = make_root(tmp_path_factory.mktemp("second"), base)
    mount(second, "notebooks/me/one", first / "working")
    os.environ["KCHAIN_KAGGLE_ROOT"] = str(second)
    run_session(second_phase())
    if before is not None:
        os.environ["KCHAIN_KAGGLE_ROOT"] = before
    return first / "working", second / "working"


@pytest.fixture
def events(capfd: pytest.CaptureFixture[str]) -> Events:
    """The events printed since the last call."""

    def read() -> list[dict[str, Any]]:
        return events_in(capfd.readouterr().out)

    return read
