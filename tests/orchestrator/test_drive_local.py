"""Chains on the real embedded server, with the real client and real sessions; the notebooks train nothing."""

from __future__ import annotations

import json
import re

import drive_quick
from drive_project import OWNER, Project

from kchain.orchestrator.journal.journal import JOURNAL
from kchain.orchestrator.push import preview
from kchain.orchestrator.review import review


def test_a_chain_runs_through_and_each_phase_builds_on_the_one_before(finished: Project) -> None:
    states = finished.states()
    one, two = states["one"].result, states["two"].result
    assert one is not None
    assert two is not None
    assert [(ancestor.phase, ancestor.sha256) for ancestor in two.lineage or ()] == [("one", one.sha256)]
    assert (two.version, two.pad_id, two.metrics["steps"]) == (1, 151645, 4)
    assert (finished.root / two.folder / "adapter_model.safetensors").is_file()
    steps = [event["step"] for phase, event in finished.listener.events if phase == "one" and event["event"] == "step"]
    assert steps == [1, 2, 3, 4]


def test_run_again_a_finished_chain_pushes_nothing_and_says_so(finished: Project) -> None:
    code, out, error = finished.run("watch")
    assert (code, error) == (0, "")
    assert "nothing was pushed" in out
    assert "2.000 -> 0.500" in out
    assert finished.versions() == [1, 1]


def test_pushing_a_finished_phase_again_is_a_no_op(finished: Project) -> None:
    code, out, _ = finished.run("push", "one")
    assert code == 0
    assert "nothing to push: version 1 of one is this bundle" in out
    assert finished.versions() == [1, 1]


def test_status_is_a_table_for_people_and_json_for_programs(finished: Project) -> None:
    code, out, _ = finished.run("status")
    assert code == 0
    assert re.search(r"one +done +1 +0\.500 +80\.0%", out)
    code, out, _ = finished.run("status", "--json")
    phases = json.loads(out)["phases"]
    assert [(row["phase"], row["state"], row["version"], row["next"]) for row in phases] == [
        ("one", "done", 1, ""),
        ("two", "done", 1, ""),
    ]


def test_logs_show_what_the_notebook_printed(finished: Project) -> None:
    for arguments in (["logs", "one"], ["logs", "one", "-f"]):
        code, out, _ = finished.run(*arguments)
        assert code == 0
        assert 'kchain: {"event": "step", "step": 4' in out


def test_pull_fetches_the_outputs_again(finished: Project) -> None:
    folder = finished.root / "runs" / "local" / "two" / "v1"
    (folder / "kchain-result.json").write_text("{}", encoding="utf-8")
    code, out, _ = finished.run("pull", "two")
    assert code == 0
    assert "adapter/adapter_model.safetensors" in out
    assert json.loads((folder / "kchain-result.json").read_text(encoding="utf-8"))["phase"] == "two"


def test_a_dry_run_shows_everything_and_changes_nothing(finished: Project) -> None:
    before = (finished.root / JOURNAL).read_bytes()
    shown = preview(finished.chain, "two", finished.target, again=True)
    assert shown.verdict == "would push over version 1"
    assert shown.metadata["kernel_sources"] == [f"{OWNER}/quick-phase-one"]
    assert shown.command == "kaggle kernels push -p build/local/two -t 600"
    assert "would push nothing" in preview(finished.chain, "two", finished.target, again=False).verdict
    assert (finished.root / JOURNAL).read_bytes() == before
    assert finished.versions() == [1, 1]


def test_review_shows_no_change_after_a_push_and_the_change_after_an_edit(finished: Project) -> None:
    (before,) = review(finished.chain, finished.target, ["two"])
    assert (before.changes, before.pushed, before.known) == ((), 1, True)
    drive_quick.write_phase(finished.root, "two", "one", "Teaches it better.")
    (after,) = review(finished.chain, finished.target, ["two"])
    drive_quick.write_phase(finished.root, "two", "one", "Teaches it.")
    assert not after.known
    assert any(line.startswith("-") and "Teaches it." in line for line in after.changes)
    assert any(line.startswith("+") and "Teaches it better." in line for line in after.changes)
