"""`kchain init` as a user types it: a project that loads, nothing overwritten, and an owner that is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import kchain

from kchain.errors import InputError
from kchain.phases import load_chain
from kchain.phases.init import EXAMPLES, PLACEHOLDER, example_files, make_project

PROJECT = {".gitignore", "kchain.toml", *(f"phases/phase{number}.toml" for number in (1, 2, 3, 4))}
# The examples of one phase.
SHORT = {".gitignore", "kchain.toml", "phases/phase1.toml"}


def init(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `kchain init` in `folder`, which is also the home folder, with no credentials but those in `variables`."""
    hidden = ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME")
    with pytest.MonkeyPatch.context() as patch:
        for name in hidden:
            patch.delenv(name, raising=False)
        return kchain(folder, "init", *arguments, HOME=str(folder), USERPROFILE=str(folder), **variables)


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("example", list(EXAMPLES))
def test_a_new_project_loads_and_belongs_to_its_owner(tmp_path: Path, example: str) -> None:
    make_project(tmp_path / "mine", example, "some-one")
    chain = load_chain(tmp_path / "mine")
    assert (chain.name, chain.owner) == (example, "some-one")
    assert chain.kernel("phase1").startswith("some-one/")
    assert files_in(tmp_path / "mine") == (PROJECT if example in ("qwen-t4", "tiny") else SHORT)


@pytest.mark.parametrize("example", list(EXAMPLES))
def test_a_new_project_is_the_shipped_one_but_for_the_owner(tmp_path: Path, example: str) -> None:
    make_project(tmp_path, example, "ann")
    for path, shipped in example_files(example):
        ours = (tmp_path / path).read_text(encoding="utf-8").splitlines()
        different = [line for line in shipped.splitlines() if line not in ours]
        assert all(PLACEHOLDER in line for line in different), different
    owner = next(line for line in (tmp_path / "kchain.toml").read_text().splitlines() if line.startswith("owner"))
    shipped_owner = next(
        line for line in dict(example_files(example))[Path("kchain.toml")].splitlines() if "owner" in line
    )
    assert owner.index("#") == shipped_owner.index("#"), "the comments no longer stand in one column"


def test_git_leaves_alone_what_is_made_from_the_files(tmp_path: Path) -> None:
    make_project(tmp_path, "tiny", "ann")
    ignored = (tmp_path / ".gitignore").read_text().splitlines()
    assert {".kchain/", "build/", "runs/"} <= set(ignored)


def test_a_project_is_never_overwritten(tmp_path: Path) -> None:
    make_project(tmp_path, "tiny", "ann")
    (tmp_path / "kchain.toml").write_text("mine")
    with pytest.raises(InputError, match="kchain.toml already; nothing was written"):
        make_project(tmp_path, "qwen-t4", "ann")
    assert (tmp_path / "kchain.toml").read_text() == "mine"


def test_one_file_in_the_way_is_enough_to_write_nothing(tmp_path: Path) -> None:
    (tmp_path / "phases").mkdir()
    (tmp_path / "phases" / "phase3.toml").write_text("mine")
    with pytest.raises(InputError, match=r"phase3\.toml already"):
        make_project(tmp_path, "tiny", "ann")
    assert files_in(tmp_path) == {"phases/phase3.toml"}


def test_a_dangling_link_in_the_way_counts_too(tmp_path: Path) -> None:
    (tmp_path / "kchain.toml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="already"):
        make_project(tmp_path, "tiny", "ann")


def test_a_gitignore_of_one_s_own_stays_and_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    make_project(tmp_path, "tiny", "ann")
    assert (tmp_path / ".gitignore").read_text() == "*.pyc\n"
    assert load_chain(tmp_path).owner == "ann"


@pytest.mark.parametrize("owner", ["", "two words", "a/b", "-x", "ä", 'x"\nname = "y'])
def test_what_is_no_user_name_is_refused_before_anything_is_written(tmp_path: Path, owner: str) -> None:
    with pytest.raises(InputError, match="not a Kaggle user name"):
        make_project(tmp_path / "mine", "tiny", owner)
    assert not (tmp_path / "mine").exists()


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        make_project(tmp_path / "file" / "mine", "tiny", "ann")


def test_nothing_half_written_stays_behind(tmp_path: Path) -> None:
    make_project(tmp_path, "tiny", "ann")
    assert not [name for name in files_in(tmp_path) if name.endswith(".part")]


def test_init_lists_what_it_made_and_what_to_type_next(tmp_path: Path) -> None:
    done = init(tmp_path, "my-chain", "--owner", "Ann")
    assert done.returncode == 0, done.stderr
    assert "for ann" in done.stdout and "cd my-chain && kchain plan" in done.stdout
    assert all(name in done.stdout for name in PROJECT)
    assert load_chain(tmp_path / "my-chain").name == "qwen-t4"


def test_init_asks_for_an_owner_when_no_credentials_are_found(tmp_path: Path) -> None:
    done = init(tmp_path, "my-chain")
    assert done.returncode == 2
    assert "--owner" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "my-chain").exists()


def test_init_takes_the_user_of_the_environment(tmp_path: Path) -> None:
    assert init(tmp_path, "a", "--example", "tiny", KAGGLE_USERNAME="bob").returncode == 0
    assert load_chain(tmp_path / "a").owner == "bob"


@pytest.mark.parametrize("place", [".kaggle", "elsewhere", ".config/kaggle"])
def test_init_takes_the_user_of_kaggle_json(tmp_path: Path, place: str) -> None:
    if place == ".config/kaggle" and not sys.platform.startswith("linux"):
        pytest.skip("the XDG folder counts on Linux only")
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "kaggle.json").write_text(json.dumps({"username": "carol", "key": "k"}))
    variables = {"KAGGLE_CONFIG_DIR": str(tmp_path / place)} if place == "elsewhere" else {}
    assert init(tmp_path, "a", "--example", "tiny", **variables).returncode == 0
    assert load_chain(tmp_path / "a").owner == "carol"


@pytest.mark.parametrize("content", ["not json", "[]", "{}", '{"username": 3}'])
def test_a_damaged_kaggle_json_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "kaggle.json").write_text(content)
    done = init(tmp_path, "a")
    assert done.returncode == 2 and "--owner" in done.stderr


def test_the_option_outranks_the_credentials(tmp_path: Path) -> None:
    assert init(tmp_path, "a", "--example", "tiny", "--owner", "dan", KAGGLE_USERNAME="bob").returncode == 0
    assert load_chain(tmp_path / "a").owner == "dan"


def test_help_of_init_names_every_example(tmp_path: Path) -> None:
    shown = "".join(init(tmp_path, "--help").stdout.split())  # lines are broken at hyphens too
    assert all(example in shown for example in EXAMPLES)
