"""What earlier phases kept aside: found, handed on, and never a reason to fail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from runtime_tiny import Events, write_jsonl

from kchain.runtime import splits
from kchain.runtime.adapters import Adapter
from kchain.runtime.contract import RESULT, VALIDATION
from kchain.runtime.failure import Stop
from kchain.runtime.paths import Paths

EXAMPLE = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(tmp_path / "input", tmp_path / "working", tmp_path / "temp")
    found.working.mkdir()
    return found


def mounted(paths: Paths, phase: str, use: str = "merge", kchains: bool = True) -> tuple[Adapter, Path]:
    """An adapter, and the folder of the output it is in."""
    mount = paths.input / "notebooks" / "me" / phase
    (mount / "adapter").mkdir(parents=True)
    if kchains:
        (mount / RESULT).write_text("{}")
    (mount / "adapter" / "adapter_config.json").write_text("{}")
    return Adapter(phase, "kernel", f"me/{phase}", mount / "adapter", "0" * 64, 1, use), mount


def test_every_phase_of_the_lineage_is_found_with_what_it_kept(paths: Paths) -> None:
    (one, first), (two, second) = mounted(paths, "one"), mounted(paths, "two")
    write_jsonl(first / VALIDATION, [EXAMPLE])
    write_jsonl(second / VALIDATION, [{"text": "a", "style": "<X>"}, {"text": "b"}])
    found, without = splits.find(paths, [one, two])
    assert [(kept.phase, len(kept.examples)) for kept in found] == [("one", 1), ("two", 2)]
    assert without == []


def test_a_text_with_another_alphabets_line_ends_is_one_example(paths: Paths) -> None:
    one, first = mounted(paths, "one")
    (first / VALIDATION).write_text('{"text": "a\u2028b\u2029c\x85d"}\r\n', encoding="utf-8", newline="")
    ((kept,), without) = splits.find(paths, [one])
    assert kept.examples == [{"text": "a\u2028b\u2029c\x85d"}]
    assert without == []


def test_an_adapter_without_a_split_is_named_and_not_warned_about(paths: Paths, events: Events) -> None:
    found, without = splits.find(paths, [mounted(paths, "one", kchains=False)[0]])
    assert found == []
    assert (without[0].phase, without[0].kept) == ("one", False)
    assert "me/one has no validation.jsonl: it was trained elsewhere" in without[0].reason
    assert events() == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is empty"),
        ("{", "cannot be read"),
        ("[1]\n", "line 1 is not an example"),
        (json.dumps(EXAMPLE) + '\n{"messages": []}\n', "line 2 is not an example"),
        ('{"messages": [{"role": "user"}]}\n', "line 1 is not an example"),
        ('{"messages": "a", "text": "b"}\n', "line 1 is not an example"),
        ('{"text": 3}\n', "line 1 is not an example"),
        ('{"text": "a", "style": null}\n', "line 1 is not an example"),
        ('{"text": "a", "style": ["x"]}\n', "line 1 is not an example"),
        (b"\x1f\x8b\x00", "cannot be read"),
    ],
)
def test_a_split_that_is_none_is_a_warning_with_the_reason(
    paths: Paths, content: str | bytes, reason: str, events: Events
) -> None:
    adapter, mount = mounted(paths, "one")
    (mount / VALIDATION).write_bytes(content if isinstance(content, bytes) else content.encode())
    found, without = splits.find(paths, [adapter])
    assert found == []
    assert without[0].kept and reason in without[0].reason
    assert reason in next(event["message"] for event in events() if event["event"] == "warning")
    with pytest.raises(Stop):
        splits.read(mount / VALIDATION)


def test_a_phase_that_trains_an_adapter_on_hands_on_what_was_kept_before_it(paths: Paths) -> None:
    adapter, mount = mounted(paths, "two", use="continue")
    write_jsonl(mount / VALIDATION, [EXAMPLE])
    write_jsonl(mount / "validation-one.jsonl", [EXAMPLE, EXAMPLE])
    splits.hand_on(paths, [mounted(paths, "zero")[0], adapter])
    assert sorted(path.name for path in paths.working.iterdir()) == ["validation-one.jsonl", "validation-two.jsonl"]
    assert len(splits.read(paths.working / "validation-one.jsonl")) == 2
    found, _ = splits.find(paths, [replace(adapter, use="merge")])
    assert [kept.phase for kept in found] == ["one", "two"], "and whoever builds on it finds them"


def test_files_of_a_data_set_that_kchain_did_not_make_are_not_taken_for_splits(paths: Paths) -> None:
    adapter, mount = mounted(paths, "one", kchains=False)
    write_jsonl(mount / "validation-clean.jsonl", [EXAMPLE])
    found, without = splits.find(paths, [adapter])
    assert found == []
    assert [one.phase for one in without] == ["one"]
