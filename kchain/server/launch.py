"""Start a server on demand, detached from the terminal; find, ask and stop the one that runs in a folder.

One server per root: it holds an OS lock on `server.lock` for as long as it lives, and says where it answers in
`server.json`. Nothing here imports starlette, uvicorn or papermill.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain import files
from kchain.errors import InputError, Unreachable, need

ENDPOINT, LOCK, START_LOCK, KEY, LOG = "server.json", "server.lock", "start.lock", "key", "server.log"
# What the server and its runner import, and the core install lacks.
NEEDED = ("ipykernel", "papermill", "psutil", "starlette", "uvicorn")
IDLE_SECONDS = 60.0
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_OWN_SECONDS = 2.0
_ANSWER_SECONDS = 10.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Endpoint:
    """Where a server answers.

    Attributes:
        url: "http://127.0.0.1:port".
        key: what goes after the user name in Basic credentials, or alone as a Bearer token.
        pid: the server's process.
    """

    url: str
    key: str
    pid: int = 0


def ensure_running(
    root: Path,
    *,
    profile: str | None = None,
    switches: dict[str, Any] | None = None,
    idle_seconds: float = IDLE_SECONDS,
) -> Endpoint:
    """The server of `root`; started when none runs there.

    A server that runs there already is taken as it is, whatever its profile.

    Args:
        root: its folder; made when missing.
        profile: "machine" or "like-kaggle"; None takes what `profile.json` in the root says, else "machine". With
            `switches` it is written there.
        switches: the profile's switches to change (profile.py).
        idle_seconds: a server started here leaves after so long without a request and without a session.

    Raises:
        InputError: the server cannot run here, or there is no such profile.
        Unreachable: it did not come up.
    """
    root = made(root)
    with files.locked(root / START_LOCK):
        endpoint = find(root)
        if endpoint is not None:
            return endpoint
        if switches is not None:
            write_profile(root, profile or "machine", switches)
        need("train", *NEEDED)
        return _await(root, _spawn(root, profile, "--idle-seconds", str(idle_seconds)))


@contextlib.contextmanager
def held(root: Path, profile: str, environment: dict[str, str]) -> Iterator[Endpoint]:
    """A server of `root` that lives no longer than this context, nor than this process, however that ends.

    One that runs there already is ended first, its sessions with it.

    Args:
        root: its folder; made when missing.
        profile: "machine" or "like-kaggle".
        environment: variables that it and its sessions get beside those of this process.

    Raises:
        InputError: the server cannot run here, or there is no such profile.
        Unreachable: it did not come up, or the earlier one did not end.
    """
    root = made(root)
    stop(root)
    with files.locked(root / START_LOCK):
        need("train", *NEEDED)
        # Its stdin is a pipe that only this process holds: it reads the end of it when this process is gone.
        process = _spawn(root, profile, "--until-eof", stdin=subprocess.PIPE, env=os.environ | environment)
        endpoint = _await(root, process)
    try:
        yield endpoint
    finally:
        stop(root)
        with process:  # closes the pipe
            pass


def made(root: Path) -> Path:
    """The real path of a server's folder; it is made, for its owner only, where it is missing.

    Raises:
        InputError: no server runs on this system.
    """
    if sys.platform == "win32":
        raise InputError("the local server runs on Linux and macOS only", "use --target kaggle")
    root = root.resolve()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return root


def _await(root: Path, process: subprocess.Popen[bytes]) -> Endpoint:
    """The server that was just started, once it answers."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        endpoint = find(root)
        if endpoint is not None:
            return endpoint
        if process.poll() is not None:
            break
        time.sleep(_LOOK_SECONDS)
    lines = (root / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    said = lines[-1] if lines else "it said nothing"
    raise Unreachable("the local server did not start", f"its last words: {said} (all of them: {root / LOG})")


def write_profile(root: Path, profile: str, switches: dict[str, Any]) -> None:
    """Make `profile` with these switches the one that servers of this root use.

    Raises:
        InputError: no such profile or switch.
    """
    from kchain.server.profile import FILE, named

    named(profile, **switches)
    files.write(root / FILE, json.dumps({"name": profile, **switches}, indent=2))


def find(root: Path) -> Endpoint | None:
    """The server that answers for `root` now, or None."""
    if not _is_owned(root):
        return None  # also: never show the key to whoever has a dead server's port now
    try:
        found = json.loads((root / ENDPOINT).read_text(encoding="utf-8"))
        endpoint = Endpoint(found["url"], Path(found["key_file"]).read_text(encoding="utf-8").strip(), found["pid"])
        alive = control(endpoint, "ping")
    except (OSError, ValueError, KeyError, Unreachable):
        return None
    return endpoint if alive["root"] == str(root.resolve()) else None


def _is_owned(root: Path) -> bool:
    try:
        with files.locked(root / LOCK, wait=0):
            return False
    except BlockingIOError:
        return True


def control(endpoint: Endpoint, action: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the server itself, not what it emulates: "ping", "stop", or "faults" with {"faults": […]} (faults.py).

    Raises:
        Unreachable: it does not answer, or refuses.
    """
    request = urllib.request.Request(
        f"{endpoint.url}/kchain/{action}", headers={"Authorization": f"Bearer {endpoint.key}"}
    )
    if action != "ping":
        request.data = json.dumps(body or {}).encode()
        request.add_header("Content-Type", "application/json")
    # No proxy: whoever points the kaggle command here with HTTP_PROXY means that command.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_ANSWER_SECONDS) as response:
            answer: dict[str, Any] = json.load(response)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise Unreachable(f"the server at {endpoint.url} does not answer: {error}") from error
    return answer


def stop(root: Path) -> bool:
    """End the server of `root`, its running sessions with it; queued ones wait for the next. False: none was running.

    Raises:
        Unreachable: it was asked, but is still there.
    """
    endpoint = find(root)
    if endpoint is None:
        return False
    control(endpoint, "stop")
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline:
        if not _is_owned(root):
            return True
        time.sleep(_LOOK_SECONDS)
    raise Unreachable(f"the server (process {endpoint.pid}) does not end", f"end it by hand: kill {endpoint.pid}")


def ensure_key(path: Path) -> str:
    """The key in a file; the file is made, readable for its owner only, when missing.

    Raises:
        InputError: the file cannot be read, or is empty.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_key(path)
    except OSError as error:
        raise InputError(f"the key file {path} cannot be made: {error.strerror}") from error
    key = secrets.token_hex(20)
    with os.fdopen(handle, "w") as file:
        file.write(key + "\n")
    return key


def _read_key(path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"the key file {path} cannot be read: {error.strerror}") from error
    if not key:
        raise InputError(f"the key file {path} is empty", "delete it, and a new key is made")
    return key


@contextlib.contextmanager
def owned(root: Path) -> Iterator[None]:
    """Hold a root as its server, for as long as the server lives.

    Raises:
        BlockingIOError: another server does, and not just a process that looks whether one is there.
    """
    # Whoever looks for a server holds the lock for a moment.
    with files.locked(root / LOCK, wait=_OWN_SECONDS):
        yield


def _spawn(
    root: Path,
    profile: str | None,
    *options: str,
    stdin: int = subprocess.DEVNULL,
    env: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "kchain.server", "--root", str(root), *options]
    if profile is not None:
        command += ["--profile", profile]
    with (root / LOG).open("wb") as log:
        return subprocess.Popen(command, stdin=stdin, stdout=log, stderr=log, start_new_session=True, env=env)
