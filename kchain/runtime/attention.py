"""Which attention a model computes: the one that its architecture needs, by a kernel that the GPU has."""

from __future__ import annotations

from typing import Any

import torch
from transformers.integrations import sdpa_attention

# The first compute capability for which torch has a fused kernel that takes fewer heads of keys than of queries. On a
# T4 (7.5) such a call falls back to one that keeps whole attention matrices in fp32: transformers issue 48633.
GROUPED = (8, 0)


def implementation(config: Any) -> dict[str, str]:
    """Options for `from_pretrained`: SDPA knows no soft cap, and transformers 5.0 would leave Gemma 2's out unsaid."""
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    return {"attn_implementation": "eager"} if capped else {}


def keep_fused(capability: tuple[int, int]) -> None:
    """Has transformers repeat keys and values for SDPA, on a GPU of this compute capability, where that is faster.

    It does so by itself where there is a mask; a row of one example has none.
    """
    if capability < GROUPED:
        sdpa_attention.use_gqa_in_sdpa = _never  # type: ignore[assignment,unused-ignore]


def on_this_gpu() -> None:
    """`keep_fused` on the GPU of this process, if it has one."""
    if torch.cuda.is_available():
        keep_fused(torch.cuda.get_device_capability())


def _never(*args: Any) -> bool:
    return False
