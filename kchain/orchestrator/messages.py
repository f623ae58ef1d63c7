"""kagglesdk's request messages, found by the name of their method and filled from plain fields."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

# Short name -> (service on the wire, module of its messages).
_SERVICES = {
    "kernels": ("kernels.KernelsApiService", "kagglesdk.kernels.types.kernels_api_service"),
    "datasets": ("datasets.DatasetApiService", "kagglesdk.datasets.types.dataset_api_service"),
    "models": ("models.ModelApiService", "kagglesdk.models.types.model_api_service"),
    "blobs": ("blobs.BlobApiService", "kagglesdk.blobs.types.blob_api_service"),
    "oauth": ("security.OAuthService", "kagglesdk.security.types.oauth_service"),
    "accounts": ("users.AccountService", "kagglesdk.users.types.account_service"),
}


def service_name(service: str) -> str:
    """The service's name in an address."""
    return _SERVICES[service][0]


def build_request(service: str, method: str, fields: Mapping[str, Any]) -> Any:
    """The message of one call.

    Args:
        service: one of "kernels", "datasets", "models", "blobs", "oauth", "accounts".
        method: name on the wire, such as "GetKernel".
        fields: snake_case names; None is left out. `version` is a kernel version: it becomes the message's
            `version_label` ("v3") or, where this kagglesdk has none, part of the slug ("slug/3").
    """
    module = importlib.import_module(_SERVICES[service][1])
    message = getattr(module, f"Api{method}Request", None) or getattr(module, f"{method}Request")
    request = message()
    given = {name: value for name, value in fields.items() if value is not None and name != "version"}
    for name, value in given.items():
        setattr(request, name, value)
    version = fields.get("version")
    if version is not None:
        if has_version_label(message):
            request.version_label = f"v{version}"
        else:
            request.kernel_slug = f"{fields['kernel_slug']}/{version}"
    return request


def has_version_label(message: Any) -> bool:
    """Whether a request message can name a version; kagglesdk 0.1.37 can, by this field."""
    return hasattr(message, "version_label")
