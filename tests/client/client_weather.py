"""A raw HTTP server that behaves as badly as a test asks it to, and remembers what it was sent."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kchain.client.client import Client
from kchain.client.connect import server_transport
from kchain.client.login import Credentials
from kchain.client.target import Target
from kchain.client.transport import Patience

# Short enough for tests, long enough for a busy machine to answer within.
FAST = Patience(connect=5.0, silence=1.0, answer=2.0, attempts=3, first=0.01, longest=0.3, total=20.0)
KEY = "the-key-of-this-server"

# The fixture `make_bundle`: cells and metadata to a bundle folder.
MakeBundle = Callable[..., Path]


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class _Quiet(ThreadingHTTPServer):
    """A server whose clients may leave in the middle without a word on stderr."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Weather:
    """Answers by the last part of a request's path; the last answer of a list stays."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.over = threading.Event()
        self._answers: dict[str, list[Any]] = {}
        self._server = _Quiet(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def on(self, name: str, *answers: Any) -> None:
        """A dict is JSON with status 200; (status, body, headers) is that; a function gets the handler."""
        self._answers[name] = list(answers)

    def next(self, name: str) -> Any:
        answers = self._answers.get(name, [(404, {"error": {"code": 404, "message": f"no {name}", "status": "X"}}, {})])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def calls(self, name: str) -> list[Seen]:
        return [seen for seen in self.seen if _name(seen.path) == name]

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def client(self, tmp: Path, patience: Patience = FAST) -> Client:
        """A client of this server, as user ada."""
        credentials = Credentials.key("ada", KEY, "a test")
        return Client(Target(self.url, "ada", tmp), server_transport(self.url, credentials, patience))


def _name(path: str) -> str:
    return path.partition("?")[0].rpartition("/")[2]


def _handler(weather: Weather) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                body = json.loads(raw) if raw else None
            except ValueError:
                body = raw
            weather.seen.append(Seen(self.command, self.path, dict(self.headers), body))
            answer = weather.next(_name(self.path))
            if callable(answer):
                answer(self)
            elif isinstance(answer, dict):
                send(self, 200, answer)
            else:
                send(self, *answer)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    return Handler


def send(handler: BaseHTTPRequestHandler, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    """Answer; a dict or list as JSON, text and bytes as they are."""
    headers = dict(headers or {})
    if isinstance(body, dict | list):
        headers.setdefault("Content-Type", "application/json")
        body = json.dumps(body)
    data = body.encode() if isinstance(body, str) else body
    handler.send_response(status)
    headers.setdefault("Content-Type", "text/html")
    headers.setdefault("Content-Length", str(len(data)))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


def failing(status: int, message: str, **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    """An error as the live service words it."""
    return status, {"error": {"code": status, "message": message, "status": "SOME_WORD"}}, headers


def html(status: int = 200) -> tuple[int, str, dict[str, str]]:
    return status, "<html><body>Please log in to the hotel network</body></html>", {}


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Break the connection before any answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def silent(weather: Weather) -> Callable[[BaseHTTPRequestHandler], None]:
    """Take the request and never answer."""

    def wait(handler: BaseHTTPRequestHandler) -> None:
        weather.over.wait(30)
        handler.close_connection = True

    return wait


def dripping(weather: Weather) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer whose bytes come often enough never to look silent, and never end."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.close_connection = True
        try:
            while not weather.over.wait(0.1):
                handler.wfile.write(b" ")
        except OSError:
            return

    return drip


def cut_after(count: int, whole: bytes, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """Promise a whole body and break off after `count` bytes."""

    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in {"Content-Length": str(len(whole)), "Content-Type": "application/json", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(whole[:count])
        handler.wfile.flush()
        handler.close_connection = True

    return cut
