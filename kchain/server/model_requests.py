"""What requests about models say, and Kaggle's words in them."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator

from kchain.server.blobs import Files
from kchain.server.things import Search, ThingRef
from kchain.server.wire import Flag, Json, Number, Paging, Request, Text, Texts

# Kaggle's model frameworks: their names on the wire, and how a model's handle spells them.
_PREFIX = "MODEL_FRAMEWORK_"
# kagglesdk 0.1.38, models/types/model_enums.py.
_NAMES = (
    "TENSOR_FLOW_1", "TENSOR_FLOW_2", "TF_LITE", "TF_JS", "PY_TORCH", "JAX", "FLAX", "PAX", "MAX_TEXT", "GEMMA_CPP",
    "GGML", "GGUF", "CORAL", "SCIKIT_LEARN", "MXNET", "ONNX", "KERAS", "TRANSFORMERS", "API", "OTHER", "TENSOR_RT_LLM",
    "TRITON", "VLLM",
)  # fmt: skip


def spelled(framework: str) -> str:
    """A framework as it stands in a handle here, without the enum's prefix, case and punctuation: tensorflow2."""
    return re.sub(r"[^a-z0-9]", "", framework.upper().removeprefix(_PREFIX).lower())


_BY_SPELLING = {spelled(name): _PREFIX + name for name in _NAMES}


def on_the_wire(framework: str) -> str:
    """The enum's name of a framework in whatever spelling, that of "other" for one that Kaggle does not know."""
    return _BY_SPELLING.get(spelled(framework), f"{_PREFIX}OTHER")


def is_known(framework: str) -> bool:
    """Whether Kaggle has such a framework."""
    return spelled(framework) in _BY_SPELLING


_TYPE = "MODEL_INSTANCE_TYPE_"
# kagglesdk 0.1.38, models/types/model_enums.py.
_TYPES = ("UNSPECIFIED", "BASE_MODEL", "KAGGLE_VARIANT", "EXTERNAL_VARIANT")


class ModelRef(ThingRef):
    slug: Text = Field("", alias="modelSlug")


class VariationRef(ModelRef):
    framework: Text = ""
    instance_slug: Text = ""


class ModelVersionRef(VariationRef, Paging):
    """What names a version, and a file or a page of its files."""

    version_number: Number = 0
    path: Text = ""


class ListInstances(ModelRef, Paging):
    pass


class ListModels(Search):
    owner: Text = ""


class Mask(Request):
    """A field mask: camelCase words with commas between (protobuf's JSON form)."""

    update_mask: Text = ""

    def changes(self, shape: type[Request]) -> Json:
        """The fields of `shape` that the mask names."""
        named = {field.strip() for field in self.update_mask.split(",")}
        every = self.model_dump(by_alias=True, include=set(shape.model_fields))
        return {field: value for field, value in every.items() if field in named}


class ModelTexts(Request):
    """What is said of a model, beside its title."""

    subtitle: Text = ""
    description: Text = ""
    provenance_sources: Text = ""


class VariationTexts(Request):
    """What is said of a variation; whether the base model or the licence exists is not asked."""

    overview: Text = ""
    usage: Text = ""
    license_name: Text = ""
    base_model_instance: Text = ""
    external_base_model_url: Text = ""
    model_instance_type: Text = _TYPE + _TYPES[0]
    fine_tunable: Flag = False
    training_data: Texts = []

    @field_validator("model_instance_type")
    @classmethod
    def _known(cls, given: str) -> str:
        kind = given.upper().removeprefix(_TYPE)
        if kind not in _TYPES:
            raise ValueError(f"{kind!r} is not a valid modelInstanceType")
        return _TYPE + kind


class CreateModel(ModelTexts):
    """CreateModel: private unless isPrivate is false."""

    owner_slug: Text = ""
    slug: Text = ""
    title: Text = ""
    is_private: Any = True


class UpdateModel(ModelRef, Mask, ModelTexts):
    title: Text = ""
    is_private: Flag = False


class VariationBody(Files, VariationTexts):
    """What a variation with its first version is made of."""

    framework: Text = ""
    instance_slug: Text = ""


class CreateVariation(ModelRef):
    body: VariationBody = VariationBody()


class UpdateVariation(VariationRef, Mask, VariationTexts):
    pass


class VariationVersionBody(Files):
    version_notes: Text = ""


class CreateVariationVersion(VariationRef):
    body: VariationVersionBody = VariationVersionBody()
