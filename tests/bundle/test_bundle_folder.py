"""The bundle: what its hash sees and does not see, how it lies on disk, and what changed since."""

from __future__ import annotations

import copy
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from bundle_tools import write_project

from kchain.bundle import (
    AdapterSource,
    Bundle,
    build,
    bundle_folder,
    canonical_hash,
    cell_diff,
    code_hash,
    find_hash,
    read,
    same_cells,
    source_bytes,
    write,
)
from kchain.bundle.cells import cells_of
from kchain.errors import InputError


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return build(write_project(tmp_path), "two", "kaggle", {})


def as_kaggle_stores_it(path: Path) -> str:
    """The source that Kaggle's own client would send: its code, run on the file that kchain wrote."""
    body = json.loads(path.read_text(encoding="utf-8"))
    for cell in body["cells"]:
        if "outputs" in cell and cell["cell_type"] == "code":
            cell["outputs"] = []
        if "source" in cell and isinstance(cell["source"], list):
            cell["source"] = "".join(cell["source"])
    return json.dumps(body)


def test_the_hash_in_the_notebook_is_the_hash_of_the_bundle(bundle: Bundle) -> None:
    assert find_hash(nbformat.writes(bundle.notebook)) == bundle.hash
    assert canonical_hash(bundle.notebook, bundle.metadata, bundle.timeout) == bundle.hash
    assert len(bundle.hash) == 64
    assert bundle.hash != "0" * 64


def test_the_hash_survives_kaggles_client_and_a_round_trip_through_the_folder(tmp_path: Path, bundle: Bundle) -> None:
    folder = write(bundle, tmp_path)
    source = as_kaggle_stores_it(folder / "notebook.ipynb")
    assert canonical_hash(cells_of(source), bundle.metadata, bundle.timeout) == bundle.hash
    assert find_hash(source) == bundle.hash
    assert read(folder) == bundle
    assert len(source) == source_bytes(bundle.notebook), "the size is counted as the client sends it"


def test_outputs_counts_and_notebook_metadata_do_not_change_the_hash(bundle: Bundle) -> None:
    ran = copy.deepcopy(bundle.notebook)
    ran["metadata"]["kaggle"] = {"accelerator": "nvidiaTeslaT4"}
    for cell in ran["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [{"output_type": "stream", "name": "stdout", "text": "x"}], 7
    assert canonical_hash(ran, bundle.metadata, bundle.timeout) == bundle.hash


def _change_source(bundle: Any) -> None:
    bundle["notebook"]["cells"][3]["source"] += " "


def _change_id(bundle: Any) -> None:
    bundle["notebook"]["cells"][3]["id"] = "other"


def _change_type(bundle: Any) -> None:
    bundle["notebook"]["cells"][-1]["cell_type"] = "raw"


def _change_order(bundle: Any) -> None:
    bundle["notebook"]["cells"].reverse()


def _change_metadata(bundle: Any) -> None:
    bundle["metadata"]["enable_internet"] = False


def _change_timeout(bundle: Any) -> None:
    bundle["timeout"] += 1


CHANGES = [_change_source, _change_id, _change_type, _change_order, _change_metadata, _change_timeout]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.removeprefix("_change_"))
def test_whatever_a_person_reviews_changes_the_hash(bundle: Bundle, change: Callable[[Any], None]) -> None:
    parts = copy.deepcopy({"notebook": bundle.notebook, "metadata": bundle.metadata, "timeout": bundle.timeout})
    change(parts)
    assert canonical_hash(parts["notebook"], parts["metadata"], parts["timeout"]) != bundle.hash


def test_the_order_of_metadata_keys_does_not_matter(bundle: Bundle) -> None:
    shuffled = dict(reversed(bundle.metadata.items()))
    assert canonical_hash(bundle.notebook, shuffled, bundle.timeout) == bundle.hash


def test_a_rehearsal_runs_the_same_code_as_the_real_thing(tmp_path: Path) -> None:
    chain = write_project(tmp_path / "real")
    rehearsal = write_project(tmp_path / "rehearsal", more='accelerator = "cpu"\n')
    real, rehearsed = build(chain, "two", "kaggle", {}), build(rehearsal, "two", "local", {})
    assert real.code_hash == rehearsed.code_hash
    assert real.hash != rehearsed.hash


def test_the_code_hash_sees_a_changed_line_of_code_and_no_changed_value(bundle: Bundle) -> None:
    changed = copy.deepcopy(bundle.notebook)
    changed["cells"][1]["source"] = changed["cells"][1]["source"].replace("'", '"').replace("42", "43")
    assert code_hash(changed) == bundle.code_hash
    changed["cells"][-1]["source"] += "  # edited"
    assert code_hash(changed) != bundle.code_hash


def test_a_copy_that_lost_its_cell_ids_can_still_be_compared(bundle: Bundle) -> None:
    stripped = copy.deepcopy(bundle.notebook)
    for cell in stripped["cells"]:
        del cell["id"]
    assert canonical_hash(stripped, bundle.metadata, bundle.timeout) != bundle.hash
    assert same_cells(stripped, bundle.notebook)
    stripped["cells"][-1]["source"] += "\n"
    assert not same_cells(stripped, bundle.notebook)


@pytest.mark.parametrize("source", ["", "{", "[]", "null", '{"cells": 1}', '{"cells": [1]}', "[" * 100_000, "<html>"])
def test_what_is_no_notebook_has_no_hash(source: str) -> None:
    assert find_hash(source) is None
    with pytest.raises(ValueError):
        canonical_hash(cells_of(source), {}, 60)


def test_a_foreign_notebook_that_mentions_a_hash_is_not_taken_for_ours() -> None:
    line = f'BUNDLE = "{"a" * 64}"'
    cells = [{"cell_type": "markdown", "source": line}, {"cell_type": "code", "source": f"x = 1\n{line}"}]
    assert find_hash(json.dumps({"cells": cells})) is None


def test_the_folder_holds_the_two_files_that_kaggles_command_takes(tmp_path: Path, bundle: Bundle) -> None:
    folder = write(bundle, tmp_path)
    assert folder == tmp_path / "build" / "kaggle" / "two" == bundle_folder(tmp_path, "kaggle", "two")
    assert sorted(path.name for path in folder.iterdir()) == ["kernel-metadata.json", "notebook.ipynb"]
    assert json.loads((folder / "kernel-metadata.json").read_text(encoding="utf-8")) == bundle.metadata
    nbformat.validate(nbformat.read(folder / "notebook.ipynb", as_version=4))
    assert [path.name for path in folder.parent.iterdir()] == ["two"], "nothing is left lying about"


def test_the_folder_of_a_url_is_its_slug(tmp_path: Path) -> None:
    assert bundle_folder(tmp_path, "http://127.0.0.1:8080", "two").parent.name == "http-127-0-0-1-8080"


def test_writing_again_replaces_the_whole_folder(tmp_path: Path, bundle: Bundle) -> None:
    folder = write(bundle, tmp_path)
    (folder / "left-over.txt").write_text("x")
    (folder / "notebook.ipynb").write_text("edited")
    assert write(bundle, tmp_path) == folder
    assert read(folder) == bundle
    assert not (folder / "left-over.txt").exists()


def test_writing_what_is_already_there_touches_nothing(tmp_path: Path, bundle: Bundle) -> None:
    folder = write(bundle, tmp_path)
    before = (folder / "notebook.ipynb").stat().st_ino
    write(bundle, tmp_path)
    assert (folder / "notebook.ipynb").stat().st_ino == before


def test_a_file_in_the_place_of_the_folder_is_replaced(tmp_path: Path, bundle: Bundle) -> None:
    place = bundle_folder(tmp_path, "kaggle", "two")
    place.parent.mkdir(parents=True)
    place.write_text("x")
    assert read(write(bundle, tmp_path)) == bundle


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, bundle: Bundle) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InputError, match="cannot be written"):
        write(bundle, tmp_path)
    tmp_path.chmod(stat.S_IRWXU)


def test_a_build_that_is_a_file_is_told(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "build").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write(bundle, tmp_path)


def test_a_notebook_that_was_edited_after_rendering_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    folder = write(bundle, tmp_path)
    path = folder / "notebook.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("run.train()", "run.train(  )"), encoding="utf-8")
    with pytest.raises(InputError, match="was edited after it was rendered"):
        read(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"cells": []}', '{"cells": [{"cell_type": "code", "source": 1}]}']
)
@pytest.mark.parametrize("name", ["notebook.ipynb", "kernel-metadata.json"])
def test_a_broken_folder_is_told_without_a_traceback(tmp_path: Path, bundle: Bundle, name: str, content: str) -> None:
    folder = write(bundle, tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=r"does not hold a bundle of kchain's|was edited"):
        read(folder)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "nowhere")


def test_every_ancestor_stands_in_the_sources_and_in_the_parameters(tmp_path: Path) -> None:
    chain = write_project(tmp_path)
    taken = AdapterSource("one", "dataset", "someone/adapter-one", "", "cd" * 32)
    made = build(chain, "three", "kaggle", {"one": taken})
    assert made.metadata["kernel_sources"] == ["someone/demo-phase-two"]
    assert made.metadata["dataset_sources"] == ["a/b", "someone/adapter-one"]
    assert build(chain, "three", "kaggle", {}).metadata["kernel_sources"] == [
        "someone/demo-phase-one",
        "someone/demo-phase-two",
    ]
    assert made.hash != build(chain, "three", "kaggle", {}).hash


def test_an_unknown_phase_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no phase 'nine'"):
        build(write_project(tmp_path), "nine", "kaggle", {})


def test_a_diff_names_the_cell_and_shows_the_line(bundle: Bundle) -> None:
    changed = copy.deepcopy(bundle.notebook)
    for cell in changed["cells"]:
        if cell["id"] == "two-parameters":
            cell["source"] = cell["source"].replace('"epochs": 3', '"epochs": 4').replace(bundle.hash, "f" * 64)
    lines = cell_diff(bundle.notebook, changed)
    assert lines[0] == "=== two-parameters: changed"
    assert [line for line in lines if line[0] in "+-"] == ['-        "epochs": 3,', '+        "epochs": 4,']


def test_a_diff_against_nothing_shows_the_whole_notebook(bundle: Bundle) -> None:
    lines = cell_diff(None, bundle.notebook)
    assert sum(line.startswith("=== ") and line.endswith(": new") for line in lines) == len(bundle.notebook["cells"])
    assert "+run.train()" in lines


def test_a_diff_shows_cells_that_came_went_and_moved(bundle: Bundle) -> None:
    changed = copy.deepcopy(bundle.notebook)
    gone = changed["cells"].pop()
    changed["cells"].append({**gone, "id": "two-extra", "source": "print()"})
    changed["cells"][3], changed["cells"][5] = changed["cells"][5], changed["cells"][3]
    assert cell_diff(bundle.notebook, changed) == [
        "=== two-extra: new",
        "+print()",
        "=== two-save: gone",
        "-run.save()",
        "=== cells stand in another order",
    ]


def test_nothing_changed_is_an_empty_diff(bundle: Bundle) -> None:
    assert cell_diff(bundle.notebook, copy.deepcopy(bundle.notebook)) == []
