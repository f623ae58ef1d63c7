"""An adapter that is trained on: it replaces the one it came from, at every descendant, to the last logit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from runtime_tiny import (
    EOS,
    EOS_ID,
    SOURCE,
    ancestor,
    make_root,
    mount,
    parameters,
    read_result,
    rounded,
    run_session,
    second_phase,
)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from kchain.kernel_metadata import adapter_sources
from kchain.phases import Chain, load_chain
from kchain.runtime import session
from kchain.runtime.contract import WEIGHTS
from kchain.runtime.failure import Stop
from kchain.templates.parameters import parameters_of_phase as rendered

pytestmark = pytest.mark.long

# name -> its lines in the phase file
PHASES = {
    "one": '[tokens]\nadded = ["<STYLE_TERSE>"]',
    "two": 'after = "one"\nadapter = "continue"',
    "three": 'after = "two"',
    "four": 'after = "three"\nadapter = "continue"',
    "five": 'after = "four"',
}
# What must be merged into the base to put a phase's adapter on.
UNDER: dict[str, list[str]] = {"one": [], "two": [], "three": ["two"], "four": ["two"], "five": ["two", "four"]}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    root = tmp_path_factory.mktemp("chain")
    (root / "phases").mkdir()
    (root / "kchain.toml").write_text(f'[chain]\nname = "tiny"\nowner = "me"\n[model]\nsource = "{SOURCE}"\n')
    for name, lines in PHASES.items():
        top, _, tokens = lines.partition("[tokens]")
        (root / "phases" / f"{name}.toml").write_text(
            f'title = "phase {name}"\ndescription = "x"\n{top}\n[data]\n'
            f'sources = [{{ name = "a", dataset = "a/b", fields = {{ prompt = "p", completion = "c" }} }}]\n'
            + (f"[tokens]{tokens}\n" if tokens else "")
        )
    return load_chain(root)


@pytest.fixture(scope="module")
def runs(chain: Chain, base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The root of every phase's session, each run as the chain says."""
    before = dict(os.environ)
    roots: dict[str, Path] = {}
    for number, name in enumerate(PHASES):
        roots[name] = root = make_root(tmp_path_factory.mktemp(name), base)
        told = rendered(chain, name, "local", adapter_sources(chain, name, {}))
        for entry in told["lineage"]:
            mount(root, f"notebooks/{entry['ref']}", roots[entry["phase"]] / "working")
        changes: dict[str, Any] = {key: told[key] for key in ("phase", "adapter_mode", "lineage", "tokens")}
        os.environ["KCHAIN_KAGGLE_ROOT"] = str(root)
        run_session(parameters(**changes, seed=number))
    os.environ.clear()
    os.environ.update(before)
    return roots


def logits_of(base: Path, runs: dict[str, Path], name: str, under: list[str]) -> torch.Tensor:
    """What PEFT gives for a phase's probe on the base with these adapters merged, in fp32 and stored as fp16."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for below in under:
        model = PeftModel.from_pretrained(model, runs[below] / "working" / "adapter").merge_and_unload()
    model = PeftModel.from_pretrained(rounded(model) if under else model, runs[name] / "working" / "adapter")
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.tensor([read_result(runs[name])["probe"]["prompt_ids"]])).logits
    return found[0, -1, :8]


@pytest.mark.parametrize("name", PHASES)
def test_base_and_lineage_give_what_the_training_ended_with(base: Path, runs: dict[str, Path], name: str) -> None:
    told = torch.tensor(read_result(runs[name])["probe"]["logits"])
    found = logits_of(base, runs, name, UNDER[name])
    assert torch.allclose(found, told, rtol=0, atol=1e-5)


def test_with_the_replaced_adapter_below_it_would_be_another_model(base: Path, runs: dict[str, Path]) -> None:
    told = torch.tensor(read_result(runs["three"])["probe"]["logits"])
    assert (logits_of(base, runs, "three", ["one", "two"]) - told).abs().max() > 1e-3


def test_the_training_goes_on_where_the_parents_adapter_was(runs: dict[str, Path]) -> None:
    one, two = (load_file(runs[name] / "working" / "adapter" / WEIGHTS) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert any("trainable_tokens" in name for name in one), "its token rows are trained on, too"
    for name, weight in two.items():
        assert not torch.equal(weight, one[name]), name
        if "lora_A" in name:  # drawn at random at a fresh start
            assert (weight - one[name]).norm() < 0.5 * one[name].norm(), name


def judged_in(runs: dict[str, Path], name: str) -> dict[str, Any]:
    return {one["phase"]: one for one in read_result(runs[name])["evaluation"]["splits"]}


def test_a_phase_that_goes_on_with_an_adapter_began_where_that_one_ended(runs: dict[str, Path]) -> None:
    for name, parent in (("two", "one"), ("four", "three")):
        before, ended = judged_in(runs, name)[parent]["before"], judged_in(runs, parent)[parent]["after"]
        assert before == pytest.approx(ended, rel=1e-6)
        after = judged_in(runs, name)[name]["after"]
        assert after["loss"] < judged_in(runs, name)[name]["before"]["loss"]


def test_what_was_forgotten_is_known_of_phases_whose_adapters_were_replaced_too(runs: dict[str, Path]) -> None:
    assert {name: list(judged_in(runs, name)) for name in PHASES} == {
        "one": ["one"],
        "two": ["one", "two"],
        "three": ["one", "two", "three"],
        "four": ["one", "two", "three", "four"],
        "five": ["one", "two", "three", "four", "five"],
    }
    assert (runs["five"] / "input/notebooks/me/phase-two/validation-one.jsonl").is_file()


def test_the_result_and_the_card_say_what_is_merged_and_what_was_trained_on(runs: dict[str, Path]) -> None:
    four = read_result(runs["four"])
    assert four["adapter_mode"] == "continue"
    assert [(line["phase"], line["use"]) for line in four["lineage"]] == [("two", "merge"), ("three", "continue")]
    cards = {name: (runs[name] / "working" / "adapter" / "README.md").read_text() for name in PHASES}
    assert "does not belong" not in cards["two"]
    assert "It continues and replaces the adapter of one" in cards["two"]
    assert "does not belong" in cards["four"]
    assert "It continues and replaces the adapter of three" in cards["four"]
    assert "1. two:" in cards["five"] and "1. four:" in cards["five"] and "three:" not in cards["five"]


def test_an_adapter_trained_on_something_else_below_is_not_continued(kaggle: Path, runs: dict[str, Path]) -> None:
    """Four stands on two; to continue it as if it stood on the base alone would train another model."""
    mount(kaggle, "notebooks/me/four", runs["four"] / "working")
    lineage = [ancestor("four", "me/four", use="continue")]
    with pytest.raises(Stop, match="adapters merged before it"):
        session.start(second_phase(lineage=lineage, adapter_mode="continue"), "b" * 64).preflight()


def test_an_adopted_adapter_without_a_result_is_continued(
    base: Path, kaggle: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    hand_made = tmp_path / "hand"
    hand_made.mkdir()
    for file in (WEIGHTS, "adapter_config.json"):
        (hand_made / file).symlink_to(runs["one"] / "working" / "adapter" / file)
    mount(kaggle, "datasets/me/hand", hand_made)
    sha256 = read_result(runs["one"])["adapter"]["sha256"]
    entry = {"phase": "one", "kind": "dataset", "ref": "me/hand", "folder": "", "sha256": sha256, "use": "continue"}
    run_session(second_phase(lineage=[entry], adapter_mode="continue"))
    result = read_result(kaggle)
    told = logits_of(base, {"x": kaggle}, "x", [])
    assert torch.allclose(told, torch.tensor(result["probe"]["logits"]), rtol=0, atol=1e-5)
    assert (result["pad_token"], result["pad_id"]) == (EOS, EOS_ID)
