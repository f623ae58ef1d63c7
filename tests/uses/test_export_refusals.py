"""What cannot be exported is refused in words, and nothing that is there is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import kchain
from export_tools import base_of, make_result
from safetensors.torch import load_file, save_file

from kchain.errors import InputError
from kchain.phases import load_chain
from kchain.uses.merged import workshop


def refused(project: Path, *arguments: str, code: int = 2) -> str:
    done = kchain(project, "export", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_a_place_that_is_taken_is_replaced_only_by_force_and_only_if_it_is_an_export(
    finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert kchain(finished, "export", "--format", "adapter", "--out", str(out)).returncode == 0
    before = (out / "kchain-export.json").read_bytes()
    assert "replace it with --force" in refused(finished, "--format", "adapter", "--out", str(out))
    (out / "README.md").write_text("changed")
    assert kchain(finished, "export", "--format", "adapter", "--out", str(out), "--force").returncode == 0
    assert (out / "kchain-export.json").read_bytes() == before, "the same chain gives the same files"
    assert "changed" not in (out / "README.md").read_text()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    assert "is not an export of kchain" in refused(finished, "--format", "adapter", "--out", str(mine), "--force")
    assert (mine / "thesis.txt").read_text() == "years"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"], "no working files are left"


def test_a_phase_that_is_not_finished_has_nothing_to_export(copied: Callable[[], Path]) -> None:
    project = copied()
    shutil.copyfile(project / "phases/phase2.toml", project / "phases/phase3.toml")
    text = (project / "phases/phase3.toml").read_text()
    (project / "phases/phase3.toml").write_text(text.replace('"phase1"', '"phase2"').replace("Phase 2", "Phase 3"))
    said = refused(project, code=3)
    assert "phase3 has no verified adapter: it is new" in said and "kchain watch" in said
    assert kchain(project, "export", "phase2", "--format", "adapter").returncode == 0


def test_a_phase_trained_on_a_replaced_adapter_is_refused(copied: Callable[[], Path]) -> None:
    project = copied()
    shutil.rmtree(project / "runs/local/phase1")
    make_result(load_chain(project), "phase1", seed=9)
    assert "phase2 was trained on an adapter that has been replaced since" in refused(project, code=3)


def test_a_changed_or_missing_adapter_is_refused(copied: Callable[[], Path]) -> None:
    project = copied()
    weights = project / "runs/local/phase1/v1/adapter/adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, weights, {"format": "pt"})
    assert "it changed since it was verified" in refused(project, code=1)
    shutil.rmtree(weights.parent)
    assert "kchain pull phase1" in refused(project)


def test_without_the_base_model_the_way_to_get_it_is_told(copied: Callable[[], Path], tmp_path: Path) -> None:
    project = copied()
    shutil.move(base_of(project), tmp_path / "base")
    said = refused(project)
    assert "kaggle models instances versions download kchain/tiny-qwen/transformers/random/1" in said
    assert "--base" in said
    done = kchain(project, "export", "--format", "adapter", "--base", str(tmp_path / "base"))
    assert done.returncode == 0, done.stderr


def test_another_base_model_is_refused_by_size_and_by_shape(copied: Callable[[], Path], tmp_path: Path) -> None:
    project = copied()
    other = Path(shutil.copytree(base_of(project), tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name] = tensors[name][:48].contiguous()
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    assert "another base model: its weights have" in refused(project, "--base", str(other))
    # The same size, as if by accident.
    tensors["model.layers.0.extra.weight"] = load_file(base_of(project) / "model.safetensors")[name][48:].contiguous()
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    grown = (other / "model.safetensors").stat().st_size
    journal = project / ".kchain/journal.db"
    import sqlite3

    with sqlite3.connect(journal) as db:
        db.execute("DROP TRIGGER event_is_final")
        for number, detail in db.execute("SELECT number, detail FROM event").fetchall():
            changed = json.loads(detail) | {"moved": {"base_bytes": grown}}
            db.execute("UPDATE event SET detail = ? WHERE number = ?", (json.dumps(changed), number))
    for form in ("safetensors", "adapter", "gguf"):
        assert "does not have the weight's shape" in refused(project, "--base", str(other), "--format", form)
    assert not (project / "exports").exists() or not list((project / "exports").iterdir())


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda base: (base / "config.json").unlink(), "config.json is missing"),
        (lambda base: (base / "model.safetensors").rename(base / "model.bin"), "holds no *.safetensors"),
        (lambda base: (base / "config.json").write_bytes(b"\x1f\x8b\x08"), "is gzip although its name says otherwise"),
    ],
)
def test_a_folder_that_is_no_sound_model_is_refused(
    copied: Callable[[], Path], spoil: Callable[[Path], object], words: str
) -> None:
    project = copied()
    spoil(base_of(project))
    assert words in refused(project)


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="are needed, .* are free"), workshop(tmp_path / "out", 10**18, False):
        pytest.fail("the workshop was opened")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_export_left_goes_when_nobody_can_be_at_it(tmp_path: Path) -> None:
    for name in (".out-dead", ".out-live", ".other-dead"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    for left in (tmp_path / ".out-dead", tmp_path / ".other-dead", tmp_path / ".out-live"):
        os.utime(left, (0, 0))
    for dead in (tmp_path / ".out-dead", tmp_path / ".other-dead"):
        os.utime(dead / "model.safetensors", (0, 0))
    with workshop(tmp_path / "out", 10, False):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other-dead", ".out-live"]


def test_a_chain_with_two_ends_asks_which(copied: Callable[[], Path]) -> None:
    project = copied()
    text = (project / "phases/phase2.toml").read_text().replace("Tiny Phase 2", "Tiny Other")
    (project / "phases/other.toml").write_text(text)
    assert "this chain has 2 ends: other, phase2" in refused(project)
    assert "--type belongs to --format gguf" in refused(project, "phase2", "--type", "f16")
