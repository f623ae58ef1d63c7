"""The gates: what a finished phase must have reached before the chain goes on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from kchain.orchestrator.judging.result import ResultFile
from kchain.phases import EvaluationGates, Gates, NoGates

_ABSENT = "not in the result"


@dataclass(frozen=True)
class GateResult:
    """One gate: what was asked and what came, both for people."""

    name: str
    wanted: str
    got: str
    passed: bool


def check(result: ResultFile, gates: Gates | EvaluationGates | NoGates, pad_id: int) -> list[GateResult]:
    """Hold a result file against the gates of its phase, of whatever kind that is.

    Args:
        gates: one that is None (or `all_epochs = false`) is not asked; a figure that is absent misses its gate.
        pad_id: the id that the chain's pad token must have; always asked.
    """
    got = _ABSENT if result.pad_id is None else str(result.pad_id)
    found = [GateResult("pad id", str(pad_id), got, result.pad_id == pad_id)]
    if isinstance(gates, Gates):
        return found + _of_training(result, gates)
    return found + _of_evaluation(result, gates) if isinstance(gates, EvaluationGates) else found


def _of_training(result: ResultFile, gates: Gates) -> list[GateResult]:
    metrics, found = result.metrics, []
    # The session's evaluation says itself why it has no figure.
    absent = result.evaluation.absent
    if gates.all_epochs:
        found.append(_all_epochs(result))
    if gates.max_loss is not None:
        found.append(_at_most("loss at the end", metrics.loss_last, gates.max_loss))
    if gates.min_loss_fall is not None:
        found.append(_loss_fall(metrics.loss_first, metrics.loss_last, gates.min_loss_fall))
    if gates.min_token_accuracy is not None:
        found.append(_at_least("token accuracy", metrics.token_accuracy, gates.min_token_accuracy))
    if gates.max_eval_loss is not None:
        found.append(_at_most("validation loss", metrics.eval_loss, gates.max_eval_loss, absent.get("eval_loss")))
    if gates.max_forgotten is not None and result.lineage != ():
        # The largest rise of the loss on an earlier phase's split; where it fell, nothing was forgotten.
        limit, rise, why = gates.max_forgotten, metrics.forgotten, absent.get("forgotten")
        told = _show(rise, why) if rise is None else f"{rise:+.4g} nats"
        passed = rise is not None and rise <= limit
        found.append(GateResult("forgotten", f"loss rises by <= {limit:g} nats", told, passed))
    if gates.min_eos_rate is not None:
        rate, why = metrics.eos_rate, absent.get("eos_rate")
        found.append(_at_least("answers that end by themselves", rate, gates.min_eos_rate, why))
    if gates.min_style_separation is not None:
        times, least = metrics.style_separation, gates.min_style_separation
        told = _show(times, absent.get("style_separation"))
        found.append(GateResult("style separation", f">= {least:g}", told, times is not None and times >= least))
    return found


def _of_evaluation(result: ResultFile, gates: EvaluationGates) -> list[GateResult]:
    found, better = [], result.metrics.better
    if gates.min_success_rate is not None:
        found.append(_at_least("success rate", result.metrics.success_rate, gates.min_success_rate))
    if gates.better:
        got = f"the {better} is" if better else "no difference shown"
        found.append(GateResult("better", "the chain is better", got, better == "chain"))
    return found


def _all_epochs(result: ResultFile) -> GateResult:
    done = result.metrics.all_epochs
    if result.status == "complete" and done:
        return GateResult("all epochs", "done", "done", True)
    got = f"status {result.status or _ABSENT}"
    if result.reason:
        got += f": {result.reason}"
    elif not done:
        got += f", {'unknown' if result.metrics.steps is None else result.metrics.steps} steps"
    return GateResult("all epochs", "done", got, False)


def _loss_fall(first: float | None, last: float | None, limit: float) -> GateResult:
    name, wanted = "fall of the loss", f"falls by {limit:.1%}"
    if first is None or last is None or first <= 0:
        return GateResult(name, wanted, f"{_show(first)} -> {_show(last)}", False)
    fall = (first - last) / first
    return GateResult(name, wanted, f"{first:.3f} -> {last:.3f} ({fall:.1%})", fall >= limit)


def _at_most(name: str, value: float | None, limit: float, why: str | None = None) -> GateResult:
    return GateResult(name, f"<= {limit:g}", _show(value, why), value is not None and value <= limit)


def _at_least(name: str, share: float | None, limit: float, why: str | None = None) -> GateResult:
    got = _show(share, why) if share is None else f"{share:.1%}"
    return GateResult(name, f">= {limit:.1%}", got, share is not None and share >= limit)


def _show(value: float | None, why: str | None = None) -> str:
    if value is None:
        return f"no figure: {why}" if why else _ABSENT
    return f"{value:.4g}"
