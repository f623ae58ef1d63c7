"""Scripted faults, so that tests can meet on one machine what a network and a busy service do.

POST /kchain/faults with the server's key and {"faults": [{"method": "SaveKernel", "kind": "500", "calls": 2}, …]}
replaces the script. A fault applies to the next `calls` requests of its method (after letting `skip` pass), then is
spent. Methods are Kaggle's names, or "LogStream", "Download", "Upload", or "*" for any of them. Kinds:

* an HTTP status from 400 ("429", "500", "503", …): that status with Kaggle's error body;
* "html", "empty": status 200 with a page where JSON was due, or with nothing;
* "reset": the connection is broken before any answer; "hang": no answer for `seconds`, then the connection breaks;
* "drip": the true answer, its bytes one by one over `seconds`;
* "cut": the first half of the true answer, then a broken connection;
* "commit-then-<one of: status, html, empty, reset, hang>": the request takes effect, but its answer is replaced so.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, ConfigDict, field_validator
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kchain.server.wire import error_body

_COMMIT = "commit-then-"
_KINDS = ("html", "empty", "reset", "hang")
_PREFIXES = {"/kernels/logs/stream/": "LogStream", "/download/": "Download", "/upload/": "Upload"}


class Fault(BaseModel):
    """One line of the script.

    Attributes:
        calls: requests still to be met by it.
        skip: requests of its method to let pass first.
        seconds: how long "hang" and "drip" take.
        message: the text of an HTTP status's error body.
    """

    model_config = ConfigDict(extra="forbid")

    method: str
    kind: str
    calls: int = 1
    skip: int = 0
    seconds: float = 1.0
    message: str = "Scripted fault."

    @field_validator("kind")
    @classmethod
    def _known(cls, given: str) -> str:
        kind = given.removeprefix(_COMMIT)
        if (kind.isdigit() and int(kind) >= 400) or kind in _KINDS or given in ("drip", "cut"):
            return given
        raise ValueError(f"{given!r} is not a kind of fault")


class Script(BaseModel):
    """The body of POST /kchain/faults."""

    faults: list[Fault]


class Faults:
    """The script, and the requests that meet it."""

    def __init__(self) -> None:
        self._script: list[Fault] = []

    def follow(self, script: Script) -> None:
        """Replace the script."""
        self._script = script.faults

    def _next(self, path: str) -> Fault | None:
        if path.startswith("/kchain/"):
            return None
        method = next((method for prefix, method in _PREFIXES.items() if prefix in path), path.rpartition("/")[2])
        for fault in self._script:
            if fault.method in (method, "*") and fault.calls > 0:
                if fault.skip > 0:
                    fault.skip -= 1
                    return None
                fault.calls -= 1
                return fault
        return None

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let `app` answer, or the fault that is due."""
        fault = self._next(scope["path"])
        if fault is None:
            return await app(scope, receive, send)
        if fault.kind == "drip":
            return await app(scope, receive, _dripping(send, fault.seconds))
        if fault.kind == "cut":
            return await app(scope, receive, _cutting(receive, send))
        if fault.kind.startswith(_COMMIT):
            await app(scope, receive, _swallow)
        return await _answer(fault, scope, receive, send)


async def _answer(fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
    kind = fault.kind.removeprefix(_COMMIT)
    if kind in ("reset", "hang"):
        await asyncio.sleep(fault.seconds if kind == "hang" else 0)
        return _break(receive)
    response: Response
    if kind == "html":
        response = HTMLResponse("<html><body>Bad gateway</body></html>")
    elif kind == "empty":
        response = Response(b"", media_type="application/json")
    else:
        response = JSONResponse(error_body(int(kind), fault.message), int(kind))
    return await response(scope, receive, send)


async def _swallow(message: Message) -> None:
    """Send nothing: the effect was wanted, not the answer."""


def _break(receive: Receive) -> None:
    # ASGI has no word for "abort"; uvicorn's request cycle, whose method `receive` is, holds the connection.
    receive.__self__.transport.abort()  # type: ignore[attr-defined]


def _dripping(send: Send, seconds: float) -> Send:
    async def drip(message: Message) -> None:
        body = message.get("body", b"")
        if message["type"] != "http.response.body" or not body:
            return await send(message)
        for position in range(len(body)):
            await asyncio.sleep(seconds / len(body))
            await send({"type": message["type"], "body": body[position : position + 1], "more_body": True})
        return await send({"type": message["type"], "body": b"", "more_body": message.get("more_body", False)})

    return drip


def _cutting(receive: Receive, send: Send) -> Send:
    async def cut(message: Message) -> None:
        body = message.get("body", b"")
        if message["type"] != "http.response.body":
            return await send(message)
        await send({"type": message["type"], "body": body[: len(body) // 2], "more_body": True})
        await asyncio.sleep(0.05)  # let the half go out
        return _break(receive)

    return cut
