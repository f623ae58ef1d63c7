"""Adapters that are taken over on the real server: from a kernel, a folder, a data set, after a lost journal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import drive_quick
import pytest
from drive_project import OWNER, Maker, Project

from kchain.errors import (
    AdapterRefused,
    InputError,
)
from kchain.orchestrator.adopt import Origin, adopt
from kchain.orchestrator.driving.folders import adopted
from kchain.orchestrator.journal.journal import JOURNAL
from kchain.runtime.contract import CONFIG


def test_a_lost_journal_is_rebuilt_from_the_kernels(finished: Project, tmp_path: Path) -> None:
    states = finished.states()
    moved = tmp_path / "journal.db"
    (finished.root / JOURNAL).rename(moved)
    for phase in ("one", "two"):
        code, out, error = finished.run("adopt", phase, "--kernel", f"{OWNER}/quick-phase-{phase}")
        assert code == 0, error
        assert f"{phase} is done" in out
    rebuilt = finished.states()
    for phase in ("one", "two"):
        old, new = states[phase].result, rebuilt[phase].result
        assert old is not None
        assert new is not None
        assert (old.sha256, old.lineage, old.version, old.adopted) == (
            new.sha256,
            new.lineage,
            new.version,
            new.adopted,
        )
    assert adopted(finished.root, "local") == {}
    finished.watch()
    assert finished.versions() == [1, 1]


def test_an_adapter_in_another_kernel_is_taken_over(make: Maker) -> None:
    project = make(phases=1)
    with pytest.raises(InputError, match="no such kernel"):
        adopt(project.chain, "one", project.target, Origin(kernel=f"{OWNER}/nothing"), project.listener)
    with pytest.raises(InputError, match="not one that kchain pushed"):
        adopt(project.chain, "one", project.target, Origin(kernel=f"{OWNER}/quick-phase-one"), project.listener)
    project.watch(yes=True)
    drive_quick.write_phase(project.root, "other", None, "Teaches something else.")
    origin = Origin(kernel=f"{OWNER}/quick-phase-one")
    taken = adopt(project.chain, "other", project.target, origin, project.listener)
    assert (taken.kind, taken.version, taken.source_folder, taken.lineage) == ("kernel", 1, "adapter", ())
    source = adopted(project.root, "local")["other"]
    assert (source.kind, source.ref, source.sha256) == ("kernel", f"{OWNER}/quick-phase-one", taken.sha256)


def test_an_adapter_from_a_folder_becomes_the_result_of_a_phase_and_the_next_builds_on_it(
    make: Maker, finished: Project
) -> None:
    result = finished.states()["one"].result
    assert result is not None
    theirs = finished.root / result.folder
    project = make("taken")
    taken = adopt(project.chain, "one", project.target, Origin(folder=theirs), project.listener)
    assert (taken.sha256, taken.kind, taken.adopted) == (result.sha256, "dataset", True)
    assert taken.ref == f"{OWNER}/quick-one-adapter-{result.sha256[:8]}"
    assert set(adopted(project.root, "local")) == {"one"}
    again = adopt(project.chain, "one", project.target, Origin(dataset=taken.ref), project.listener)
    assert again.sha256 == taken.sha256
    project.watch(yes=True)
    two = project.states()["two"].result
    assert two is not None
    assert [ancestor.sha256 for ancestor in two.lineage or ()] == [result.sha256]
    assert project.versions() == [0, 1]


def test_an_adapter_trained_on_other_adapters_is_not_taken_over(make: Maker, finished: Project) -> None:
    first, second = (finished.states()[phase].result for phase in ("one", "two"))
    assert first is not None
    assert second is not None
    project = make("ancestors")
    for phase in ("one", "two"):
        result = first if phase == "one" else second
        adopt(project.chain, phase, project.target, Origin(folder=finished.root / result.folder), project.listener)
    before = project.states()
    with pytest.raises(AdapterRefused, match="trained on the base alone, two builds on"):
        adopt(project.chain, "two", project.target, Origin(folder=finished.root / first.folder), project.listener)
    assert project.states() == before


def test_another_adapter_from_a_folder_does_not_meet_the_data_set_of_the_one_before(
    make: Maker, finished: Project
) -> None:
    project = make("again")
    refs = []
    for phase in ("one", "two"):
        result = finished.states()[phase].result
        assert result is not None
        folder = project.root / f"theirs-{phase}"
        shutil.copytree(finished.root / result.folder, folder)
        (folder / "kchain-result.json").unlink(missing_ok=True)
        refs.append(adopt(project.chain, "one", project.target, Origin(folder=folder), project.listener).ref)
    assert len(set(refs)) == 2


def test_an_adapter_that_does_not_belong_to_the_chain_is_not_taken_over(make: Maker, finished: Project) -> None:
    project = make("refusing")
    result = finished.states()["one"].result
    assert result is not None
    origin = Origin(folder=finished.root / result.folder)
    with pytest.raises(AdapterRefused, match="151654"):
        adopt(project.chain, "one", project.target, origin, project.listener, pad_id=151654)
    (project.root / "empty").mkdir()
    with pytest.raises(InputError, match="no adapter_model.safetensors"):
        adopt(project.chain, "one", project.target, Origin(folder=project.root / "empty"), project.listener)
    stacked = project.root / "stacked"
    shutil.copytree(finished.root / result.folder, stacked)
    config = json.loads((stacked / CONFIG).read_text(encoding="utf-8"))
    (stacked / CONFIG).write_text(json.dumps(config | {"layer_replication": [[0, 1], [0, 1]]}), encoding="utf-8")
    with pytest.raises(AdapterRefused, match="it has layer_replication"):
        adopt(project.chain, "one", project.target, Origin(folder=stacked), project.listener)
    text = (project.root / "kchain.toml").read_text(encoding="utf-8").replace("r = 2", "r = 8")
    (project.root / "kchain.toml").write_text(text, encoding="utf-8")
    with pytest.raises(AdapterRefused, match="another LoRA than the chain's"):
        adopt(project.chain, "one", project.target, origin, project.listener)
    assert project.states() == {}
