"""Kaggle Models: looking at them, and making a model, a variation of it, or a version of that.

Requests and answers are those of kagglesdk 0.1.38 (models/types/model_api_service.py). A refusal comes as HTTP 200 with
`error`; how kaggle.com words it, and which fields its answers fill, was never seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kchain.client import sdk
from kchain.client.answers import VariationPage, WireModel
from kchain.client.client import PAGE_SIZE, all_pages, split_ref
from kchain.client.refusals import LOOK, Absent
from kchain.client.transport import Transport
from kchain.client.upload import new_file
from kchain.errors import Ambiguous, PushRefused

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
    owner, slug = split_ref(ref)
    asked: dict[str, Any] = {"owner_slug": owner, "model_slug": slug}
    try:
        model = transport.read(WireModel, f"model {ref}", "models", "GetModel", **asked)
    except Absent:
        return None
    doing = f"the variations of model {ref}"

    def page_at(token: str) -> VariationPage:
        paging: dict[str, Any] = {"page_token": token, "page_size": PAGE_SIZE}
        return transport.read(VariationPage, doing, "models", "ListModelInstances", **asked, **paging)

    found = tuple(
        Variation(one.framework, one.slug, one.version_number, one.version_notes, one.overview, one.status)
        for page in all_pages(doing, page_at)
        for one in page.instances
    )
    return Model(model.is_private is True, model.url, found)


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
    owner, slug = split_ref(ref)
    body = sdk.message("models", "ApiCreateModelInstanceRequestBody")()
    body.framework = sdk.message("models", "ModelFramework")[framework]
    body.instance_slug = metadata["instanceSlug"]
    body.overview, body.usage = metadata["overview"], metadata["usage"]
    if "licenseName" in metadata:
        body.license_name = metadata["licenseName"]
    body.fine_tunable = metadata["fineTunable"]
    body.training_data = list(metadata["trainingData"])
    body.model_instance_type = sdk.message("models", "ModelInstanceType").MODEL_INSTANCE_TYPE_KAGGLE_VARIANT
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
    owner, slug = split_ref(ref)
    body = sdk.message("models", "ApiCreateModelInstanceVersionRequestBody")()
    body.version_notes = notes
    body.files = [new_file(token) for token in tokens]
    return _act(
        transport,
        f"making a version of {variation[1]} of model {ref}",
        "CreateModelInstanceVersion",
        owner_slug=owner,
        model_slug=slug,
        framework=sdk.message("models", "ModelFramework")[variation[0]],
        instance_slug=variation[1],
        body=body,
    )


def _act(transport: Transport, doing: str, method: str, **fields: Any) -> str:
    try:
        made = transport.act(doing, "models", method, **fields)
    except PushRefused as error:
        raise PushRefused(error.message, _CURE) from error
    if made.error:
        raise PushRefused(f"{doing} was refused: {made.error}", _CURE)
    if not made.id:
        raise Ambiguous(f"{doing}: the answer does not name what was made", LOOK)
    return made.url
