"""A push, by the code behind `kaggle kernels push`, over kchain's own connection.

`import kaggle` logs in: it looks for credentials everywhere, may ask the network without a time-out, prints, makes a
folder and may end the program. So the package is put in place without running its `__init__`, which does all of that.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from kchain.client import sdk
from kchain.client.answers import Pushed, fault_of
from kchain.client.refusals import LOOK, redact, refusal
from kchain.client.translate import Call, foreign_errors
from kchain.client.transport import Door, Transport
from kchain.errors import Ambiguous, InputError, PushRefused

# Standard output belongs to the whole process: whoever holds it back does so alone.
_ALONE = threading.RLock()
_INVALID = {
    "invalid_dataset_sources": "data set",
    "invalid_kernel_sources": "kernel",
    "invalid_model_sources": "model",
    "invalid_competition_sources": "competition",
    "invalid_tags": "tag",
}


class _Metadata(BaseModel):
    id: str


def save_kernel(transport: Transport, owner: str, folder: Path, timeout: int) -> Pushed:
    """Push the bundle in `folder`, once.

    Args:
        transport: the target.
        owner: whose kernel it is.
        folder: holds `kernel-metadata.json` and the notebook it names.
        timeout: seconds after which the target ends the session.

    Raises:
        SessionCap, QuotaUsedUp, StillRunning, NotNow, RateLimited: refused for now.
        PushRefused, CredentialsError, InputError: refused for good, or not sent at all.
        Ambiguous: it was sent, and nothing tells whether it was accepted.
    """
    kernel = _kernel_of(folder)
    door = transport.new_door()
    call = transport.call_for(f"the push of {kernel}", lambda: door.sent)
    with foreign_errors(call), _ALONE, contextlib.redirect_stdout(io.StringIO()):
        answer = _pusher(transport, door, owner).kernels_push(str(folder), str(timeout))
        fields = {name: getattr(answer, name) for name in ("error", "ref", "url", "version_number", *_INVALID)}
    return _judge(fields, kernel, call)


def _kernel_of(folder: Path) -> str:
    path = folder / "kernel-metadata.json"
    try:
        return _Metadata.model_validate_json(path.read_bytes()).id
    except (OSError, ValidationError) as error:
        what = fault_of(error) if isinstance(error, ValidationError) else error.strerror or error
        raise InputError(f"{path}: cannot be pushed: {what}", "kchain render writes it") from None


def _judge(fields: dict[str, Any], kernel: str, call: Call) -> Pushed:
    """What the answer to SaveKernel means; HTTP 200 alone means nothing."""
    version = fields["version_number"]
    version = version if type(version) is int and version > 0 else None
    said = redact(str(fields["error"] or ""), call.secrets)
    if said and version is not None:
        raise Ambiguous(f"{call.doing}: refused and accepted at once: {said}", LOOK)
    if said:
        raise refusal(said, call.doing)
    if version is None:
        raise Ambiguous(f"{call.doing}: {call.who} named no version", LOOK)
    reached = str(fields["ref"] or kernel).removeprefix("/code/").strip("/")
    if reached.lower() != kernel.lower():
        raise PushRefused(
            f"{call.doing} went to {reached} instead: the address is made from the title",
            "give the phase a title that makes the address of `id`; kchain lint finds this before a push",
        )
    invalid = (f"{kind} {source}" for name, kind in _INVALID.items() for source in fields[name] or ())
    return Pushed(version, str(fields["url"] or ""), tuple(invalid))


def _pusher(transport: Transport, door: Door, owner: str) -> Any:
    """A KaggleApi that talks through `door` and knows no credentials of its own."""

    with _ALONE, _quiet_import():
        if "kaggle" not in sys.modules:
            _place_package()
        base: Any = sdk.push_class()

    class Pusher(base):  # type: ignore[misc]
        def build_kaggle_client(self) -> Any:
            return transport.kaggle_client(door)

    pusher = Pusher()
    pusher.config_values = {"username": owner}
    return pusher


def _place_package() -> None:
    """Put the kaggle package in place without its login."""
    spec = importlib.util.find_spec("kaggle")
    if spec is None:
        raise InputError("the kaggle package is not installed", "pip install kaggle")
    package: Any = importlib.util.module_from_spec(spec)
    package.__version__ = importlib.metadata.version("kaggle")
    sys.modules["kaggle"] = package
    try:
        (api,) = sdk.find("kaggle", "kaggle.api.kaggle_api_extended", "KaggleApi")
    except BaseException:
        del sys.modules["kaggle"]
        raise
    package.KaggleApi, package.api = api, api()


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    """No output, no debug log, and no folder made in the user's home while the module is read."""
    changed = ("KAGGLE_CONFIG_DIR", "VERBOSE", "VERBOSE_OUTPUT")
    before = {name: os.environ.pop(name, None) for name in changed}
    os.environ["KAGGLE_CONFIG_DIR"] = tempfile.gettempdir()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
