"""README.md of an export: what it is, what it was made of, how good it was found, and under which licences. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kchain.export.subject import Subject
from kchain.orchestrator.finished import Link
from kchain.phases import Source

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
        "This is the whole model in one file for llama.cpp: all adapters of the chain are added to the base model in "
        "fp32, and the sum is rounded to the numbers of the file.",
    ),
}


def card(subject: Subject, form: str, licences: Sequence[str]) -> str:
    """The model card.

    Args:
        form: "safetensors", "adapter" or "gguf".
        licences: names of licence texts that lay beside the base model and were copied.
    """
    chain, phase = subject.chain, subject.chain.phase(subject.phase)
    library, what = _WHAT[form]
    lines = [
        *("---", f"base_model: {chain.model.source}", f"library_name: {library}", "license: unknown"),
        *("tags: [kchain, lora]", "---", f"# {chain.name} / {phase.name}: {phase.title}", ""),
        *(phase.description, "", what, ""),
        f"Every answer ends with `{chain.model.eos_token}` (id {chain.model.eos_id}), which is also the padding token.",
        *_system_prompt(phase.data.system_prompt),
        *("", "## Lineage", "", f"Base model: `{chain.model.source}` (Kaggle). Then, in this order:", ""),
        *_table(("phase", "trained by", "sha256 of its adapter", "LoRA"), _lineage_rows(subject)),
        *("", "## Data", ""),
        *_table(("phase", "source", "from", "examples", "licence"), _data_rows(subject)),
        *("", "## Metrics", "", "Of each phase's own session, on its own data:", ""),
        *_table(("phase", "steps", "loss", "token accuracy", "validation loss"), map(_metric_row, subject.links)),
        *("", "## Licences", "", *_licence_words(licences), ""),
    ]
    return "\n".join(lines)


def _system_prompt(prompt: str) -> list[str]:
    return [f"The last phase was trained with the system prompt `{prompt}`."] if prompt else []


def _table(heads: Sequence[str], rows: Iterator[tuple[str, ...]]) -> list[str]:
    cells = [tuple(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return [f"| {' | '.join(row)} |" for row in (tuple(heads), ("---",) * len(heads), *cells)]


def _lineage_rows(subject: Subject) -> Iterator[tuple[str, ...]]:
    for link in subject.links:
        recorded, lora = link.recorded, subject.chain.phase(link.phase).lora
        version = f" version {recorded.version}" if recorded.version is not None else ""
        trained_by = f"{recorded.kind} `{recorded.ref}`{version}{' (adopted)' if recorded.adopted else ''}"
        yield link.phase, trained_by, f"`{link.sha256}`", f"r {lora.r}, alpha {lora.alpha}, {', '.join(lora.targets)}"


def _data_rows(subject: Subject) -> Iterator[tuple[str, ...]]:
    for link in subject.links:
        if link.recorded.adopted:
            yield link.phase, _UNKNOWN, "trained elsewhere", _UNKNOWN, _UNKNOWN
            continue
        told = (link.result.get("examples") or {}).get("sources") or ()
        counts = {report["name"]: report.get("kept") for report in told}
        for source in subject.chain.phase(link.phase).data.sources:
            kept = counts.get(source.name)
            yield link.phase, source.name, _place(source), _UNKNOWN if kept is None else str(kept), _UNKNOWN


def _place(source: Source) -> str:
    if source.dataset:
        return f"Kaggle data set `{source.dataset}`"
    if source.huggingface:
        return f"Hugging Face data set `{source.huggingface}`"
    return f"`{source.file}` of the project"


def _metric_row(link: Link) -> tuple[str, ...]:
    metrics = link.recorded.metrics
    first, last = (_number(metrics, name, "{:.3f}") for name in ("loss_first", "loss_last"))
    accuracy, judged = _number(metrics, "token_accuracy", "{:.1%}"), _number(metrics, "eval_loss", "{:.3f}")
    return link.phase, _number(metrics, "steps", "{}"), f"{first} -> {last}", accuracy, judged


def _number(metrics: Mapping[str, Any], name: str, form: str) -> str:
    value = metrics.get(name)
    return _UNKNOWN if value is None else form.format(value)


def _licence_words(licences: Sequence[str]) -> list[str]:
    base = (
        f"The base model came with {', '.join(licences)}, which lies beside this file."
        if licences
        else "The base model's licence is unknown to kchain: no licence text lay beside its weights."
    )
    return [
        base,
        "The data's licences are unknown to kchain; look them up at the sources above before you pass this on.",
        "Replace `license: unknown` at the top when you know.",
    ]
