"""Kaggle's model frameworks: their names on the wire, and how a model's handle spells them."""

from __future__ import annotations

import re

_PREFIX = "MODEL_FRAMEWORK_"
# kagglesdk 0.1.37, models/types/model_enums.py.
_NAMES = (
    "TENSOR_FLOW_1", "TENSOR_FLOW_2", "TF_LITE", "TF_JS", "PY_TORCH", "JAX", "FLAX", "PAX", "MAX_TEXT", "GEMMA_CPP",
    "GGML", "GGUF", "CORAL", "SCIKIT_LEARN", "MXNET", "ONNX", "KERAS", "TRANSFORMERS", "API", "OTHER", "TENSOR_RT_LLM",
    "TRITON", "VLLM",
)  # fmt: skip


def spelled(framework: str) -> str:
    """A framework as it stands in a handle here, without the enum's prefix, case and punctuation: tensorflow2."""
    return re.sub(r"[^a-z0-9]", "", framework.upper().removeprefix(_PREFIX).lower())


_BY_SPELLING = {spelled(name): _PREFIX + name for name in _NAMES}


def on_the_wire(framework: str) -> str | None:
    """The enum's name of a framework in whatever spelling; None for one that Kaggle does not know."""
    return _BY_SPELLING.get(spelled(framework))
