"""PARAMETERS: everything a notebook is told, as one plain dictionary, and how it is written as Python.

A value enters code as a literal and in no other way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from kchain.kernel_metadata.build import AdapterSource
from kchain.phases import Chain, Exporting, Phase
from kchain.phases.load import travels_as

# What Kaggle's image lacks and what in it must go (docker-python 78aaa43, August 2026: torch 2.10, peft 0.19.1,
# torchao 0.10.0, no bitsandbytes). bitsandbytes asks for torch >= 2.4 and no more, so the image's torch stays.
BITSANDBYTES = "bitsandbytes==0.50.2"
# The package that llama.cpp publishes for its files; it needs numpy and no torch.
GGUF = "gguf==0.19.0"
# peft since 0.18.1 refuses to put LoRA on a model while a torchao this old is installed.
CONFLICTING = "torchao"
# Literals up to this width stay on one line; beyond it, one item a line, as a formatter would write them.
WIDTH = 110
INDENT = "    "


def parameters_of_phase(chain: Chain, phase_name: str, target: str, sources: Iterable[AdapterSource]) -> dict[str, Any]:
    """The dictionary that the notebook's session consumes: only str, int, float, bool, None, lists and dictionaries.

    Raises:
        InputError: the chain has no phase of that name.
    """
    phase, adapters = chain.phase(phase_name), tuple(sources)
    lineage = [asdict(source) for source in adapters]
    lora = {**phase.lora.model_dump(), "targets": list(phase.lora.targets)}
    if phase.use is None:
        own: dict[str, Any] = {
            "adapter_mode": phase.adapter,
            "lineage": lineage,
            "tokens": {"added": list(phase.tokens.added), "trained": list(phase.tokens.trained)},
            "lora": lora,
            "training": {**phase.training.model_dump(), "processes": phase.processes},
            "data": data_table(phase),
            "samples": phase.samples.model_dump(),
        }
    else:
        table = phase.use.model_dump(mode="json")
        own = {
            "system_prompt": phase.data.system_prompt,
            "lineage": lineage,
            "trained": {source.phase: _trained(chain.phase(source.phase)) for source in adapters},
            "lora": lora,
            "precision": phase.precision,
            "quantization": phase.training.quantization,
            phase.kind: {**table, "file": travels_as(table["file"])} if table.get("file") else table,
        }
    machine = phase.accelerator
    return {
        "chain": chain.name,
        "phase": phase.name,
        **({} if phase.use is None else {"kind": phase.kind}),
        "title": phase.title,
        "description": phase.description,
        "seed": chain.seed,
        "target": target,
        "model": {"source": chain.model.source},
        "pad": {"token": chain.model.eos_token, "id": chain.model.eos_id},
        **own,
        "accelerator": {
            "name": machine.name,
            "gpus": machine.gpus,
            "memory": machine.memory,
            "capability": list(machine.capability),
        },
        "session_timeout": phase.session_timeout,
        # Of a later session: kchain.bundle.continued fills it in when it pushes one.
        "continuation": None,
        "environment": environment(phase, target),
    }


def _trained(phase: Phase) -> dict[str, Any]:
    """What a model card and a prompt need to know of a phase of the lineage."""
    return {
        "title": phase.title,
        "description": phase.description,
        "tokens": list(phase.tokens.all),
        "sources": [source.origin for source in phase.data.sources],
    }


def data_table(phase: Phase) -> dict[str, Any]:
    """What the runtime is told of a phase's data."""
    sources = []
    for source in phase.data.sources:
        # A rehearsal's sample is not part of what is pushed: another one does not make another bundle.
        table = source.model_dump(mode="json", exclude={"rehearsal"})
        if source.kind.travels:
            table[source.kind.key] = travels_as(source.place)
        sources.append({"name": table.pop("name"), "kind": source.kind.name, **table})
    return {**phase.data.model_dump(exclude={"sources"}), "sources": sources}


def environment(phase: Phase, target: str) -> dict[str, list[str]]:
    """What to install and remove first: on Kaggle's image alone, one's own machine has its environment already."""
    if target != "kaggle":
        return {"install": [], "uninstall": []}
    trains = phase.use is None
    exports = phase.use if isinstance(phase.use, Exporting) else None
    needs_bitsandbytes = phase.training.quantization == "nf4" or (trains and "8bit" in phase.training.optimizer)
    needs_gguf = exports is not None and "gguf" in exports.formats
    install = [*([BITSANDBYTES] if needs_bitsandbytes else []), *([GGUF] if needs_gguf else [])]
    return {"install": install, "uninstall": [CONFLICTING]}


def literal(value: Any, depth: int = 0, used: int = 0) -> str:
    """Python source whose `ast.literal_eval` is `value`; tuples come back as lists.

    Args:
        depth: how deep the text stands, in steps of four spaces.
        used: columns taken on its first line by what stands in front of it.

    Raises:
        TypeError: the value holds something that is not str, int, float, bool, None, a list, a tuple or a dict.
        ValueError: it holds an infinity or NaN, which have no literal.
    """
    flat = _flat(value)
    if len(INDENT) * depth + used + len(flat) <= WIDTH and not _is_several_lines(value):
        return flat
    if isinstance(value, str):
        return _long_text(value, depth)
    if isinstance(value, dict) and value:
        items = [(f"{_flat(key)}: ", item) for key, item in value.items()]
        return _block("{", [head + literal(item, depth + 1, len(head)) for head, item in items], "}", depth)
    if isinstance(value, (list, tuple)) and value:
        return _block("[", [literal(item, depth + 1) for item in value], "]", depth)
    return flat


def _flat(value: Any) -> str:
    """The literal on one line."""
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, (bool, int)):
        return repr(value)
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{value} has no Python literal")
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_flat(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_flat(key)}: {_flat(item)}' for key, item in value.items())}}}"
    raise TypeError(f"{type(value).__name__} has no place in a notebook's parameters")


def _text(value: str) -> str:
    """`repr`, in double quotes where that needs no escape. Invisible and right-to-left characters come out escaped."""
    source = repr(value)
    # repr takes single quotes unless the text holds one; so without any double quote inside they can be swapped.
    return f'"{source[1:-1]}"' if source[0] == "'" and '"' not in value else source


def _is_several_lines(value: Any) -> bool:
    """Whether a text in it has several lines, each of which gets a line of its own."""
    if isinstance(value, dict):
        return any(map(_is_several_lines, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_is_several_lines, value))
    return isinstance(value, str) and "\n" in value.rstrip("\n")


def _long_text(value: str, depth: int) -> str:
    """A text of several lines as adjacent literals, one a line, so that a diff shows the line that changed."""
    lines = value.split("\n")
    pieces = [f"{line}\n" for line in lines[:-1]] + lines[-1:]
    kept = [_text(piece) for piece in pieces if piece]
    if len(kept) < 2:
        return _text(value)
    outer, inner = INDENT * depth, INDENT * (depth + 1)
    return "(\n" + "".join(f"{inner}{piece}\n" for piece in kept) + f"{outer})"


def _block(opening: str, items: list[str], closing: str, depth: int) -> str:
    inner = INDENT * (depth + 1)
    return f"{opening}\n" + "".join(f"{inner}{item},\n" for item in items) + INDENT * depth + closing
