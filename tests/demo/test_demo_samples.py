"""The sample data: small, readable, and fitting the phase files that use them."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from kchain.demo.tokenizer import SAMPLES, Sample, texts
from kchain.phases import Chain, Source, load_chain

READABLE = [sample for sample in SAMPLES if sample.file == "train.jsonl"]


def rows(sample: Sample) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sample.text().splitlines()]


@pytest.fixture(scope="module")
def tiny() -> Chain:
    return load_chain(Path(str(files("kchain.phases"))) / "shipped" / "tiny")


def sources(chain: Chain) -> list[Source]:
    return [source for phase in chain.phases for source in phase.data.sources]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.ref)
def test_a_sample_is_small_enough_to_ship(sample: Sample) -> None:
    assert 0 < len(sample.text().encode()) < 60_000


@pytest.mark.parametrize("sample", READABLE, ids=lambda sample: sample.ref)
def test_a_sample_has_a_hundred_examples_or_more_and_none_twice(sample: Sample) -> None:
    lines = sample.text().splitlines()
    assert len(lines) >= 100
    assert len(set(lines)) == len(lines)


def test_every_data_set_of_the_tiny_chain_is_published_under_its_name(tiny: Chain) -> None:
    assert {(source.dataset, source.file) for source in sources(tiny)} == {(each.ref, each.file) for each in SAMPLES}


def test_every_row_has_the_columns_that_its_source_maps(tiny: Chain) -> None:
    by_ref = {sample.ref: sample for sample in READABLE}
    for source in sources(tiny):
        if source.dataset in by_ref:
            wanted = set(source.fields.values()) | {condition.column for condition in source.where}
            assert all(wanted <= set(row) for row in rows(by_ref[source.dataset]))


def test_every_filter_keeps_some_rows_and_leaves_others_out(tiny: Chain) -> None:
    by_ref = {sample.ref: sample for sample in READABLE}
    for source in sources(tiny):
        for condition in source.where:
            assert source.dataset is not None
            kept = [row[condition.column] == condition.equals for row in rows(by_ref[source.dataset])]
            assert any(kept) and not all(kept)


def test_the_broken_sample_is_broken() -> None:
    broken = next(sample for sample in SAMPLES if sample not in READABLE)
    with pytest.raises(ValueError):
        json.loads(broken.text())


def test_conversations_take_turns_and_end_with_an_answer() -> None:
    chat = next(sample for sample in SAMPLES if sample.ref.endswith("chat"))
    for row in rows(chat):
        roles = [turn["role"] for turn in row["messages"]]
        assert len(roles) >= 4
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_written_into_a_folder_a_sample_is_one_file_of_that_text(tmp_path: Path) -> None:
    for sample in SAMPLES:
        folder = tmp_path / sample.ref.replace("/", "-")
        folder.mkdir()
        sample.write(folder)
        assert [path.name for path in folder.iterdir()] == [sample.file]
        assert (folder / sample.file).read_text(encoding="utf-8") == sample.text()


def test_the_tokenizer_learns_from_every_readable_sample() -> None:
    everything = set(texts())
    for sample in READABLE:
        first = rows(sample)[0]
        leaf = first["messages"][0]["content"] if "messages" in first else next(iter(first.values()))
        assert leaf in everything
