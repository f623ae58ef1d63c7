"""The bundle of a later session: what was approved, told where to go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_tools import write_project

from kchain.bundle import (
    Bundle,
    Continuation,
    build,
    continuation_of,
    continued,
    find_hash,
    metadata_text,
    notebook_text,
    parameters_of,
    parse,
    same_cells,
    same_training,
    write,
)
from kchain.bundle.lint import lint
from kchain.phases import load_chain

SHA = "a" * 64


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return build(write_project(tmp_path), "two", "kaggle", {})


def own_output(bundle: Bundle) -> Continuation:
    return Continuation(2, "kernel", bundle.kernel, "checkpoint", SHA)


DATA_SET = Continuation(3, "dataset", "someone/chain-two-checkpoint-aaaaaaaa", "", SHA)


def test_only_the_continuation_and_one_source_differ(bundle: Bundle) -> None:
    later = continued(bundle, own_output(bundle))
    before, after = parameters_of(bundle.notebook), parameters_of(later.notebook)
    assert before.pop("continuation") is None
    assert after.pop("continuation") == {
        "session": 2,
        "kind": "kernel",
        "ref": bundle.kernel,
        "folder": "checkpoint",
        "sha256": SHA,
    }
    assert before == after
    assert later.code_hash == bundle.code_hash
    assert later.metadata["kernel_sources"] == [*bundle.metadata["kernel_sources"], bundle.kernel]
    assert {key for key in later.metadata if later.metadata[key] != bundle.metadata[key]} == {"kernel_sources"}


def test_it_carries_its_own_hash(bundle: Bundle) -> None:
    later = continued(bundle, own_output(bundle))
    assert later.hash != bundle.hash
    assert find_hash(notebook_text(later)) == later.hash


def test_one_session_after_another_leads_back_to_the_first(bundle: Bundle) -> None:
    third = continued(continued(bundle, own_output(bundle)), DATA_SET)
    assert third.metadata["kernel_sources"] == bundle.metadata["kernel_sources"]
    assert third.metadata["dataset_sources"][-1] == DATA_SET.ref
    assert continuation_of(third.notebook) == DATA_SET
    assert continued(third, None) == bundle
    assert same_cells(continued(third, None).notebook, bundle.notebook)


def test_it_is_what_its_files_say(bundle: Bundle, tmp_path: Path) -> None:
    later = continued(bundle, own_output(bundle))
    assert parse(notebook_text(later), metadata_text(later.metadata)) == later


def test_it_lints_with_a_warning_about_its_own_output(bundle: Bundle, tmp_path: Path) -> None:
    folder = write(continued(bundle, own_output(bundle)), tmp_path / "elsewhere")
    assert [(each.rule, each.severity) for each in lint(folder)] == [("KC112", "warning")]


@pytest.mark.parametrize(
    ("table", "same"),
    [
        ("max_sessions = 9\nstep_seconds = 3.0\n", True),
        ("learning_rate = 0.001\n", False),
        ("epochs = 7\n", False),
        ("max_length = 99\n", False),
    ],
)
def test_a_checkpoint_fits_whoever_trains_the_same_whatever_ends_its_sessions(
    bundle: Bundle, tmp_path: Path, table: str, same: bool
) -> None:
    with (tmp_path / "phases" / "two.toml").open("a") as file:
        file.write(f"[training]\n{table}")
    changed = build(load_chain(tmp_path), "two", "kaggle", {})
    assert changed.hash != bundle.hash
    assert same_training(changed.notebook, continued(bundle, own_output(bundle)).notebook) is same


@pytest.mark.parametrize("source", ["BUNDLE = 'x'\nPARAMETERS = {", "BUNDLE = 'x'\nPARAMETERS = f()", "print(1)"])
def test_a_notebook_without_parameters_is_a_value_error(source: str) -> None:
    with pytest.raises(ValueError):
        parameters_of({"cells": [{"cell_type": "code", "source": source}]})
