"""kchain as a person types it, but in this process.

A Python that imports torch or Kaggle's client takes seconds of a core before it does anything. What is about a process
(signals, pipes, encodings, what is imported) starts a real one instead.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from kchain.cli import common, main


def kchain(folder: Path, *words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """`kchain …` in a folder, 200 columns wide unless COLUMNS says otherwise.

    An error that a user would see as a traceback is raised.
    """
    told = {"COLUMNS": "200", **environment}
    out, error = _stream(), _stream()
    with (
        _inside(folder),
        mock.patch.dict(os.environ, told),
        mock.patch.dict(common._typed, folder="", target=""),
        mock.patch.object(common.console, "_width", int(told["COLUMNS"])),
        mock.patch.object(sys, "argv", ["kchain", *words]),
        mock.patch.object(sys, "stdin", _stream(stdin)),
        mock.patch.object(sys, "stdout", out),
        mock.patch.object(sys, "stderr", error),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    return subprocess.CompletedProcess(["kchain", *words], code, _text(out), _text(error))


def _stream(text: str = "") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
