"""`kchain-result.json` as it comes: from an older kchain, from another bundle, cut short, or made up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from kchain.errors import AdapterRefused
from kchain.orchestrator.journal.state import Ancestor
from kchain.orchestrator.judging.result import Metrics, ResultFile, parse, read_result
from kchain.runtime.contract import METRICS, RESULT, PhaseResult, UseResult

OLD = Path(__file__).parent / "old_project" / "project" / "runs" / "local"


def written(folder: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / RESULT).write_text(text, encoding="utf-8")
    return folder


def read(folder: Path, content: Any) -> ResultFile:
    result = read_result(written(folder, content))
    assert result is not None
    return result


def test_a_session_that_left_no_result_is_told_from_one_that_left_a_bad_one(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    for bad in ("", "[]", "null", "{ not json", "\x00", '{"a":' * 100_000):
        with pytest.raises(AdapterRefused, match=RESULT) as refused:
            read_result(written(tmp_path, bad))
        assert refused.value.hint


def test_what_an_older_kchain_wrote_is_read() -> None:
    done, paused = read_result(OLD / "two" / "v1"), read_result(OLD / "three" / "v1")
    assert done is not None and done.adapter is not None and done.lineage is not None
    assert (done.status, done.metrics.steps, done.metrics.all_epochs, done.seconds) == ("complete", 4, True, 1.0)
    assert [each.phase for each in done.lineage] == ["one"]
    assert done.told["metrics"]["epochs"] == 1.0
    assert paused is not None and paused.checkpoint is not None
    assert (paused.stopped, paused.adapter, paused.checkpoint.folder) == ("time", None, "checkpoint")


def test_what_is_missing_or_null_has_a_default(tmp_path: Path) -> None:
    empty = read(tmp_path, {})
    assert (empty.status, empty.lineage, empty.metrics, empty.told) == ("", None, Metrics(), {})
    nulls = dict.fromkeys(ResultFile.model_fields)
    assert read(tmp_path, nulls).model_copy(update={"told": {}}) == empty


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", '"0.5"', "true", "[0.5]", "9" * 400])
def test_a_figure_that_is_no_finite_number_is_no_figure(tmp_path: Path, value: str) -> None:
    text = '{"metrics": {"loss_last": VALUE, "steps": VALUE}, "seconds": VALUE}'.replace("VALUE", value)
    result = read(tmp_path, text)
    assert (result.metrics.loss_last, result.seconds) == (None, None)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"metrics": "lost"}, "metrics is lost"),
        ({"status": 4}, "status is 4"),
        ({"lineage": "none"}, "lineage is none"),
        ({"lineage": [{"phase": "one"}]}, "lineage.0.sha256 is missing"),
        ({"tokens": ["a"]}, "tokens is"),
        ({"adapter": "adapter"}, "adapter is adapter"),
        ({"checkpoint": "there"}, "checkpoint is there"),
        ({"outputs": {"a.gguf": {"bytes": "many", "sha256": ""}}}, "outputs.a.gguf.bytes is many"),
    ],
)
def test_a_value_of_a_wrong_type_refuses_the_file_by_name(tmp_path: Path, content: Any, place: str) -> None:
    with pytest.raises(AdapterRefused) as refused:
        read(tmp_path, content)
    assert f"{tmp_path / RESULT}: {place}" in refused.value.message


def test_in_what_is_only_shown_the_part_that_makes_no_sense_is_left_out(tmp_path: Path) -> None:
    figures = {"loss": 1, "token_accuracy": 0.5}
    splits = [3, {"phase": "one"}, {"phase": "two", "examples": 8, "before": None, "after": figures}]
    styles = {"by_style": {"<A>": 3, "<B>": {"tokens": 2, "ended": 1}}}
    result = read(
        tmp_path,
        {
            "evaluation": {"splits": splits, "styles": styles, "absent": {"a": 3, "b": "too few examples"}},
            "examples": "none",
            "quality": {"faults": {"twice": {"count": 2, "share": 0.1}, "odd": {"count": "two"}}},
            "versions": ["torch"],
        },
    )
    assert [split.phase for split in result.evaluation.splits] == ["two"]
    assert (list(result.evaluation.styles.by_style), result.evaluation.absent) == (["<B>"], {"b": "too few examples"})
    assert (result.examples.train, list(result.quality.faults), result.versions) == (None, ["twice"], {})


def test_more_than_is_known_does_not_matter(tmp_path: Path) -> None:
    line = {"phase": "one", "sha256": "a", "kind": "kernel", "ref": "me/one", "use": "merge", "since": "tomorrow"}
    assert read(tmp_path, {"lineage": [line], "of": "another kchain"}).lineage == (Ancestor("one", "a"),)


def test_every_field_that_is_read_is_one_that_sessions_write() -> None:
    written = {each.name for kind in (PhaseResult, UseResult) for each in dataclasses.fields(kind)}
    assert set(ResultFile.model_fields) - written == {"told"}
    assert set(Metrics.model_fields) - set(METRICS) == {"all_epochs", "success_rate", "better"}


def test_metrics_of_a_kind_that_is_not_read_here_are_kept(tmp_path: Path) -> None:
    kept = parse(ResultFile, {"metrics": {"bytes": {"gguf": 7}}}, tmp_path).metrics.model_dump(exclude_unset=True)
    assert kept == {"bytes": {"gguf": 7}}
