"""The adapters a phase builds on: found where they are mounted, and refused unless they are what they must be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .contract import CONFIG, REACHED, RESULT, WEIGHTS, LineageEntry, other_maths
from .failure import Stop
from .files import hash_file
from .paths import Paths


@dataclass(frozen=True)
class Adapter:
    """A verified adapter.

    Attributes:
        folder: where it is mounted.
        sha256, bytes: hash and size of its weights file.
        use: "merge" it into the base, or "continue" it: train it on.
    """

    phase: str
    kind: str
    ref: str
    folder: Path
    sha256: str
    bytes: int
    use: str = "merge"

    def entry(self) -> LineageEntry:
        """Its line in a lineage."""
        return LineageEntry(self.phase, self.kind, self.ref, self.sha256, self.use)


def find(paths: Paths, parameters: dict[str, Any]) -> list[Adapter]:
    """Every adapter of the lineage, root first, verified.

    Raises:
        Stop: one is missing, changed, trained otherwise, or built on other adapters than those found here.
    """
    found: list[Adapter] = []
    for ancestor in parameters["lineage"]:
        found.append(_verify(paths, ancestor, parameters, found))
    return found


def _verify(paths: Paths, ancestor: dict[str, Any], parameters: dict[str, Any], earlier: Sequence[Adapter]) -> Adapter:
    phase, kind, ref = ancestor["phase"], ancestor["kind"], ancestor["ref"]
    mount = paths.mount(kind, ref)
    folder = mount / ancestor["folder"]
    cure = f"look at the output of {ref}, and run {phase} again or adopt another adapter for it"
    weights = folder / WEIGHTS
    if not weights.is_file() or not (folder / CONFIG).is_file():
        raise Stop(f"{phase}: {folder} lacks {WEIGHTS} or {CONFIG}; pickled weights are not opened", cure)
    adapter = Adapter(phase, kind, ref, folder, hash_file(weights), weights.stat().st_size, ancestor["use"])
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    result_file = mount / RESULT
    result = json.loads(result_file.read_text(encoding="utf-8")) if result_file.is_file() else None
    if result is None and not ancestor["sha256"]:
        raise Stop(f"{phase}: {mount} has no {RESULT}, and no hash of its adapter is known", cure)
    problems = _differences(config, parameters["lora"])
    if ancestor["sha256"] and ancestor["sha256"] != adapter.sha256:
        problems.append(f"the file's sha256 is {adapter.sha256}, {ancestor['sha256']} was adopted")
    if result is not None:
        problems += _contradictions(result, adapter, parameters, earlier)
    if problems:
        raise Stop(f"the adapter of {phase} is refused: {'; '.join(problems)}", cure)
    return adapter


def _differences(config: dict[str, Any], lora: dict[str, Any]) -> list[str]:
    """Where an adapter's own config is not the chain's LoRA config."""
    have = {
        "r": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "dropout": config.get("lora_dropout"),
        "bias": config.get("bias"),
        "targets": sorted(config.get("target_modules") or ()),
    }
    want = {**lora, "targets": sorted(lora["targets"])}
    if want["targets"] == ["all-linear"]:  # PEFT writes down the names it found
        want["targets"] = have["targets"]
    problems = [f"lora {key} is {have[key]}, the chain has {want[key]}" for key in have if have[key] != want[key]]
    if config.get("peft_type") != "LORA":
        problems.append(f"it is {config.get('peft_type')}, not LORA")
    return problems + [f"it has {option}, which a merge would lose" for option in other_maths(config)]


def _contradictions(
    result: dict[str, Any], adapter: Adapter, parameters: dict[str, Any], earlier: Sequence[Adapter]
) -> list[str]:
    """Where the result file beside an adapter says something else than what is here."""
    recorded = result.get("adapter") or {}
    pairs = (
        ("sha256 of the adapter", recorded.get("sha256"), adapter.sha256),
        ("pad id", result.get("pad_id"), parameters["pad"]["id"]),
        ("base model", result.get("base_model"), parameters["model"]["source"]),
        (
            "adapters merged before it",
            [line["sha256"] for line in result.get("lineage", ()) if line.get("use", "merge") == "merge"],
            [each.sha256 for each in earlier],
        ),
    )
    problems = [f"{name}: its session recorded {was}, here it is {now}" for name, was, now in pairs if was != now]
    if result.get("status") not in REACHED:
        problems.append(f"its session ended as {result.get('status')}")
    return problems
