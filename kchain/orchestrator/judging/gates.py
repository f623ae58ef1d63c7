"""The gates: what a finished phase must have reached before the chain goes on. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kchain.phases import Gates

_MISSING = "not in the result"


@dataclass(frozen=True)
class GateResult:
    """One gate: what was asked and what came, both for people."""

    name: str
    wanted: str
    got: str
    passed: bool


def check(result: Mapping[str, Any], gates: Gates, pad_id: int) -> list[GateResult]:
    """Hold a `kchain-result.json` against the gates of its phase.

    Args:
        result: the parsed result file; whatever is missing or no number in it misses its gate.
        gates: the phase's gates; one that is None (or `all_epochs = false`) is not asked.
        pad_id: the id that the chain's pad token must have; always asked.
    """
    metrics = result.get("metrics")
    metrics = metrics if isinstance(metrics, Mapping) else {}
    found = [pad_gate(result, pad_id)]
    if gates.all_epochs:
        found.append(_all_epochs(result, metrics))
    if gates.max_loss is not None:
        found.append(_at_most("loss at the end", metrics.get("loss_last"), gates.max_loss))
    if gates.min_loss_fall is not None:
        found.append(_loss_fall(metrics, gates.min_loss_fall))
    if gates.min_token_accuracy is not None:
        found.append(at_least("token accuracy", metrics.get("token_accuracy"), gates.min_token_accuracy))
    return found + _judged(result, metrics, gates)


def _judged(result: Mapping[str, Any], metrics: Mapping[str, Any], gates: Gates) -> list[GateResult]:
    """The gates on what the session's evaluation found; it says itself why a figure is not there."""
    found = []
    absent = reasons(result)
    if gates.max_eval_loss is not None:
        found.append(
            _at_most("validation loss", metrics.get("eval_loss"), gates.max_eval_loss, absent.get("eval_loss"))
        )
    if gates.max_forgotten is not None and result.get("lineage") != []:
        found.append(_forgotten(metrics.get("forgotten"), gates.max_forgotten, absent.get("forgotten")))
    if gates.min_eos_rate is not None:
        rate, why = metrics.get("eos_rate"), absent.get("eos_rate")
        found.append(at_least("answers that end by themselves", rate, gates.min_eos_rate, why))
    if gates.min_style_separation is not None:
        value, why = metrics.get("style_separation"), absent.get("style_separation")
        number, least = _number(value), gates.min_style_separation
        passed = number is not None and number >= least
        found.append(GateResult("style separation", f">= {least:g}", _show(value, why), passed))
    return found


def reasons(result: Mapping[str, Any]) -> Mapping[str, str]:
    """Why a result has no figure, by the names of its metrics."""
    evaluation = result.get("evaluation")
    absent = evaluation.get("absent") if isinstance(evaluation, Mapping) else None
    return {str(name): str(why) for name, why in absent.items()} if isinstance(absent, Mapping) else {}


def pad_gate(result: Mapping[str, Any], pad_id: int) -> GateResult:
    """Whether the session had the chain's pad token."""
    got = result.get("pad_id")
    passed = type(got) is int and got == pad_id
    return GateResult("pad id", str(pad_id), _MISSING if got is None else str(got), passed)


def _all_epochs(result: Mapping[str, Any], metrics: Mapping[str, Any]) -> GateResult:
    status, done = result.get("status"), metrics.get("all_epochs")
    passed = status == "complete" and done is True
    got = "done" if passed else f"status {status or _MISSING}"
    reason = result.get("reason")
    if not passed and reason:
        got += f": {reason}"
    elif not passed and done is not True:
        got += f", {metrics.get('steps', 'unknown')} steps"
    return GateResult("all epochs", "done", got, passed)


def _number(value: Any) -> float | None:
    """A finite number, or None for everything else, NaN and booleans included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _show(value: Any, why: str | None = None) -> str:
    if value is None:
        return f"no figure: {why}" if why else _MISSING
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _at_most(name: str, value: Any, limit: float, why: str | None = None) -> GateResult:
    number = _number(value)
    return GateResult(name, f"<= {limit:g}", _show(value, why), number is not None and number <= limit)


def at_least(name: str, value: Any, limit: float, why: str | None = None) -> GateResult:
    """A share that must be reached; whatever is no number misses it."""
    number = _number(value)
    return GateResult(
        name,
        f">= {limit:.1%}",
        _show(value, why) if number is None else f"{number:.1%}",
        number is not None and number >= limit,
    )


def _forgotten(value: Any, limit: float, why: str | None) -> GateResult:
    """The largest rise of the loss on an earlier phase's split; one that fell was forgotten by nobody."""
    number = _number(value)
    got = _show(value, why) if number is None else f"{number:+.4g} nats"
    return GateResult("forgotten", f"loss rises by <= {limit:g} nats", got, number is not None and number <= limit)


def _loss_fall(metrics: Mapping[str, Any], limit: float) -> GateResult:
    first, last = _number(metrics.get("loss_first")), _number(metrics.get("loss_last"))
    wanted = f"falls by {limit:.1%}"
    if first is None or last is None or first <= 0:
        return GateResult(
            "fall of the loss",
            wanted,
            f"{_show(metrics.get('loss_first'))} -> {_show(metrics.get('loss_last'))}",
            False,
        )
    fall = (first - last) / first
    return GateResult("fall of the loss", wanted, f"{first:.3f} -> {last:.3f} ({fall:.1%})", fall >= limit)
