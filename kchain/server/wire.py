"""Kaggle's words on the wire: error bodies, times, durations, page tokens, references, slugs."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from slugify import slugify

Item = TypeVar("Item")
Json = dict[str, Any]

_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LARGEST_NUMBER = 2**63 - 1  # int64, on the wire and in SQLite
DEFAULT_PAGE = 20
LARGEST_PAGE = 200


class ApiError(Exception):
    """A request refused with an HTTP status and Google's nested error body."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def error_body(status: int, message: str) -> Json:
    """The body Kaggle sends with `status`: {"error": {"code", "message", "status"}}."""
    return {"error": {"code": status, "message": message, "status": _WORDS.get(status, "UNKNOWN")}}


def denied(permission: str) -> ApiError:
    """403 in Kaggle's words, for example for "kernels.get"."""
    return ApiError(403, f"Permission '{permission}' was denied")


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as ISO-8601 UTC with milliseconds and Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """A span in seconds as protobuf writes it: "4500.500s"."""
    return f"{seconds:.3f}s"


def slug_of(title: str) -> str:
    """The slug Kaggle makes of a title; the same function its client uses to warn."""
    return str(slugify(title))


def name(value: Any, what: str) -> str:
    """An owner or slug in lower case: it becomes a folder name, so nothing else may pass.

    Raises:
        ApiError: 400, when it is no string of letters, digits, '-', '_' and '.' that begins with a letter or digit.
    """
    if isinstance(value, str) and _NAME.fullmatch(value.lower()):
        return value.lower()
    raise ApiError(400, f"{value!r} is not a valid {what}.")


def pair(ref: Any, what: str) -> tuple[str, str]:
    """("owner", "slug") of "owner/slug", both checked by `name`."""
    parts = ref.split("/") if isinstance(ref, str) else []
    if len(parts) != 2:
        raise ApiError(400, f"{ref!r} is not a valid {what}: owner/slug is wanted.")
    return name(parts[0], what), name(parts[1], what)


def strings(body: Json, key: str) -> list[str]:
    """A list of strings in a request; absent means empty.

    Raises:
        ApiError: 400, when it is something else.
    """
    value = body.get(key) or []
    if isinstance(value, list) and all(_is_text(item) for item in value):
        return value
    raise ApiError(400, f"{key} must be a list of strings.")


def objects(body: Json, key: str) -> list[Json]:
    """A list of JSON objects in a request; absent means empty.

    Raises:
        ApiError: 400, when it is something else.
    """
    value = body.get(key) or []
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    raise ApiError(400, f"{key} must be a list of objects.")


def _is_text(value: Any) -> bool:
    """Whether it is a string that can be stored: JSON can spell half of a surrogate pair, UTF-8 cannot."""
    return isinstance(value, str) and not _SURROGATE.search(value)


def text(body: Json, key: str) -> str:
    """A string in a request; absent or null means "".

    Raises:
        ApiError: 400, when it is something else.
    """
    value = body.get(key) or ""
    if isinstance(value, str) and _is_text(value):
        return value
    raise ApiError(400, f"{key} must be a string.")


def number(body: Json, key: str) -> int:
    """A non-negative whole number in a request; absent or null means 0.

    Raises:
        ApiError: 400, when it is something else.
    """
    value = body.get(key) or 0
    if isinstance(value, int) and 0 <= value <= _LARGEST_NUMBER:
        return int(value)
    raise ApiError(400, f"{key} must be a whole number, 0 or more.")


def page(items: Sequence[Item], body: Json) -> tuple[Sequence[Item], str, int]:
    """One page of `items` as the request's pageSize, pageToken or page asks.

    Returns:
        the page, the token of the next one ("" at the end), and the index of the page's first item.
    """
    size = min(number(body, "pageSize") or DEFAULT_PAGE, LARGEST_PAGE)
    token = text(body, "pageToken")
    start = _offset(token) if token else max(number(body, "page") - 1, 0) * size
    end = start + size
    following = base64.urlsafe_b64encode(f"from:{end}".encode()).decode() if end < len(items) else ""
    return items[start:end], following, start


def _offset(token: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(token).decode().removeprefix("from:"))
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, "Invalid page token.") from error
