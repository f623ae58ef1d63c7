"""What a session tells at its end: `kchain-result.json` as it stands before anything is known."""

from __future__ import annotations

from typing import Any

# Figures over the whole run. Losses are nats a token; shares lie between 0 and 1. `..._before` is the model that the
# phase began from; `forgotten` the largest rise of the loss on an earlier phase's validation split.
METRICS = (
    "loss_first", "loss_last", "steps", "epochs", "eval_loss", "eval_loss_before", "token_accuracy",
    "token_accuracy_before", "forgotten", "eos_rate", "eos_rate_before", "style_separation",
)  # fmt: skip


def unfinished(parameters: dict[str, Any], bundle: str) -> dict[str, Any]:
    """The result of a session that has not begun: it failed, until something better can be said.

    Args:
        parameters: the notebook's PARAMETERS.
        bundle: hash of the bundle, 64 hex digits.
    """
    continuation = parameters["continuation"]
    return {
        "format": 1,
        "bundle": bundle,
        "chain": parameters["chain"],
        "phase": parameters["phase"],
        "session": continuation["session"] if continuation else 1,
        "status": "failed",
        "reason": "the session ended before its first stage",
        "stopped": None,
        "skipped_steps": 0,
        "checkpoint": None,
        "recovered": [],
        "pad_token": parameters["pad"]["token"],
        "pad_id": parameters["pad"]["id"],
        "lora": parameters["lora"],
        "base_model": parameters["model"]["source"],
        "adapter_mode": parameters["adapter_mode"],
        "tokens": {},
        "lineage": [],
        "adapter": None,
        "metrics": {**dict.fromkeys(METRICS), "all_epochs": False},
        "evaluation": None,
        "examples": {},
        "quality": {},
        "moved": {},
        "versions": {},
        "probe": None,
    }
