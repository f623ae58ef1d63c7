"""`kchain chat` as a person types it, and the file of styles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import kchain

from kchain.cli.chat import read_styles
from kchain.errors import InputError
from kchain.uses.sampling import Sampling, sampling_for


def test_one_prompt_is_answered_as_text_and_as_json(project: Path) -> None:
    done = kchain(project, "chat", "--prompt", "List all files", "--max-tokens", "6")
    assert done.returncode == 0, done.stderr
    told = json.loads(
        kchain(project, "chat", "--prompt", "-", "--max-tokens", "6", "--json", stdin="List all files").stdout
    )
    assert done.stdout.strip() == told["text"].strip()
    assert told["tokens"] == 6 and told["ended"] is False
    assert "cut after 6 tokens" in done.stderr
    assert not list((project / ".kchain").glob(".merged*")), "the merged model is gone again"


def test_a_pipe_is_a_conversation_with_commands(project: Path) -> None:
    lines = "one\n/style <|box_start|>\ntwo\n/style nothing like it\n/new\nthree\n"
    done = kchain(project, "chat", "--max-tokens", "3", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cut after 3 tokens") == 3
    assert "'nothing like it' is not a token" in done.stderr


def test_what_cannot_be_is_said_at_once(project: Path, tmp_path: Path) -> None:
    assert "--json belongs to --prompt" in kchain(project, "chat", "--json").stderr
    (tmp_path / "styles.toml").write_text('["<|a|>"]\nmax_token = 3\n')
    done = kchain(project, "chat", "--prompt", "x", "--styles", str(tmp_path / "styles.toml"))
    assert done.returncode == 2
    assert "<|a|>.max_token" in done.stderr and "max_tokens, temperature" in done.stderr


def test_styles_come_from_the_project_unless_another_file_is_named(tmp_path: Path) -> None:
    assert read_styles(tmp_path, None) == {}
    (tmp_path / "styles.toml").write_text('["<|terse|>"]\nmax_tokens = 32\n')
    styles = read_styles(tmp_path, None)
    assert sampling_for("<|terse|>", styles, {}) == Sampling(max_tokens=32)
    assert sampling_for("<|terse|>", styles, {"max_tokens": 5, "top_p": None}) == Sampling(max_tokens=5), "typed wins"
    assert sampling_for(None, styles, {}) == Sampling()
    usual = {**styles, "": {"max_tokens": 9}}
    assert [sampling_for(style, usual, {}).max_tokens for style in (None, "<|new|>", "<|terse|>")] == [9, 9, 32]
    with pytest.raises(InputError, match="cannot be read"):
        read_styles(tmp_path, tmp_path / "missing.toml")
