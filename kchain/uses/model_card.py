"""README.md of an export: what it is, what it was made of, how good it was found to be, and its licences. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kchain.uses.subject import Part, TrainedPhase

_UNKNOWN = "unknown"
_WHAT = {
    "safetensors": (
        "transformers",
        "This is the whole model: all adapters of the chain are added to the base model in fp32, and the sum is "
        "rounded once to fp16. Load it with `AutoModelForCausalLM.from_pretrained`.",
    ),
    "adapter": (
        "peft",
        "This is one LoRA adapter that changes the original base model as all adapters of the chain do together: their "
        "factors side by side, `lora_alpha` equal to the rank. Load the base model, then "
        "`PeftModel.from_pretrained(base, folder)`.",
    ),
    "gguf": (
        "gguf",
        "This is the whole model as one GGUF file for llama.cpp: all adapters of the chain are added to the base model "
        "in fp32, the sum is rounded once to fp16, and to the file's own type after that.",
    ),
}


def card(subject: TrainedPhase, form: str, licences: Sequence[str]) -> str:
    """The model card.

    Args:
        form: "safetensors", "adapter" or "gguf".
        licences: names of the licence texts that were copied from beside the base model.
    """
    library, what = _WHAT[form]
    prompt = subject.system_prompt
    lines = [
        *("---", f"base_model: {subject.base_model}", f"library_name: {library}", "license: unknown"),
        *("tags: [kchain, lora]", "---", f"# {subject.chain} / {subject.phase}: {subject.title}", ""),
        *(subject.description, "", what, ""),
        f"Every answer ends with `{subject.pad['token']}` (id {subject.pad['id']}), which is also the padding token.",
        *([f"The last phase was trained with the system prompt `{prompt}`."] if prompt else []),
        *("", "## Lineage", "", f"Base model: `{subject.base_model}` (Kaggle). Then, in this order:", ""),
        *_table(("phase", "trained by", "sha256 of its adapter", "LoRA"), _lineage_rows(subject)),
        *("", "## Data", ""),
        *_table(("phase", "source", "from", "examples", "licence"), _data_rows(subject)),
        *("", "## Metrics", "", "Of each phase's own session, on its own data:", ""),
        *_table(("phase", "steps", "loss", "token accuracy", "validation loss"), map(_metric_row, subject.parts)),
        *("", "## Licences", "", *_licence_words(licences), ""),
    ]
    return "\n".join(lines)


def _table(heads: Sequence[str], rows: Iterator[tuple[str, ...]]) -> list[str]:
    cells = [tuple(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return [f"| {' | '.join(row)} |" for row in (tuple(heads), ("---",) * len(heads), *cells)]


def _lineage_rows(subject: TrainedPhase) -> Iterator[tuple[str, ...]]:
    lora = subject.lora
    words = f"r {lora['r']}, alpha {lora['alpha']}, {', '.join(lora['targets'])}"
    for part in subject.parts:
        adapter = part.adapter
        version = f" version {part.version}" if part.version is not None else ""
        trained_by = f"{adapter.kind} `{adapter.ref}`{version}{' (adopted)' if part.adopted else ''}"
        yield part.phase, trained_by, f"`{adapter.sha256}`", words


def _data_rows(subject: TrainedPhase) -> Iterator[tuple[str, ...]]:
    for part in subject.parts:
        if part.adopted:
            yield part.phase, _UNKNOWN, "trained elsewhere", _UNKNOWN, _UNKNOWN
            continue
        told = (part.result.get("examples") or {}).get("sources") or ()
        counts = {report["name"]: report.get("kept") for report in told}
        for source in part.sources:
            kept = counts.get(source["name"])
            yield part.phase, source["name"], _place(source), _UNKNOWN if kept is None else str(kept), _UNKNOWN


def _place(source: Mapping[str, Any]) -> str:
    words = {"dataset": "Kaggle data set", "huggingface": "Hugging Face data set"}
    for key, place in source.items():
        if place and key not in ("name", "file"):
            return f"{words.get(key, key)} `{place}`"
    return f"`{source['file']}` of the project"


def _metric_row(part: Part) -> tuple[str, ...]:
    metrics = part.result.get("metrics") or {}
    first, last = (_number(metrics, name, "{:.3f}") for name in ("loss_first", "loss_last"))
    accuracy, judged = _number(metrics, "token_accuracy", "{:.1%}"), _number(metrics, "eval_loss", "{:.3f}")
    return part.phase, _number(metrics, "steps", "{}"), f"{first} -> {last}", accuracy, judged


def _number(metrics: Mapping[str, Any], name: str, form: str) -> str:
    value = metrics.get(name)
    return _UNKNOWN if value is None else form.format(value)


def _licence_words(licences: Sequence[str]) -> list[str]:
    base = (
        f"The base model came with {', '.join(licences)}, copied to beside this file."
        if licences
        else "The base model's licence is unknown to kchain: there was no licence text beside its weights."
    )
    return [
        base,
        "The data's licences are unknown to kchain; look them up at the sources above before you pass this on.",
        "Replace `license: unknown` at the top when you know.",
    ]
