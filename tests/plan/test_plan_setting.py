"""`kchain plan --model-config` as it is typed, outside of a chain and in one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from command import kchain

QWEN_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
    "num_hidden_layers": 28, "num_key_value_heads": 4, "tie_word_embeddings": False, "vocab_size": 152064,
}  # fmt: skip
ASKED = ("--accelerator", "NvidiaTeslaT4", "--precision", "nf4", "--batch", "2", "--length", "2048", "--rank", "16")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_7B))
    return tmp_path


def plan(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return kchain(folder, "plan", *words)


def test_the_answer_without_a_chain_is_one_object(folder: Path) -> None:
    done = plan(folder, "--model-config", "config.json", *ASKED, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"memory", "available", "fits", "reasons", "setting", "seconds"}
    terms = found["memory"]
    assert list(terms) == ["weights", "adapter", "optimizer", "activations", "logits", "margin", "total"]
    assert terms["total"] == sum(count for name, count in terms.items() if name != "total")
    assert all(isinstance(count, int) for count in terms.values())
    assert terms["logits"] < 0.3 * 2**30, "the notebook never holds all logits"
    assert (found["setting"]["batch"], found["setting"]["accumulation"]) == (2, 8)
    assert (found["available"], found["fits"]) == (int(14.56 * 2**30), True)
    assert all(isinstance(reason, str) for reason in found["reasons"])


def test_the_answer_for_people_is_a_table_and_its_reasons(folder: Path) -> None:
    done = plan(folder, "--model-config", "config.json", *ASKED, "--checkpointing")
    assert done.returncode == 0, done.stderr
    for words in ("weights       5.17 GiB", "total         8.07 GiB", "available    14.56 GiB", "no bf16", "are left"):
        assert words in done.stdout, words


def test_what_does_not_fit_says_what_would_in_options(folder: Path) -> None:
    done = plan(folder, "--model-config", "config.json", "--precision", "fp16", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"] is False
    assert found["reasons"][-1].endswith("set --precision nf4 (6.4 GiB)")


def test_what_is_left_out_is_chosen_as_the_fastest_that_fits_and_says_why(folder: Path) -> None:
    found = json.loads(plan(folder, "--model-config", "config.json", "--json").stdout)
    chosen = found["setting"]
    assert chosen["quantization"] == "nf4", "in fp16 the weights alone leave no room"
    assert chosen["batch"] * chosen["accumulation"] == 16
    assert chosen["checkpointing"] is False
    assert (chosen["length"], chosen["rank"], chosen["optimizer"]) == (1024, 16, "paged_adamw_8bit")
    assert found["memory"]["total"] <= 0.9 * found["available"], "a plan is not exact"
    for words in ("16 examples a step as asked for", "nothing is computed twice", "nf4: in fp16 a step takes"):
        assert any(words in reason for reason in found["reasons"]), words


def test_what_is_asked_for_stays_as_it_is(folder: Path) -> None:
    words = ("--batch", "4", "--checkpointing", "--precision", "nf4", "--json")
    chosen = json.loads(plan(folder, "--model-config", "config.json", *words).stdout)["setting"]
    assert (chosen["batch"], chosen["accumulation"], chosen["checkpointing"]) == (4, 4, True)
    words = ("--accumulation", "2", "--json")
    chosen = json.loads(plan(folder, "--model-config", "config.json", *words).stdout)["setting"]
    assert (chosen["batch"], chosen["accumulation"]) == (8, 2)


def test_nf4_is_computed_in_what_the_machine_has(folder: Path) -> None:
    for machine, precision in (("NvidiaTeslaT4", "fp16"), ("NvidiaL4", "bf16"), ("cpu", "fp32")):
        done = plan(folder, "--model-config", "config.json", "--precision", "nf4", "--accelerator", machine, "--json")
        found = json.loads(done.stdout)
        assert found["reasons"][0].startswith(f"{precision}: ")
        assert (found["fits"] is None) == (machine == "cpu")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--batch", "2"], "--batch: needs --model-config FILE"),
        (["--no-checkpointing", "--length", "64"], "--no-checkpointing, --length: needs --model-config FILE"),
        (["one", "--model-config", "config.json", "--batch", "2"], "--batch: not together with a phase"),
        (["--model-config", "config.json", "--precision", "bf16"], "NvidiaTeslaT4 has no bf16; leave --precision out"),
        (["--model-config", "config.json", "--precision", "fp16", "--accelerator", "cpu"], "fp16 training needs a GPU"),
        (["--model-config", "config.json", "--accelerator", "NvidiaTeslaP100"], "Kaggle retired NvidiaTeslaP100"),
        (["--model-config", "config.json", "--accelerator", "H200"], "unknown accelerator 'H200'"),
        (["--model-config", "config.json", "--targets", "wte"], "this model has no module wte"),
        (["--model-config", "config.json", "--targets", "q_proj,,"], "with commas between them"),
        (["--model-config", "config.json", "--precision", "int8"], "'int8' is not one of"),
        (["--model-config", "config.json", "--batch", "0"], "0 is not in the range"),
        (["--model-config", "nowhere.json", "--batch", "1"], "nowhere.json: cannot be read"),
        (["--model-config", "other.json", "--batch", "1"], "model_type: 'mamba' is not known"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_contradictions_and_wrong_input_are_a_sentence_and_exit_code_2(
    folder: Path, words: list[str], message: str
) -> None:
    (folder / "other.json").write_text('{"model_type": "mamba"}')
    done = plan(folder, *words)
    assert (done.returncode, "Traceback" in done.stderr, done.stdout) == (2, False, "")
    assert message in done.stderr


@pytest.fixture
def project(folder: Path) -> Path:
    (folder / "phases").mkdir()
    (folder / "kchain.toml").write_text(
        '[chain]\nname = "demo"\nowner = "someone"\n[model]\nsource = "a/b/c/d/1"\n[training]\nmax_length = 2048\n'
    )
    (folder / "phases" / "one.toml").write_text(
        'title = "Demo phase one"\ndescription = "Teaches."\n[data]\n'
        'sources = [{ name = "s", dataset = "a/b", file = "c.jsonl", fields = { prompt = "p", completion = "c" } }]\n'
    )
    return folder


def test_a_chain_on_an_unknown_model_says_how_to_tell_it(project: Path) -> None:
    done = plan(project)
    assert done.returncode == 0, done.stderr
    assert "kchain plan --model-config config.json tells" in done.stdout
    assert "does not fit" not in done.stdout


def test_a_chain_with_its_models_config_has_a_memory_plan(project: Path) -> None:
    done = plan(project, "one", "--model-config", "config.json")
    assert done.returncode == 0, done.stderr
    assert "of 14.6 GiB: weights 14.2" in done.stdout
    assert "does not fit  a step takes" in done.stdout
    assert 'quantization = "nf4" (8.1 GiB)' in done.stdout
    (found,) = json.loads(plan(project, "--model-config", "config.json", "--json").stdout)
    assert found["phase"] == "one"
    assert found["memory"]["weights"] == 2 * 7_615_616_512


def test_options_of_a_setting_answer_without_the_chain_even_in_a_project(project: Path) -> None:
    found = json.loads(plan(project, "--model-config", "config.json", "--rank", "16", "--json").stdout)
    assert set(found) == {"memory", "available", "fits", "reasons", "setting", "seconds"}
