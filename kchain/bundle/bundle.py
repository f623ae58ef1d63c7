"""A phase as a bundle: its notebook, its metadata, and the hash that may be pushed. Pure and deterministic.

A later session of a phase has the bundle that was approved, told to resume from a checkpoint.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from kchain.bundle.cells import canonical_hash, cells_of, code_hash, stamp, text
from kchain.errors import InputError
from kchain.kernel_metadata import AdapterSource, Continuation, adapter_sources, kernel_metadata, with_continuation
from kchain.phases import Chain
from kchain.phases.machines import not_on_kaggle
from kchain.runtime.contract import decisive
from kchain.templates import NO_HASH, node, notebook
from kchain.templates.parameters import literal

if TYPE_CHECKING:
    from nbformat import NotebookNode


@dataclass(frozen=True)
class Bundle:
    """What a person reviews and what is pushed.

    Attributes:
        target: who it is for: kaggle, local or a URL.
        kernel: `owner/slug`.
        metadata: the content of `kernel-metadata.json`.
        timeout: seconds after which the target ends the session.
        hash: canonical hash, which also stands in the notebook as BUNDLE.
        code_hash: equal for two bundles that run the same code.
    """

    target: str
    phase: str
    kernel: str
    title: str
    notebook: NotebookNode
    metadata: dict[str, Any]
    timeout: int
    hash: str
    code_hash: str


def build(chain: Chain, phase_name: str, target: str, adopted: Mapping[str, AdapterSource]) -> Bundle:
    """Render a phase for a target.

    Args:
        adopted: ancestors whose adapter was trained elsewhere, by phase name.

    Raises:
        InputError: the chain has no phase of that name, or its machine is not one of the target's.
    """
    phase = chain.phase(phase_name)
    if target == "kaggle" and (problem := not_on_kaggle(phase.accelerator)):
        raise InputError(f"{phase.file}: accelerator: {problem}")
    sources = adapter_sources(chain, phase_name, adopted)
    cells = notebook(chain, phase_name, target, sources)
    metadata = kernel_metadata(chain, phase_name, sources)
    found = canonical_hash(cells, metadata, phase.session_timeout)
    stamp(cells, found)
    return Bundle(
        target=target,
        phase=phase_name,
        kernel=chain.kernel(phase_name),
        title=phase.title,
        notebook=cells,
        metadata=metadata,
        timeout=phase.session_timeout,
        hash=found,
        code_hash=code_hash(cells),
    )


def continued(bundle: Bundle, continuation: Continuation | None) -> Bundle:
    """The bundle of another session of the same run; None gives back the first one's."""
    values = parameters_of(bundle.notebook)
    metadata = with_continuation(bundle.metadata, continuation_of(bundle.notebook), continuation)
    values["continuation"] = asdict(continuation) if continuation is not None else None
    source = f'BUNDLE = "{NO_HASH}"\nPARAMETERS = {literal(values)}'
    cells = [{**cell, "source": source} if _is_parameters(cell) else dict(cell) for cell in bundle.notebook["cells"]]
    notebook = node({**bundle.notebook, "cells": cells})
    found = canonical_hash(notebook, metadata, bundle.timeout)
    stamp(notebook, found)
    return replace(bundle, notebook=notebook, metadata=metadata, hash=found)


def continuation_of(notebook: Mapping[str, Any]) -> Continuation | None:
    """What the notebook resumes from; None for a first session.

    Raises:
        ValueError: it has no PARAMETERS.
    """
    told = parameters_of(notebook).get("continuation")
    return Continuation(**told) if told else None


def same_training(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether a checkpoint of one notebook can be gone on from by the other: their parameters train the same.

    The code may differ (a newer kchain), and so may words, and when a session ends.

    Raises:
        ValueError: one has no PARAMETERS.
    """
    return decisive(parameters_of(first)) == decisive(parameters_of(second))


def parse(notebook: str, metadata: str) -> Bundle:
    """A bundle from the texts of its two files.

    Raises:
        ValueError, KeyError, TypeError: it is not a bundle of kchain's.
    """
    cells, told = cells_of(notebook), json.loads(metadata)
    parameters = parameters_of(cells)
    timeout = int(parameters["session_timeout"])
    return Bundle(
        target=parameters["target"],
        phase=parameters["phase"],
        kernel=told["id"],
        title=told["title"],
        notebook=node({**cells, "cells": [{**cell, "source": text(cell)} for cell in cells["cells"]]}),
        metadata=told,
        timeout=timeout,
        hash=canonical_hash(cells, told, timeout),
        code_hash=code_hash(cells),
    )


def parameters_of(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """The PARAMETERS literal, read without running anything.

    Raises:
        ValueError: there is none.
    """
    for cell in filter(_is_parameters, notebook["cells"]):
        try:
            statements = ast.parse(text(cell)).body
        except SyntaxError as error:
            raise ValueError(f"its parameters are not Python: {error}") from None
        for statement in statements:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "PARAMETERS":
                return dict(ast.literal_eval(statement.value))
    raise ValueError("its notebook has no PARAMETERS")


def _is_parameters(cell: Mapping[str, Any]) -> bool:
    return bool(cell["cell_type"] == "code" and text(cell).startswith("BUNDLE = "))
