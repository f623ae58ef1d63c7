"""The server process: bind, recover, answer, and leave in good order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn

from kchain import files
from kchain.errors import InputError, NotNow
from kchain.server import blobs, launch, profile, trees
from kchain.server.app import Activity, make
from kchain.server.context import Context
from kchain.server.db import Database
from kchain.server.sessions import Sessions

HOST = "127.0.0.1"
_GRACE_SECONDS = 2
_LOOK_SECONDS = 0.5
_LEFTOVER_SECONDS = 24 * 3600


def serve(
    root: Path,
    port: int,
    key_file: Path,
    profile_name: str | None,
    idle_seconds: float | None,
    announce: Callable[[Context], None] | None = None,
    leave: Callable[[], None] | None = None,
) -> None:
    """Serve `root` until SIGINT, SIGTERM, a stop request, or `idle_seconds` without a request and without a session.

    Args:
        port: 0 for any free one.
        key_file: made when missing.
        profile_name: overrides profile.json in the root.
        idle_seconds: None to stay.
        announce: called once the server is about to answer.
        leave: waited for in a thread of its own; the server ends when it returns.

    Raises:
        NotNow: another server runs in this root.
        InputError: the port is taken, or the key file or profile.json is bad.
    """
    # Either signal ends the server in good order; uvicorn hands both on once it has closed its connections.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    root = launch.made(root)
    try:
        with launch.owned(root):
            _serve_locked(root, port, key_file, profile_name, idle_seconds, announce, leave)
    except BlockingIOError as error:
        raise NotNow(f"a server is running in {root}", "end it with: kchain serve --stop") from error


def _serve_locked(
    root: Path,
    port: int,
    key_file: Path,
    profile_name: str | None,
    idle_seconds: float | None,
    announce: Callable[[Context], None] | None,
    leave: Callable[[], None] | None,
) -> None:
    chosen = profile.load(root, profile_name)
    key = launch.ensure_key(key_file)
    listener = _bind(port)
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    db = Database(root)
    sessions = Sessions(db, root, chosen)
    context = Context(root, key, key_file.resolve(), chosen.user, address, chosen, db, sessions)
    # What uploads and publishing left half done when their process died; younger folders may be in use.
    for folder in (*root.glob(".new-*"), *root.glob(".upload-*")):
        if folder.stat().st_mtime < time.time() - _LEFTOVER_SECONDS:
            trees.remove_tree(folder)
    blobs.sweep(context)
    sessions.start()
    try:
        said = {"url": address, "pid": os.getpid(), "key_file": str(key_file.resolve()), "profile": chosen.name}
        files.write(root / launch.ENDPOINT, json.dumps(said))
        if announce is not None:
            announce(context)
        with contextlib.suppress(KeyboardInterrupt):
            _answer(context, listener, idle_seconds, leave)
    finally:
        (root / launch.ENDPOINT).unlink(missing_ok=True)
        sessions.stop()


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"port {port} cannot be used: {error.strerror}", "choose another with --port, or 0 for any"
        ) from error
    return listener


def _answer(
    context: Context, listener: socket.socket, idle_seconds: float | None, leave: Callable[[], None] | None
) -> None:
    """Answer requests until the server is to end."""
    activity = Activity()

    def end() -> None:
        server.should_exit = True

    config = uvicorn.Config(
        make(context, activity, end),
        http="h11",  # it hands an absolute request line on as it came, host included
        lifespan="off",
        log_level="critical",  # defects are logged by app.py; a cut stream is none
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = uvicorn.Server(config)

    def end_after(leave: Callable[[], None]) -> None:
        leave()
        end()

    if leave is not None:
        threading.Thread(target=end_after, args=(leave,), daemon=True).start()

    async def run() -> None:
        leaving = asyncio.create_task(_leave_when_idle(context, activity, idle_seconds, end))
        await server.serve(sockets=[listener])
        leaving.cancel()

    asyncio.run(run())


async def _leave_when_idle(
    context: Context, activity: Activity, seconds: float | None, end: Callable[[], None]
) -> None:
    while seconds is not None:
        await asyncio.sleep(min(_LOOK_SECONDS, seconds))
        if activity.idle_seconds() >= seconds and not await asyncio.to_thread(context.sessions.busy):
            end()
