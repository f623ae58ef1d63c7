"""The HTTP side: routes, credentials, the Host check, and how results and refusals become responses."""

from __future__ import annotations

import base64
import hmac
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, get_type_hints

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kchain.server import blobs, datasets, kernels, models, outputs, save_kernel, things
from kchain.server.context import Context
from kchain.server.faults import Faults, Script
from kchain.server.kernels import KernelRef
from kchain.server.wire import ApiError, Json, Text, denied, error_body, name, read
from kchain.server.wire import Request as Body

# Which function answers which of Kaggle's methods. The address is POST /api/v1/{service}/{method}. A function that
# answers with a text sends the client to that address (302).
Method = Callable[[Context, str, Any], Json | str]

_KERNELS: dict[str, Method] = {
    "SaveKernel": save_kernel.save_kernel,
    "GetKernelSessionStatus": kernels.status,
    "GetKernel": kernels.get,
    "ListKernels": kernels.listing,
    "DeleteKernel": kernels.delete,
    "CancelKernelSession": kernels.cancel,
    "ListKernelSessionOutput": outputs.list_outputs,
    "ListKernelFiles": outputs.list_files,
    "DownloadKernelOutput": outputs.download,
    "GetAcceleratorQuotaStatistics": save_kernel.statistics,
}
_DATASETS: dict[str, Method] = {
    "CreateDataset": datasets.create,
    "CreateDatasetVersion": datasets.create_version,
    "CreateDatasetVersionById": datasets.create_version_by_id,
    "UpdateDatasetMetadata": datasets.update_metadata,
    "GetDatasetStatus": datasets.status,
    "GetDataset": datasets.get,
    "GetDatasetMetadata": datasets.metadata,
    "ListDatasetFiles": datasets.list_files,
    "ListDatasets": datasets.listing,
    "DeleteDataset": datasets.delete,
    "DownloadDataset": datasets.download,
}
_MODELS: dict[str, Method] = {
    "CreateModel": models.create,
    "CreateModelInstance": models.create_instance,
    "CreateModelInstanceVersion": models.create_version,
    "GetModel": models.get,
    "GetModelInstance": models.get_instance,
    "ListModels": models.listing,
    "ListModelInstances": models.list_instances,
    "ListModelInstanceVersions": models.list_versions,
    "ListModelInstanceVersionFiles": models.list_files,
    "DownloadModelInstanceVersion": models.download,
    "UpdateModel": models.update,
    "UpdateModelInstance": models.update_instance,
    "DeleteModel": models.delete,
    "DeleteModelInstance": models.delete_instance,
    "DeleteModelInstanceVersion": models.delete_version,
}
METHODS: dict[str, Method] = {
    "blobs.BlobApiService/StartBlobUpload": blobs.start,
    **{f"kernels.KernelsApiService/{method}": serve for method, serve in _KERNELS.items()},
    **{f"datasets.DatasetApiService/{method}": serve for method, serve in _DATASETS.items()},
    **{f"models.ModelApiService/{method}": serve for method, serve in _MODELS.items()},
}


# The request that each of them reads, by the type of its `asked`.
_ASKED = {method: get_type_hints(serve)["asked"] for method, serve in METHODS.items()}

_ABSOLUTE = re.compile(r"https?://([^/]*)(/.*)?", re.DOTALL)
_LOCAL_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)
_log = logging.getLogger("kchain.server")

Endpoint = Callable[[Request], Awaitable[Response]]


class Activity:
    """When the last request was; a request that is still being answered counts as now."""

    def __init__(self) -> None:
        self._open = 0
        self._last = time.monotonic()

    def begin(self) -> None:
        """A request came in."""
        self._open += 1

    def end(self) -> None:
        """Its answer is out."""
        self._open -= 1
        self._last = time.monotonic()

    def idle_seconds(self) -> float:
        """Seconds without any request."""
        return 0.0 if self._open else time.monotonic() - self._last


class FrontDoor:
    """Every request's first stop: absolute request lines, the Host check, scripted faults, activity.

    A web page that a browser shows may send requests to this port under its own host name (DNS rebinding); they are
    refused, as is anything asked of this server as if it were an open proxy.
    """

    def __init__(self, app: ASGIApp, faults: Faults, activity: Activity) -> None:
        self._app = app
        self._faults = faults
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        hosts = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
        if absolute := _ABSOLUTE.fullmatch(scope["path"]):
            hosts.append(absolute[1])
            scope["path"] = absolute[2] or "/"
            scope["raw_path"] = scope["path"].encode()
        if not hosts or not all(_LOCAL_HOST.fullmatch(host) for host in hosts):
            refusal = JSONResponse(error_body(403, "This server answers to local host names only."), 403)
            return await refusal(scope, receive, send)
        self._activity.begin()
        try:
            return await self._faults.serve(self._app, scope, receive, send)
        finally:
            self._activity.end()


def user_of(context: Context, authorization: str) -> str:
    """Who sends this Authorization header: `Basic` with user:key in base64, or `Bearer` with an access token.

    Raises:
        ApiError: 401, when the key is not this server's; 400, when the user name cannot be one.
    """
    scheme, _, value = authorization.partition(" ")
    user: str | None = None
    if scheme.lower() == "bearer":
        user = _token_user(context, value.strip())
    elif scheme.lower() == "basic":
        try:
            user = _pair_user(context, base64.b64decode(value).decode())
        except ValueError:  # neither base64 nor text
            user = None
    if user is None:
        raise ApiError(401, "Unauthenticated")
    return name(user, "user name")


def _token_user(context: Context, token: str) -> str | None:
    """Whose an access token is: `user:key` is that user's, the key alone the default user's; None with a wrong key."""
    return _pair_user(context, token if ":" in token else f"{context.user}:{token}")


def _pair_user(context: Context, pair: str) -> str | None:
    user, _, key = pair.partition(":")
    return user if hmac.compare_digest(key.encode(), context.key.encode()) else None


def _answering(serve: Endpoint) -> Endpoint:
    """`serve` with refusals, and whatever else goes wrong, as Kaggle's error bodies."""

    async def answer(request: Request) -> Response:
        try:
            return await serve(request)
        except ApiError as error:
            return JSONResponse(error_body(error.status, error.message), error.status)
        except Exception:  # a defect here must reach the client as a 500 it understands
            _log.exception("%s %s failed", request.method, request.url.path)
            return JSONResponse(error_body(500, "Internal error encountered."), 500)

    return answer


class Api:
    """The endpoints; each is named after what it serves."""

    def __init__(self, context: Context, faults: Faults, stop: Callable[[], None]) -> None:
        self._context = context
        self._faults = faults
        self._stop = stop

    def _user(self, request: Request) -> str:
        return user_of(self._context, request.headers.get("authorization", ""))

    async def method(self, request: Request) -> Response:
        """POST /api/v1/{service}/{method}: one RPC."""
        called = f"{request.path_params['service']}/{request.path_params['method']}"
        if called == "security.OAuthService/IntrospectToken":
            return JSONResponse(_introspect(self._context, read(Introspect, await request.body()).token))
        user = self._user(request)
        if called == "kernels.KernelsApiService/GetKernelSessionLogsStream":
            return await self._log(user, read(KernelRef, await request.body()))
        serve = METHODS.get(called)
        if serve is None:
            raise ApiError(404, f"Method {called} is not served here.")
        asked = read(_ASKED[called], await request.body())
        answer = await run_in_threadpool(serve, self._context, user, asked)
        return RedirectResponse(answer, 302) if isinstance(answer, str) else JSONResponse(answer)

    async def log_stream(self, request: Request) -> Response:
        """GET …/kernels/logs/stream/{owner}/{slug}[/{version}]: what `kaggle kernels logs -f` reads."""
        asked = KernelRef(
            user_name=request.path_params["owner"],
            kernel_slug=request.path_params["slug"],
            version_label=request.path_params.get("version") or request.query_params.get("versionLabel", ""),
        )
        return await self._log(self._user(request), asked)

    async def _log(self, user: str, asked: KernelRef) -> Response:
        context = self._context

        def session() -> Any:
            return kernels.session_of(context, kernels.find(context, user, asked)[1])

        row = await run_in_threadpool(session)
        folder = context.sessions.folder(row["id"])
        if kernels.is_over(row):
            return Response(await run_in_threadpool(outputs.as_array, folder), media_type="application/json")

        def is_over() -> bool:
            now = context.db.one("SELECT * FROM sessions WHERE id = ?", row["id"])
            return now is None or kernels.is_over(now)

        stream = outputs.events(folder, is_over, context.profile.log_cut_seconds)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    async def download(self, request: Request) -> Response:
        """GET /download/…: a signed address; no credentials, Range requests answered with 206."""
        path, query = request.path_params["path"], request.query_params
        if not self._context.is_signed(path, query.get("expires", ""), query.get("signature", "")):
            raise denied("storage.objects.get")
        kind, _, rest = path.partition("/")
        refuses = kind == "output" and self._context.profile.refuse_authorized_output
        if refuses and "authorization" in request.headers:
            raise ApiError(401, "A signed address takes no Authorization header.")
        if kind in ("output", "redirected"):
            session, _, file = rest.partition("/")
            return FileResponse(await run_in_threadpool(outputs.file, self._context, session, file))
        return FileResponse(await run_in_threadpool(things.served, self._context, kind, rest))

    async def upload(self, request: Request) -> Response:
        """PUT /upload/{token}: the bytes of one blob, whole or resumed."""
        return await blobs.receive(self._context, request)

    async def ping(self, request: Request) -> Response:
        """GET /kchain/ping: proof that this is the server of its endpoint file."""
        self._user(request)
        context = self._context
        return JSONResponse({"pid": os.getpid(), "root": str(context.root), "profile": context.profile.name})

    async def fault(self, request: Request) -> Response:
        """POST /kchain/faults {"faults": […]}: script what goes wrong next (faults.py)."""
        self._user(request)
        self._faults.follow(read(Script, await request.body()))
        return JSONResponse({})

    async def stop(self, request: Request) -> Response:
        """POST /kchain/stop: end the server and its running sessions."""
        self._user(request)
        self._stop()
        return JSONResponse({})


class Introspect(Body):
    token: Text = ""


def _introspect(context: Context, token: str) -> Json:
    user = _token_user(context, token)
    if user is None:
        return {"active": False}
    return {
        "active": True,
        "username": name(user, "user name"),
        "userId": 1,
        "clientId": "kchain",
        "scope": "resources.admin:*",
    }


def make(context: Context, activity: Activity, stop: Callable[[], None]) -> ASGIApp:
    """The ASGI application.

    Args:
        context: what it serves.
        activity: told of every request.
        stop: called when somebody asks the server to end.
    """
    faults = Faults()
    api = Api(context, faults, stop)
    log = "/v1/kernels/logs/stream/{owner}/{slug}"
    table: list[tuple[str, Endpoint, str]] = [
        *((prefix + log + tail, api.log_stream, "GET") for prefix in ("/api", "") for tail in ("", "/{version}")),
        *((prefix + "/v1/{service}/{method}", api.method, "POST") for prefix in ("/api", "")),
        ("/download/{path:path}", api.download, "GET"),
        ("/upload/{token}", api.upload, "PUT"),
        ("/kchain/ping", api.ping, "GET"),
        ("/kchain/faults", api.fault, "POST"),
        ("/kchain/stop", api.stop, "POST"),
    ]
    routes = [Route(path, _answering(serve), methods=[verb]) for path, serve, verb in table]
    return FrontDoor(Starlette(routes=routes), faults, activity)
