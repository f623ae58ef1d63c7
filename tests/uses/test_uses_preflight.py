"""What a session that trains nothing finds wrong in its first minute, with the modules that its notebook carries."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from export_tools import base_of
from uses_tools import add_uses, told

from kchain.phases import load_chain
from kchain.runtime.failure import Stop

Start = Callable[..., Any]


@pytest.fixture(scope="module")
def mounted(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a project with two finished phases, the folder that Kaggle would call /kaggle with both and the base in it)."""
    root = tmp_path_factory.mktemp("kaggle")
    project = Path(shutil.copytree(finished, tmp_path_factory.mktemp("mounted") / "project"))
    chain = load_chain(project)
    shutil.copytree(base_of(project), root / "input" / "models" / chain.model.source)
    for name in ("phase1", "phase2"):
        shutil.copytree(project / "runs" / "local" / name / "v1", root / "input" / "notebooks" / chain.kernel(name))
    return add_uses(project, "phase2"), root


@pytest.fixture
def start(mounted: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Start:
    """Begins the session of a phase, some of its own table changed."""
    project, root = mounted
    shutil.copytree(root / "input", tmp_path / "input", copy_function=_link)
    monkeypatch.setenv("KCHAIN_KAGGLE_ROOT", str(tmp_path))

    def begin(phase: str, **changes: Any) -> Any:
        from kchain.uses import chat_session as says
        from kchain.uses import evaluate_session as judges
        from kchain.uses import export_session as makes

        values = told(load_chain(project), phase)
        values[values["kind"]].update(changes)
        module = {"evaluate": judges, "export": makes, "generate": says}[values["kind"]]
        return module.start(values, "b" * 64)

    return begin


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def refused(session: Any) -> str:
    """Why its preflight stops; the result file says the same."""
    with pytest.raises(Stop) as stop:
        session.preflight()
    result = json.loads((session.paths.working / "kchain-result.json").read_text(encoding="utf-8"))
    assert result["status"] == "failed" and result["reason"] == f"preflight: {stop.value.reason}"
    return f"{stop.value.reason}; {stop.value.cure}"


def test_questions_that_nobody_kept_aside_are_asked_for(start: Start, tmp_path: Path) -> None:
    assert "saved no validation set; set evaluate.file" in refused(start("judge"))
    (tmp_path / "temp" / "project").mkdir()
    (tmp_path / "temp" / "project" / "own.jsonl").write_text('{"prompt": "x"}\n', encoding="utf-8")
    assert "line 1: has no completion or expect" in refused(start("judge", file="own.jsonl"))


def test_a_check_that_needs_bash_looks_for_it_first(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "the check shell needs bash" in refused(start("judge", check="shell"))


def test_a_prompt_that_is_none_is_told_with_its_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "temp" / "project").mkdir(parents=True)
    (tmp_path / "temp" / "project" / "prompts.jsonl").write_text('{"prompt": "x"}\n{"text": "y"}\n', encoding="utf-8")
    assert "prompts.jsonl: line 2: has no prompt" in refused(start("say"))


def test_a_style_that_is_no_token_is_refused(start: Start) -> None:
    words = refused(start("say", file=None, styles=["<STYLE_TERSE>"]))
    assert "style <STYLE_TERSE>: no token of that name" in words
    assert words.endswith("tokens that this chain trained: none")


def test_an_architecture_that_llama_cpp_computes_otherwise_is_refused(start: Start, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (config,) = tmp_path.glob("input/models/*/*/*/*/*/config.json")
    changed = json.loads(config.read_text(encoding="utf-8")) | {"model_type": "gemma"}
    config.unlink()
    config.write_text(json.dumps(changed), encoding="utf-8")
    assert "model_type 'gemma'" in refused(start("make", formats=["gguf"]))


def test_an_adapter_that_is_not_the_one_its_session_recorded_is_refused(start: Start, tmp_path: Path) -> None:
    (first,) = tmp_path.glob("input/notebooks/*/*code/adapter/adapter_model.safetensors")
    (second,) = tmp_path.glob("input/notebooks/*/*linux/adapter/adapter_model.safetensors")
    content = second.read_bytes()
    first.unlink()
    first.write_bytes(content)
    assert "the adapter of phase1 is refused: sha256" in refused(start("make"))


def test_a_person_asks_in_the_notebook_that_answered(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = start("say", file=None, prompts=["Hello!"], styles=["<|box_start|>", "<|box_end|>"])
    session.preflight()
    session.load()
    session.answer()
    session.save()
    rows = [json.loads(line) for line in (tmp_path / "working" / "answers.jsonl").read_text().splitlines()]
    assert [row["style"] for row in rows] == ["<|box_start|>", "<|box_end|>"]
    result = json.loads((tmp_path / "working" / "kchain-result.json").read_text(encoding="utf-8"))
    assert list(result["outputs"]) == ["answers.jsonl"] and set(result["metrics"]["mean_tokens"]) == {
        "<|box_start|>",
        "<|box_end|>",
    }
    ask, new = session.by_hand()
    capsys.readouterr()
    ask("Hello!")
    ask("And now?")
    assert len(capsys.readouterr().out.splitlines()) >= 2
    before = [turn["content"] for turn in session.talk.turns]
    assert before[-4::2] == ["Hello!", "And now?"], "what was said is remembered, without a style"
    new()
    assert [turn["role"] for turn in session.talk.turns] == ["system"]


def test_a_session_whose_time_is_over_says_what_to_lower(start: Start) -> None:
    session = start("say", file=None)
    session.preflight()
    session.load()
    session.parameters["session_timeout"] = 30
    with pytest.raises(Stop, match="nearly over after 0 of 1 prompts"):
        session.answer()


def test_answers_that_were_given_before_the_time_was_over_are_kept(start: Start, tmp_path: Path) -> None:
    session = start("say", file=None, prompts=["Hello!", "And?"])
    session.preflight()
    session.load()
    ask = session.talk.ask

    def last(prompt: str) -> Any:
        session.parameters["session_timeout"] = 30
        return ask(prompt)

    session.talk.ask = last
    with pytest.raises(Stop, match=r"nearly over after 1 of 2 prompts, whose answers are in answers\.jsonl"):
        session.answer()
    (row,) = (tmp_path / "working" / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(row)["prompt"] == "Hello!"


def test_questions_that_do_not_fit_into_the_session_end_it_before_they_are_asked(start: Start, tmp_path: Path) -> None:
    (tmp_path / "temp" / "project").mkdir(parents=True)
    rows = "".join(f'{{"prompt": "{n}", "completion": "x"}}\n' for n in range(100_000))
    (tmp_path / "temp" / "project" / "own.jsonl").write_text(rows, encoding="utf-8")
    session = start("judge", file="own.jsonl", limit=100_000, max_tokens=1)
    session.parameters["session_timeout"] = 120
    session.preflight()
    with pytest.raises(Stop, match="100000 questions to base and chain do not fit into the session's 120 s") as stop:
        session.ask()
    fit = int(stop.value.cure.split()[1])
    assert 10 < fit < 100_000
    assert not (tmp_path / "working" / "evaluation.json").exists()
