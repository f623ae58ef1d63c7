"""Training processes that need not import torch first: they are forked from one that has it imported.

In `with warm():`, `sys.executable` is a program that hands the start of a training process, with its streams, folder
and environment, to that one, and whose exit is its exit. Everything else it is asked to run it runs with the real
Python. As a program this file is the process that forks: `runtime_warm.py SOCKET`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys
words = sys.argv[1:]
if words[0] != "-m" or not words[1].endswith(".worker"):
    os.execv("{python}", ["{python}", *words])
with socket.socket(socket.AF_UNIX) as server:
    server.connect("{socket}")
    told = json.dumps([words[1], words[2:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(told).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(told)
    status = int(server.recv(16) or b"1")
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
sys.exit(status)
"""
# What a training process imports, but for the modules of the runtime, which a test may have changed.
IMPORTS = ("torch", "transformers.trainer", "peft", "safetensors.torch")


@contextlib.contextmanager
def warm() -> Iterator[None]:
    """Start training processes by forking."""
    with mock.patch.object(sys, "executable", str(_started()[0])):
        yield


@functools.cache
def _started() -> tuple[Path, Any, Any]:
    """The program, and what lives as long as this process: the one that forks, and the folder."""
    folder = tempfile.TemporaryDirectory(prefix="warm-")
    program, place = Path(folder.name, "python"), Path(folder.name, "socket")
    program.write_text(PROGRAM.format(python=sys.executable, socket=place), encoding="utf-8")
    program.chmod(0o700)
    command = [sys.executable, __file__, str(place)]
    one = {**os.environ, **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}}
    process = subprocess.Popen(command, env=one, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return program, process, folder


def serve(place: str) -> None:
    """Fork a process for each request, until whoever started this is gone."""
    for name in IMPORTS:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in (ready := select.select([listener, sys.stdin], [], [])[0]):
            assert ready
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _attend(connection)
            connection.close()


def _attend(connection: socket.socket) -> None:
    """Fork the asked process, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(connection, 4, 3)
    told = b""
    while len(told) < int.from_bytes(size, "big"):
        told += connection.recv(2**16)
    child = os.fork()
    if child == 0:
        connection.close()
        _become(streams, *json.loads(told))
    for stream in streams:
        os.close(stream)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(streams: list[int], module: str, words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Run a module as `python -m` does."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *words]
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
    status = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
