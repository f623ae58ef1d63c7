"""Kaggle's own packages: every name of theirs that kchain builds on, private ones included, is looked up here.

A release that moved one is named, with what to install instead, before anything is sent.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from kchain import __version__
from kchain.errors import InputError

# What this kchain was tried with: the first release, and the one after the last.
KNOWN = {"kaggle": ("2.2.5", "2.3"), "kagglesdk": ("0.1.38", "0.2")}
EXPECTED = {package: f"{package}>={first},<{after}" for package, (first, after) in KNOWN.items()}
# Short name -> (service on the wire, module of its messages).
_SERVICES = {
    "kernels": ("kernels.KernelsApiService", "kagglesdk.kernels.types.kernels_api_service"),
    "datasets": ("datasets.DatasetApiService", "kagglesdk.datasets.types.dataset_api_service"),
    "models": ("models.ModelApiService", "kagglesdk.models.types.model_api_service"),
    "blobs": ("blobs.BlobApiService", "kagglesdk.blobs.types.blob_api_service"),
    "oauth": ("security.OAuthService", "kagglesdk.security.types.oauth_service"),
    "accounts": ("users.AccountService", "kagglesdk.users.types.account_service"),
}


def find(package: str, place: str, *names: str) -> list[Any]:
    """Names out of a module of Kaggle's.

    Args:
        package: "kaggle" or "kagglesdk".
        place: the module's dotted name.

    Raises:
        InputError: the package is not installed, or this release has not all of them.
    """
    try:
        return _of(importlib.import_module(place), package, place, *names)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise InputError(f"the package {package} is not installed", f'pip install "{EXPECTED[package]}"') from None
        raise InputError(*_unknown(package, place)) from error


def _of(thing: Any, package: str, place: str, *names: str) -> list[Any]:
    missing = [name for name in names if not hasattr(thing, name)]
    if missing:
        raise InputError(*_unknown(package, f"{', '.join(missing)} in {place}"))
    return [getattr(thing, name) for name in names]


def _unknown(package: str, missing: str) -> tuple[str, str]:
    """What is wrong with a release that lacks something, and what to do."""
    return (
        f"this {package} ({importlib.metadata.version(package)}) is not one kchain knows: it has no {missing}; "
        f"expected {EXPECTED[package]}",
        f'pip install "{EXPECTED[package]}"',
    )


def client_at(base: str) -> Any:
    """kagglesdk's client for an address; it looks for no credentials of its own."""
    client, env = find("kagglesdk", "kagglesdk.kaggle_client", "KaggleClient", "KaggleEnv")
    made = client(env=env.PROD, user_agent=f"kchain/{__version__}")
    http = made.http_client()
    _of(http, "kagglesdk", type(http).__name__, "_signed_in", "_endpoint", "_init_session", "_session", "call")
    http._signed_in = True
    http._endpoint = base
    http._init_session()
    return made


def session_of(client: Any) -> Any:
    """The `requests.Session` that carries a client's calls."""
    return client.http_client()._session


def service_name(service: str) -> str:
    """The service's name in an address."""
    return _SERVICES[service][0]


def message(service: str, name: str) -> Any:
    """A message or enum of a service's module, by its name."""
    return find("kagglesdk", _SERVICES[service][1], name)[0]


def build_request(service: str, method: str, fields: Mapping[str, Any]) -> Any:
    """The message of one call.

    Args:
        service: one of "kernels", "datasets", "models", "blobs", "oauth", "accounts".
        method: name on the wire, such as "GetKernel".
        fields: snake_case names; None is left out. `version` is a kernel version: it becomes the message's
            `version_label` ("v3").
    """
    prefix = "" if service in ("oauth", "accounts") else "Api"
    (kind,) = find("kagglesdk", _SERVICES[service][1], f"{prefix}{method}Request")
    request = kind()
    given = {name: value for name, value in fields.items() if value is not None}
    if version := given.pop("version", None):
        given["version_label"] = f"v{version}"
    for name, value in given.items():
        _of(request, "kagglesdk", type(request).__name__, name)
        setattr(request, name, value)
    return request


def push_class() -> Any:
    """The class behind `kaggle kernels push`, whose connection a subclass may replace."""
    (pusher,) = find("kaggle", "kaggle.api.kaggle_api_extended", "KaggleApi")
    _of(pusher, "kaggle", "KaggleApi", "build_kaggle_client", "kernels_push")
    return pusher


def check() -> None:
    """Look whether the installed kagglesdk has what every command needs.

    Raises:
        InputError: it has not.
    """
    session_of(client_at("https://api.kaggle.com"))
    for service in ("kernels", "datasets", "models"):
        find("kagglesdk", _SERVICES[service][1])
    build_request("kernels", "GetKernelSessionStatus", {"user_name": "a", "kernel_slug": "b", "version": 1})
