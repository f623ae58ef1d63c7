"""The gates of a phase in words, for whoever reviews it: every gate that will be asked, and no other."""

from __future__ import annotations

from kchain.phases.schema import Gates
from kchain.phases.uses import EvaluationGates, UseGates

# Key of `[gates]` -> what must be reached; shares are given in percent.
_LIMITS = {
    "max_loss": "the training loss ends at {:g} or lower",
    "max_eval_loss": "the validation loss is {:g} or lower",
    "max_forgotten": "the loss rises by {:g} nats or less on what earlier phases learned",
    "min_style_separation": "the longest style's answers are {:g} times as long as the shortest's, or more",
}
_SHARES = {
    "min_loss_fall": "the training loss falls by {:g} % or more",
    "min_token_accuracy": "token accuracy is {:g} % or more",
    "min_eos_rate": "{:g} % of the sampled answers end by themselves, or more",
    "min_success_rate": "the chain succeeds on {:g} % of the questions or more",
}


def gate_words(gates: Gates | UseGates, first: bool) -> tuple[str, ...]:
    """What a finished phase must have reached, gate by gate.

    Args:
        first: nothing was trained before it, so it is not asked what it forgot.
    """
    words = ["all epochs ran"] if isinstance(gates, Gates) and gates.all_epochs else []
    for key in type(gates).model_fields:
        limit = getattr(gates, key)
        if limit is None or (first and key == "max_forgotten"):
            continue
        if key in _LIMITS:
            words.append(_LIMITS[key].format(limit))
        elif key in _SHARES:
            words.append(_SHARES[key].format(100 * limit))
    if isinstance(gates, EvaluationGates) and gates.better:
        words.append("the chain is shown to be better than the base model")
    sound = "the adapter is sound" if isinstance(gates, Gates) else "it came to its end, on these very adapters"
    return (*words, f"the pad id is right and {sound}")
