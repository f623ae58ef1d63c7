"""What a session of a phase that trains nothing must have left to count: its adapters, its files, its gates."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from uses_tools import result_of, use_chain

from kchain.client.pull import stays
from kchain.errors import AdapterRefused, EditedOutside, GateMissed, PhaseFailed
from kchain.orchestrator.journal.state import Ancestor, PhaseState, Result, Version
from kchain.orchestrator.judging.judge import Used, Verdict, judge
from kchain.orchestrator.status import read_results, table, write_page
from kchain.phases import Chain
from kchain.runtime.files import hash_file

GATES = "[gates]\nmin_success_rate = 0.5\nbetter = true\n"
GOOD = {"success_rate": 0.75, "better": "chain"}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return use_chain(tmp_path_factory.mktemp("judged"), judge=GATES)


def judged(chain: Chain, folder: Path, result: dict[str, Any], phase: str = "judge") -> Used:
    lineage = tuple(Ancestor(each.name, each.name[-1] * 64) for each in chain.lineage(phase))
    version = Version(1, "", "b" * 64, lineage, (), False, 0.0, word="COMPLETE", ended=True)
    (folder / "kchain-result.json").write_text(json.dumps(result), encoding="utf-8")
    verdict = judge(chain, phase, version, folder)
    assert isinstance(verdict, Verdict) and isinstance(verdict.made, Used)
    return verdict.made


def test_a_session_on_the_right_adapters_that_met_its_gates_counts(chain: Chain, tmp_path: Path) -> None:
    made = judged(chain, tmp_path, result_of(chain, "judge", metrics=GOOD))
    assert (made.found, dict(made.left)) == ("found", {})


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({**GOOD, "success_rate": 0.25}, "success rate: wanted >= 50.0%, got 25.0%"),
        ({**GOOD, "success_rate": None}, "success rate: wanted >= 50.0%, got not in the result"),
        ({**GOOD, "better": "base"}, "better: wanted the chain is better, got the base is"),
        ({**GOOD, "better": ""}, "better: wanted the chain is better, got no difference shown"),
    ],
)
def test_a_missed_gate_is_told(chain: Chain, tmp_path: Path, metrics: dict[str, Any], told: str) -> None:
    with pytest.raises(GateMissed, match="missed its gates") as error:
        judged(chain, tmp_path, result_of(chain, "judge", metrics=metrics))
    assert told in error.value.message


def test_other_adapters_another_bundle_and_a_failure_do_not_count(chain: Chain, tmp_path: Path) -> None:
    lineage = [{"phase": "phase1", "sha256": "1" * 64}]
    with pytest.raises(AdapterRefused, match="used other adapters"):
        judged(chain, tmp_path, result_of(chain, "judge", metrics=GOOD, lineage=lineage))
    with pytest.raises(EditedOutside):
        judged(chain, tmp_path, result_of(chain, "judge", metrics=GOOD, bundle="c" * 64))
    with pytest.raises(PhaseFailed, match="preflight: no bash"):
        judged(chain, tmp_path, result_of(chain, "judge", status="failed", reason="preflight: no bash"))


@pytest.mark.parametrize("outputs", [None, [], "x", {"a": 1}, {"a": {"bytes": "many", "sha256": ""}}, {"a": {}}])
def test_a_result_that_lists_its_files_otherwise_is_refused(chain: Chain, tmp_path: Path, outputs: Any) -> None:
    if outputs is None:
        assert judged(chain, tmp_path, result_of(chain, "make", outputs=outputs), "make").left == {}
        return
    with pytest.raises(AdapterRefused, match="outputs"):
        judged(chain, tmp_path, result_of(chain, "make", outputs=outputs), "make")


def test_files_that_came_are_compared_and_the_others_are_told(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_bytes(b"{}\n")
    told = {"bytes": 3, "sha256": hashlib.sha256(b"{}\n").hexdigest()}
    outputs = {"answers.jsonl": told, "export/safetensors/model.safetensors": {"bytes": 10**9, "sha256": "0" * 64}}
    made = judged(chain, tmp_path, result_of(chain, "make", outputs=outputs), "make")
    assert dict(made.left) == {"export/safetensors/model.safetensors": 10**9}
    assert made.bytes == 10**9 + 3
    (tmp_path / "answers.jsonl").write_bytes(b"{ }")
    with pytest.raises(AdapterRefused, match="is not the file that the session made"):
        judged(chain, tmp_path, result_of(chain, "make", outputs=outputs), "make")


def test_another_training_below_it_makes_it_stale_and_waits_to_be_finished(chain: Chain, tmp_path: Path) -> None:
    def state(phase: str, sha256: str) -> PhaseState:
        lineage = tuple(Ancestor(each.name, each.name[-1] * 64) for each in chain.lineage(phase))
        told = {"kind": "kernel", "ref": "a/b", "source_folder": "", "adopted": False, "bytes": 1, "pad_id": 1}
        rest = {"metrics": {}, "moved": {"base_bytes": 9}, "seconds": 1.0, "folder": "", "time": 0.0, "found": "found"}
        return PhaseState(result=Result(version=1, sha256=sha256, lineage=lineage, **told, **rest))

    states = {name: state(name, name[-1] * 64) for name in ("phase1", "phase2", "judge")}
    judged = next(row for row in table(chain, states) if row.phase == "judge")
    assert (judged.state, judged.found, judged.adapter_bytes, judged.whole) == ("done", "found", None, None)
    write_page(tmp_path / "chain.html", chain, "local", states)
    page = (tmp_path / "chain.html").read_text(encoding="utf-8")
    assert "evaluate phase2" in page and "<p>found</p>" in page, "the chain's page says it, too"
    assert "success rate" not in page, "the file of the result is not here"
    file = tmp_path / "kchain-result.json"
    file.write_text(json.dumps(result_of(chain, "judge", metrics=GOOD)), encoding="utf-8")
    known = states["judge"].result
    assert known is not None
    made = replace(known, sha256=hash_file(file), folder=str(tmp_path))
    states["judge"] = PhaseState(result=made)
    assert read_results(chain, states)["judge"].told["metrics"] == GOOD
    write_page(tmp_path / "chain.html", chain, "local", states)
    page = (tmp_path / "chain.html").read_text(encoding="utf-8")
    assert "success rate" in page and "75.0%" in page, "and every gate with its figure"
    file.write_text("{}", encoding="utf-8")
    assert "judge" not in read_results(chain, states), "another file than that of the result is not believed"
    states["phase1"] = state("phase1", "0" * 64)
    judged = next(row for row in table(chain, states) if row.phase == "judge")
    assert (judged.state, judged.found) == ("stale", ""), "what was found is no longer true"
    assert judged.next == "waits for phase2", "which is stale itself"


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("export/safetensors/model-00001-of-00002.safetensors", True),
        ("export/gguf/phase4-f16.gguf", True),
        ("export/safetensors/README.md", False),
        ("export/adapter/kchain-export.json", False),
        ("adapter/adapter_model.safetensors", False),
        ("evaluation.html", False),
    ],
)
def test_of_an_export_the_words_travel_and_the_models_stay(name: str, left: bool) -> None:
    assert stays(name) is left
