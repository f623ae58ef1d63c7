"""The words of a notebook's head: what the phase does, on what, built on whom, with which plan.

Text that people wrote is made safe to stand in Markdown: what they typed is what a reader sees.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Any

from kchain.kernel_metadata.build import AdapterSource
from kchain.phases import Chain, Phase
from kchain.phases.memory import memory_words
from kchain.phases.plan import TrainingPlan, UsePlan, plan_of, session_words, time_words
from kchain.units import gib, size

RECIPES = {
    "text": "plain text, every token is learned",
    "prompt_completion": "prompt and completion, only the completion is learned",
    "conversation": "conversations, only the answers are learned",
}
# Everything with which Markdown, a table, HTML or MathJax could begin something.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|$~&{}])")
_LINE_START = re.compile(r"^([#+=-]|\d+(?=[.)]))")
_INVISIBLE = re.compile(r"[^\S\n]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def prose(text: str) -> str:
    """One line of Markdown that shows `text`; line breaks become spaces."""
    return " ".join(paragraphs(text))


def quotation(text: str) -> str:
    """A block quote that shows `text` line by line."""
    return "\n>\n".join(f"> {line}" for line in paragraphs(text))


def paragraphs(text: str) -> list[str]:
    """The lines of a text that hold something, each escaped."""
    lines = []
    for raw in _INVISIBLE.sub(" ", text).split("\n"):
        if line := re.sub(" +", " ", raw).strip():
            safe = _SPECIAL.sub(r"\\\1", line)
            lines.append(_LINE_START.sub(lambda at: at[0] + "\\" if at[0].isdigit() else "\\" + at[0], safe))
    return lines


def code(text: str) -> str:
    """Inline code that shows `text`, whatever backticks it holds. Not for tables, where a pipe would end it."""
    line = _INVISIBLE.sub(" ", text).replace("\n", " ")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def head(chain: Chain, phase_name: str, target: str, sources: Iterable[AdapterSource]) -> dict[str, Any]:
    """Everything that `cells/head.md.jinja` shows, already safe as Markdown.

    Raises:
        InputError: the chain has no phase of that name.
    """
    phase, planned = chain.phase(phase_name), plan_of(chain, phase_name)
    of = f" of {planned.gpus}" if planned.gpus > 1 else ""
    plural = "s" if planned.gpus > 1 else ""
    gpus = f"`{planned.accelerator}`: {planned.gpus_used}{of} GPU{plural} used, {gib(planned.gpu_memory)} usable"
    found = {
        "title": prose(phase.title),
        "description": quotation(phase.description),
        "chain": chain.name,
        "plan": planned,
        "trains": phase.use is None,
        "built_on": built_on(sources),
        "pad": f"{prose(chain.model.eos_token)} ({chain.model.eos_id})",
        "lora": phase.lora,
        "machine": gpus if planned.gpus else "CPU",
        "file": phase.file.as_posix(),
        "command": code(shlex.join(["kchain", "render", phase.name, "--target", target])),
    }
    if isinstance(planned, UsePlan):
        return {**found, "figures": [*_use_figures(planned), *_weights(planned, "model")]}
    return {
        **found,
        "quantization": "; the frozen base in 4 bits (nf4)" if phase.training.quantization == "nf4" else "",
        "recipe": RECIPES[phase.data.recipe],
        "sources": [
            {
                "name": source.name,
                "place": prose(source.kind.words(source)),
                "limit": f"{source.limit:,}" if source.limit else "all",
                "failure": "skip it" if source.optional else "stop",
            }
            for source in phase.data.sources
        ],
        "figures": [*_training_figures(phase, planned), *_weights(planned, "base")],
    }


def built_on(sources: Iterable[AdapterSource]) -> str:
    """The adapters by phase, and where each comes from."""
    adapters = []
    for source in sources:
        place = "the output of its kernel" if source.kind == "kernel" else "a data set"
        use = "; this very adapter is trained on" if source.use == "continue" else ""
        adapters.append(f"{source.phase} (`{source.ref}`, {place}{use})")
    return ", then ".join(adapters) if adapters else "nothing: the base model as it is"


def _training_figures(phase: Phase, planned: TrainingPlan) -> list[tuple[str, str]]:
    """What the run takes, row by row; rows that need an unknown model's shape are left out."""
    training = phase.training
    checkpointing = "activations recomputed" if training.checkpointing else "activations kept"
    rows = [
        (
            "Examples",
            f"{planned.examples:,} at most ({planned.examples_reason}), "
            f"about {planned.validation:,} of them for the validation set",
        ),
        (
            "Memory caps",
            f"batch {planned.batch} x accumulation {planned.accumulation} = {planned.batch * planned.accumulation}, "
            f"{training.max_length:,} tokens an example, {checkpointing}, `{training.optimizer}`",
        ),
        ("Steps", f"{planned.steps:,} at most ({planned.steps_reason})"),
        ("Time", f"{time_words(planned)}; {session_words(planned)}"),
    ]
    rows += [("Chosen", choice) for choice in planned.choices]
    if phase.tokens.all:
        names = ", ".join(prose(token) for token in phase.tokens.all)
        rows.append(("Tokens", f"rows trained beside LoRA: {names}"))
    if planned.memory and planned.gpus:
        rows.append(("GPU memory", memory_words(planned.memory, planned.gpu_memory)))
    if planned.adapter_bytes:
        rows.append(("Adapter", f"{size(planned.adapter_bytes)} expected"))
    return rows


def _use_figures(planned: UsePlan) -> list[tuple[str, str]]:
    rows = [(name.capitalize(), prose(words)) for name, words in planned.does]
    rows.append(("Time", f"one session, which is ended after {planned.timeout_hours:g} h"))
    if planned.weight_bytes:
        rows.append(("Memory", f"{gib(planned.weight_bytes)} of weights"))
    return rows


def _weights(planned: TrainingPlan | UsePlan, merged: str) -> list[tuple[str, str]]:
    """What is written, and what comes in from earlier phases."""
    rows = [("Scratch", f"{size(planned.disk)} for the merged {merged}, written once")] if planned.disk else []
    if planned.moved and planned.whole_model:
        whole = size(planned.whole_model)
        rows.append(("Comes in", f"{size(planned.moved)} of adapters; a whole merged model would be {whole}"))
    return rows
