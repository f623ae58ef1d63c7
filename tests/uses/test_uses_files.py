"""Phase files of the kinds that train nothing: what they take from the phase they are after, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from uses_tools import told, use_chain

from kchain.errors import InputError
from kchain.orchestrator.finished import choose_phase
from kchain.phases import load_chain
from kchain.phases.init import make_project
from kchain.phases.plan import UsePlan, plan_of

HEAD = 'title = "Some title"\ndescription = "Some words."\n'


def test_model_machine_prompt_and_precision_are_those_of_the_phase_that_was_trained(tmp_path: Path) -> None:
    chain = use_chain(tmp_path, "qwen-t4")
    parent, use = chain.phase("phase2"), chain.phase("judge")
    assert (use.accelerator, use.precision, use.lora) == (parent.accelerator, parent.precision, parent.lora)
    assert use.data.system_prompt == parent.data.system_prompt
    assert (use.training.max_sessions, use.data.sources) == (1, ()), "one session, and no data set is attached"
    values = told(chain, "judge")
    assert (values["precision"], values["quantization"]) == ("fp16", "none")
    assert values["environment"] == {"install": [], "uninstall": ["torchao"]}


def test_an_export_takes_no_gpu_hours_unless_it_is_told_to(tmp_path: Path) -> None:
    chain = use_chain(tmp_path, "golden-14b-a10g", "phase1")
    assert (chain.phase("judge").training.quantization, chain.phase("judge").accelerator.name) == ("nf4", "NvidiaA10G")
    made, values = chain.phase("make"), told(chain, "make")
    assert (made.accelerator.gpus, values["precision"], values["quantization"]) == (0, "fp32", "none")


def test_the_lineage_ends_with_the_adapter_of_the_phase_that_is_used(tmp_path: Path) -> None:
    chain = use_chain(tmp_path)
    assert [line["phase"] for line in told(chain, "make")["lineage"]] == ["phase1", "phase2"]
    assert [phase.name for phase in chain.lineage("phase3")] == ["phase1", "phase2"], "the others are left alone"
    assert [phase.name for phase in chain.trained] == ["phase1", "phase2", "phase3", "phase4"]


def test_an_adapter_that_was_trained_on_gave_way(tmp_path: Path) -> None:
    make_project(tmp_path, "tiny", "someone")
    path = tmp_path / "phases" / "phase2.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("after =", 'adapter = "continue"\nafter =', 1), encoding="utf-8")
    (tmp_path / "phases" / "make.toml").write_text(f'kind = "export"\n{HEAD}after = "phase2"\n', encoding="utf-8")
    lineage = told(load_chain(tmp_path), "make")["lineage"]
    assert [(line["phase"], line["use"]) for line in lineage] == [("phase2", "merge")]


def test_commands_that_need_an_adapter_name_the_phase_that_has_it(tmp_path: Path) -> None:
    chain = use_chain(tmp_path)
    assert choose_phase(chain, None) == "phase4", "the end of the chain is the last phase that trains"
    with pytest.raises(InputError, match="say trains nothing: it uses phase2"):
        choose_phase(chain, "say")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('kind = "evaluate"\n{head}[evaluate]\ncheck = "json"\n', "after: missing"),
        ('kind = "export"\n{head}after = "say"\n', "after: say trains nothing (generate)"),
        ('kind = "evaluate"\n{head}after = "phase1"\n[evaluate]\ncheck = "json"\nfile = "no.jsonl"\n', "'no.jsonl'"),
        ('kind = "evaluate"\n{head}after = "phase1"\n', "evaluate: missing"),
        ('kind = "other"\n{head}after = "phase1"\n', "kind: one of train, evaluate, export, generate"),
        ('kind = "export"\n{head}after = "phase1"\n[training]\nepochs = 1\n', "training: unknown key"),
        ('kind = "generate"\n{head}after = "phase1"\n[generate]\n', "generate: give prompts, file, or both"),
        ('kind = "export"\n{head}after = "phase1"\naccelerator = "Abacus"\n', "accelerator: "),
        ('kind = "export"\n{head}after = "phase1"\n[export]\nformats = ["gguf", "gguf"]\n', "gguf: name each once"),
        (
            'kind = "generate"\n{head}after = "phase1"\n[generate]\nfile = "rows.jsonl"\n',
            "'rows.jsonl' row 2: no prompt",
        ),
        ('kind = "evaluate"\n{head}after = "phase1"\n[evaluate]\ncheck = "regex"\n', "are not regular expressions"),
        ('{head}after = "say"\n[data]\nsources = []\n', "data.sources"),
    ],
)
def test_what_cannot_be_is_told_with_its_key(tmp_path: Path, text: str, told: str) -> None:
    use_chain(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "x"}\n{"text": "y"}\n', encoding="utf-8")
    (tmp_path / "phases" / "wrong.toml").write_text(text.format(head=HEAD), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_chain(tmp_path)
    assert "phases/wrong.toml: " in error.value.message and told in error.value.message


@pytest.mark.parametrize(
    ("change", "told"),
    [(("validation = 0.1", "validation = 0.0"), "has no validation set"), (None, "learns plain text")],
)
def test_a_phase_that_keeps_no_questions_aside_needs_a_file_of_them(
    tmp_path: Path, change: tuple[str, str] | None, told: str
) -> None:
    make_project(tmp_path, "tiny", "someone")
    path = tmp_path / "phases" / "phase4.toml"
    text = path.read_text(encoding="utf-8")
    if change is None:
        change = ('recipe = "conversation"', 'recipe = "text"')
        text = text.replace('{ messages = "messages" }', '{ text = "messages" }')
    path.write_text(text.replace(*change), encoding="utf-8")
    use = f'kind = "evaluate"\n{HEAD}after = "phase4"\n[evaluate]\ncheck = "json"\n'
    (tmp_path / "phases" / "judge.toml").write_text(use, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        load_chain(tmp_path)


def test_the_plan_says_what_is_asked_and_what_would_not_fit(tmp_path: Path) -> None:
    chain = use_chain(tmp_path, "qwen-t4", judge="[gates]\nmin_success_rate = 0.98\nbetter = true\n")
    judged, made = plan_of(chain, "judge"), plan_of(chain, "make")
    assert isinstance(judged, UsePlan) and isinstance(made, UsePlan)
    assert any("98 %" in words for words in judged.gates) and any("better" in words for words in judged.gates)
    assert judged.weight_bytes == judged.disk and judged.fits
    assert "questions" in dict(judged.does)["asks"] and "llama" not in dict(made.does)["makes"]
    path = tmp_path / "kchain.toml"
    text = path.read_text(encoding="utf-8").replace("2.5/transformers/0.5b", "2.5/transformers/14b")
    path.write_text(text, encoding="utf-8")
    large = plan_of(load_chain(tmp_path), "make")
    assert any("Kaggle keeps 20.0 GB" in warning for warning in large.warnings)
    assert any("14.6 GiB" in warning for warning in plan_of(load_chain(tmp_path), "judge").warnings)


def test_the_files_that_the_documentation_shows_go_with_the_shipped_chain(tmp_path: Path) -> None:
    make_project(tmp_path, "qwen-t4", "someone")
    page = (Path(__file__).parents[2] / "docs" / "use-the-model.md").read_text(encoding="utf-8")
    shown = re.findall(r"```toml\n# (phases/\w+\.toml)\n(.*?)```", page, re.DOTALL)
    for name, text in shown:
        (tmp_path / name).write_text(text, encoding="utf-8")
    kinds = {phase.name: phase.kind for phase in load_chain(tmp_path).phases if phase.use is not None}
    assert kinds == {"evaluate4": "evaluate", "export4": "export", "answers4": "generate"}
    with_all = "\n".join(line.removeprefix("# ") for line in shown[2][1].splitlines())
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "x"}\n', encoding="utf-8")
    (tmp_path / "phases" / "answers4.toml").write_text(with_all, encoding="utf-8")
    (settings,) = told(load_chain(tmp_path), "answers4")["generate"]["settings"].values()
    assert settings["max_tokens"] == 32, "what stands there as a comment is right, too"
