"""A later session of a phase: the bundle that was approved, told to go on from a checkpoint. Pure.

Only PARAMETERS["continuation"] and one source differ, so the code hash stays; a person who approved the first session
approved these.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from kchain.bundle.build import Bundle
from kchain.bundle.hash import canonical_hash, cells_of, code_hash, stamp, text
from kchain.kernel_metadata import Continuation, with_continuation
from kchain.templates import NO_HASH, node
from kchain.templates.literal import literal

# What may change between two sessions of one training, since it does not change what is learned: the lists of
# kchain/runtime/checkpoint.py, which refuses a checkpoint of other parameters.
MAY_CHANGE = ("title", "description", "target", "environment", "session_timeout", "continuation", "samples")
MAY_CHANGE_IN_TRAINING = ("logging_steps", "step_seconds", "max_sessions", "processes")


def continued(bundle: Bundle, continuation: Continuation | None) -> Bundle:
    """The bundle of another session of the same run; None gives back the first one's."""
    values = parameters_of(bundle.notebook)
    metadata = with_continuation(bundle.metadata, _continuation(values), continuation)
    values["continuation"] = asdict(continuation) if continuation is not None else None
    source = f'BUNDLE = "{NO_HASH}"\nPARAMETERS = {literal(values)}'
    cells = [{**cell, "source": source} if _is_parameters(cell) else dict(cell) for cell in bundle.notebook["cells"]]
    notebook = node({**bundle.notebook, "cells": cells})
    found = canonical_hash(notebook, metadata, bundle.timeout)
    stamp(notebook, found)
    return replace(bundle, notebook=notebook, metadata=metadata, hash=found)


def continuation_of(notebook: Mapping[str, Any]) -> Continuation | None:
    """What the notebook goes on from; None for a first session.

    Raises:
        ValueError: it has no PARAMETERS.
    """
    return _continuation(parameters_of(notebook))


def same_training(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether a checkpoint of one notebook can be gone on from by the other: their parameters train the same.

    The code may differ (a newer kchain), and so may words, and when a session ends.

    Raises:
        ValueError: one has no PARAMETERS.
    """
    return _training(first) == _training(second)


def parse(notebook: str, metadata: str) -> Bundle:
    """A bundle from the texts of its two files.

    Raises:
        ValueError, KeyError, TypeError: it is no bundle of kchain's.
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
    for cell in notebook["cells"]:
        if _is_parameters(cell):
            for statement in _statements(text(cell)):
                if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "PARAMETERS":
                    return dict(ast.literal_eval(statement.value))
    raise ValueError("its notebook has no PARAMETERS")


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"its parameters are no Python: {error}") from None


def _is_parameters(cell: Mapping[str, Any]) -> bool:
    return bool(cell["cell_type"] == "code" and text(cell).startswith("BUNDLE = "))


def _continuation(values: Mapping[str, Any]) -> Continuation | None:
    told = values.get("continuation")
    return Continuation(**told) if told else None


def _training(notebook: Mapping[str, Any]) -> dict[str, Any]:
    values = parameters_of(notebook)
    kept = {key: value for key, value in values.items() if key not in (*MAY_CHANGE, "training")}
    training = {key: value for key, value in values["training"].items() if key not in MAY_CHANGE_IN_TRAINING}
    return {**kept, "training": training}
