"""Kaggle's words on the wire: how requests are read, error bodies, times, durations, page tokens, slugs."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from slugify import slugify

Item = TypeVar("Item")
Shape = TypeVar("Shape", bound=BaseModel)
Json = dict[str, Any]

# Kaggle's words for a session (kagglesdk's KernelWorkerStatus): not over yet, and over.
LIVE = frozenset({"QUEUED", "RUNNING", "CANCEL_REQUESTED"})
OVER = frozenset({"COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED"})
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


# What a field of a request holds. Half of a surrogate pair, which JSON can spell and UTF-8 cannot, is no text.
Text = Annotated[str, Field(strict=True)]
Texts = list[Text]
Number = Annotated[int, Field(strict=True, ge=0, le=_LARGEST_NUMBER)]
Flag = Annotated[bool, BeforeValidator(bool)]


class Request(BaseModel):
    """The body of a request: camelCase names on the wire, unknown fields ignored, null and empty as good as absent."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if value or value is False}


class Paging(Request):
    """Which page of a list is asked for."""

    page_size: Number = 0
    page_token: Text = ""
    page: Number = 0


_EXPECTED = {"list": "a list", "model": "an object", "string": "a string", "bool": "true or false"}


def read(shape: type[Shape], body: bytes) -> Shape:
    """The body of a request.

    Raises:
        ApiError: 400, when it is not JSON, or a field is not what it must be.
    """
    try:
        return shape.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        kind = first["type"].partition("_")[0]
        if not place:
            raise ApiError(400, f"The request body is not JSON{'' if kind == 'json' else ' that fits'}.") from None
        if kind in ("int", "greater", "less"):
            raise ApiError(400, f"{place} must be a whole number, 0 or more.") from None
        said = f"must be {_EXPECTED[kind]}" if kind in _EXPECTED else f"does not fit: {first['msg']}"
        raise ApiError(400, f"{place} {said}.") from None


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as ISO-8601 UTC with milliseconds and Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """A span in seconds as protobuf writes it: "4500.500s"."""
    return f"{seconds:.3f}s"


def slug_of(title: str) -> str:
    """The slug Kaggle makes of a title; the same function its client uses to warn."""
    return str(slugify(title))


def name(value: str, what: str) -> str:
    """An owner or slug in lower case: it becomes a folder name, so nothing else may pass.

    Raises:
        ApiError: 400, when it is not made of letters, digits, '-', '_' and '.', a letter or digit first.
    """
    if _NAME.fullmatch(value.lower()):
        return value.lower()
    raise ApiError(400, f"{value!r} is not a valid {what}.")


def page(items: Sequence[Item], asked: Paging) -> tuple[Sequence[Item], str, int]:
    """One page of `items`.

    Returns:
        the page, the token of the next one ("" at the end), and the index of the page's first item.
    """
    size = min(asked.page_size or DEFAULT_PAGE, LARGEST_PAGE)
    start = max(asked.page - 1, 0) * size
    if asked.page_token:
        try:
            start = int(base64.urlsafe_b64decode(asked.page_token).decode().removeprefix("from:"))
        except (binascii.Error, ValueError) as error:
            raise ApiError(400, "Invalid page token.") from error
    end = start + size
    following = base64.urlsafe_b64encode(f"from:{end}".encode()).decode() if end < len(items) else ""
    return items[start:end], following, start
