"""Kaggle Models: looking at them, and making a model, a variation of it, or a version of that.

Requests and answers are those of kagglesdk 0.1.37 (models/types/model_api_service.py). A refusal comes as HTTP 200 with
`error`; how kaggle.com words it, and which fields its answers fill, nobody of kchain has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kchain.client.client import all_pages, items_of, new_file, split_ref
from kchain.client.translate import Absent
from kchain.client.transport import Transport
from kchain.errors import Ambiguous, KchainError, PushRefused, Unreachable

_CURE = (
    "what it names must change, or kchain doctor shows that these are another's credentials; where it speaks of an "
    "unknown upload, delete .kchain/uploads.json"
)


@dataclass(frozen=True)
class Variation:
    """A variation of a model with its newest version.

    Attributes:
        framework: the enum's name, such as MODEL_FRAMEWORK_TRANSFORMERS.
        version: number of the newest version.
        notes: of that version; the first has none, since the call that makes it takes none.
        overview: the variation's.
        status: the newest version's way to READY, in the words of data sets; "" where the target does not tell.
    """

    framework: str
    slug: str
    version: int
    notes: str
    overview: str
    status: str


@dataclass(frozen=True)
class Model:
    """A model as the target has it."""

    private: bool
    url: str
    variations: tuple[Variation, ...]


def find_model(transport: Transport, ref: str) -> Model | None:
    """The model `owner/slug` with its variations; None where the target says that there is none.

    Raises:
        Unreachable: no clear answer; nothing is known about the model then.
    """
    try:
        fields = _ask(transport, f"model {ref}", "GetModel", ref)
    except Absent:
        return None
    doing = f"the variations of model {ref}"
    pages = all_pages(
        doing,
        lambda token: _ask(transport, doing, "ListModelInstances", ref, page_token=token, page_size=100),
    )
    found = tuple(_variation(item, doing) for page in pages for item in items_of(page, "instances"))
    # A missing flag reads as false, its default on the wire: then the model counts as public.
    return Model(fields.get("isPrivate") is True, str(fields.get("url") or ""), found)


def _variation(item: Mapping[str, Any], doing: str) -> Variation:
    number, slug = item.get("versionNumber"), item.get("slug")
    if type(number) is not int or number < 1 or not isinstance(slug, str):
        raise Unreachable(f"{doing}: one without a name or a version", "repeat the command")
    words = (str(item.get(key) or "") for key in ("versionNotes", "overview", "status"))
    return Variation(str(item.get("framework") or ""), slug, number, *words)


def create_model(transport: Transport, ref: str, metadata: Mapping[str, Any]) -> None:
    """Make a model without variations.

    Args:
        metadata: what `model-metadata.json` holds.

    Raises:
        PushRefused: the target does not want it.
        Ambiguous: it may have been made.
    """
    owner, slug = split_ref(ref)
    _act(
        transport,
        f"making model {ref}",
        "CreateModel",
        owner_slug=owner,
        slug=slug,
        title=metadata["title"],
        is_private=metadata["isPrivate"],
        description=metadata["description"],
    )


def create_variation(
    transport: Transport, ref: str, metadata: Mapping[str, Any], tokens: Sequence[str], framework: str
) -> str:
    """Make a variation with its first version of uploaded files; the address of its page.

    Args:
        ref: the model's.
        metadata: what `model-instance-metadata.json` holds; without `licenseName` none is sent.
        framework: the enum's name.

    Raises:
        PushRefused, Ambiguous: as `create_model`.
    """
    from kagglesdk.models.types.model_api_service import ApiCreateModelInstanceRequestBody
    from kagglesdk.models.types.model_enums import ModelFramework, ModelInstanceType

    owner, slug = split_ref(ref)
    body = ApiCreateModelInstanceRequestBody()
    body.framework = ModelFramework[framework]
    body.instance_slug = metadata["instanceSlug"]
    body.overview, body.usage = metadata["overview"], metadata["usage"]
    if "licenseName" in metadata:
        body.license_name = metadata["licenseName"]
    body.fine_tunable = metadata["fineTunable"]
    body.training_data = list(metadata["trainingData"])
    body.model_instance_type = ModelInstanceType.MODEL_INSTANCE_TYPE_KAGGLE_VARIANT
    body.base_model_instance = metadata["baseModelInstance"]
    body.files = [new_file(token) for token in tokens]
    doing = f"making variation {metadata['instanceSlug']} of model {ref}"
    return _act(transport, doing, "CreateModelInstance", owner_slug=owner, model_slug=slug, body=body)


def create_version(
    transport: Transport, ref: str, variation: tuple[str, str], notes: str, tokens: Sequence[str]
) -> str:
    """Make a new version of a variation; the address of its page.

    Args:
        ref: the model's.
        variation: (framework as the enum's name, slug).

    Raises:
        PushRefused, Ambiguous: as `create_model`.
    """
    from kagglesdk.models.types.model_api_service import ApiCreateModelInstanceVersionRequestBody
    from kagglesdk.models.types.model_enums import ModelFramework

    owner, slug = split_ref(ref)
    body = ApiCreateModelInstanceVersionRequestBody()
    body.version_notes = notes
    body.files = [new_file(token) for token in tokens]
    return _act(
        transport,
        f"making a version of {variation[1]} of model {ref}",
        "CreateModelInstanceVersion",
        owner_slug=owner,
        model_slug=slug,
        framework=ModelFramework[variation[0]],
        instance_slug=variation[1],
        body=body,
    )


def _ask(transport: Transport, doing: str, method: str, ref: str, **fields: Any) -> dict[str, Any]:
    owner, slug = split_ref(ref)
    return transport.read(doing, "models", method, owner_slug=owner, model_slug=slug, **fields)


def _act(transport: Transport, doing: str, method: str, **fields: Any) -> str:
    try:
        answer = transport.act(doing, "models", method, **fields)
    except PushRefused as error:
        raise PushRefused(error.message, _CURE) from error
    if (wrong := _judge(answer, doing)) is not None:
        raise wrong
    return str(answer.get("url") or "")


def _judge(answer: Mapping[str, Any], doing: str) -> KchainError | None:
    """What is wrong with the answer to an effect; HTTP 200 alone means nothing."""
    if answer.get("error"):
        return PushRefused(f"{doing} was refused: {answer['error']}", _CURE)
    if not answer.get("id"):
        return Ambiguous(f"{doing}: the answer names nothing that was made", "the same command looks what is there")
    return None
