"""What `kchain demo` prepares before it drives the chain, and what it says when it cannot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kchain.demo import project as run
from kchain.demo.tokenizer import MODEL, SAMPLES
from kchain.errors import InputError
from kchain.phases.init import make_project
from kchain.server.publish import dataset_folder, model_folder


def kchain(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kchain", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield path.relative_to(folder).as_posix(), path.read_bytes()


def test_an_empty_place_becomes_an_ordinary_project(tmp_path: Path) -> None:
    chain = run.open_project(tmp_path / "kchain-demo")
    assert (chain.name, chain.owner, chain.target) == ("tiny", "demo", "local")
    assert (tmp_path / "kchain-demo" / "phases" / "phase4.toml").is_file()


def test_a_project_that_was_changed_is_used_as_it_is(tmp_path: Path) -> None:
    run.open_project(tmp_path)
    file = tmp_path / "kchain.toml"
    file.write_text(file.read_text().replace("seed = 42", "seed = 7"))
    before = dict(contents(tmp_path))
    assert run.open_project(tmp_path).seed == 7
    assert dict(contents(tmp_path)) == before


def test_a_project_of_init_keeps_its_owner(tmp_path: Path) -> None:
    make_project(tmp_path, "tiny", "ann")
    assert run.open_project(tmp_path).owner == "ann"


def test_another_project_is_left_alone(tmp_path: Path) -> None:
    make_project(tmp_path, "qwen-t4", "ann")
    before = dict(contents(tmp_path))
    done = kchain(tmp_path, "demo", ".")
    assert done.returncode == 2
    assert "another project" in done.stderr and "Traceback" not in done.stderr
    assert dict(contents(tmp_path)) == before


def test_the_packages_of_this_environment_are_enough() -> None:
    run.check_packages()


def test_missing_packages_are_named_with_the_command_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "NEEDED", ("json", "kchain_no_such_package"))
    with pytest.raises(InputError, match="kchain_no_such_package") as error:
        run.check_packages()
    assert error.value.hint == 'pip install "kchain[train]"'


def test_looking_for_packages_imports_none_of_them() -> None:
    code = (
        "import sys; from kchain.demo.project import NEEDED, check_packages; check_packages(); "
        "assert not set(NEEDED) & set(sys.modules), set(NEEDED) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_opening_the_project_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from kchain.demo.project import open_project; "
        f"open_project(Path({str(tmp_path / 'd')!r})); "
        "assert not {'torch', 'transformers', 'kaggle', 'jupytext', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_model_and_samples_are_published_under_the_chain_s_names(tmp_path: Path) -> None:
    run.publish(tmp_path / "server")
    model = model_folder(tmp_path / "server", *MODEL.split("/"))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in model.iterdir()}
    for sample in SAMPLES:
        published = dataset_folder(tmp_path / "server", *sample.ref.split("/"), 1) / sample.file
        assert published.read_text(encoding="utf-8") == sample.text()


def test_publishing_twice_makes_no_second_version(tmp_path: Path) -> None:
    run.publish(tmp_path)
    run.publish(tmp_path)
    for sample in SAMPLES:
        versions = dataset_folder(tmp_path, *sample.ref.split("/"))
        assert [path.name for path in versions.iterdir()] == ["1"]


def test_help_of_demo_teaches_what_it_does_and_where_to_look(tmp_path: Path) -> None:
    shown = kchain(tmp_path, "demo", "--help").stdout
    assert "kchain-demo" in shown and "kchain[train]" in shown and "status" in shown
    assert not list(tmp_path.iterdir()), "--help made something"
