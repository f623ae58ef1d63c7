"""What a rehearsal changes in the parameters, and that it changes nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from kchain.bundle import build
from kchain.phases import Chain, load_chain
from kchain.phases.init import make_project
from kchain.rehearse.run import with_ancestors
from kchain.rehearse.settings import Difference, Stand, differences, examples_of, rehearsed_chain, share_of
from kchain.templates import parameters_of_phase


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    make_project(tmp_path, "qwen-t4", "someone")
    return load_chain(tmp_path)


def stands(chain: Chain) -> list[Stand]:
    return [
        Stand(phase.name, source.name, "invented", f"rehearsal/{phase.name}-{source.name}", "x.jsonl", "")
        for phase in chain.phases
        for source in phase.data.sources
    ]


def small(chain: Chain) -> Chain:
    return rehearsed_chain(chain, chain.root / "work", stands(chain), [phase.name for phase in chain.phases])


def change(project: Path, old: str, new: str) -> Chain:
    path = project / "kchain.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return load_chain(project)


def told(chain: Chain, phase: str) -> dict[str, tuple[object, object]]:
    found = differences(
        parameters_of_phase(chain, phase, "kaggle", ()), parameters_of_phase(small(chain), phase, "local", ())
    )
    return {each.key: (each.real, each.rehearsed) for each in found}


@pytest.mark.parametrize("phase", ["phase1", "phase2", "phase3", "phase4"])
def test_a_rehearsal_runs_the_code_that_will_be_pushed(chain: Chain, phase: str) -> None:
    real, here = build(chain, phase, "kaggle", {}), build(small(chain), phase, "local", {})
    assert here.code_hash == real.code_hash
    assert here.hash != real.hash


def test_project_files_stand_in_the_notebook_as_they_are(tmp_path: Path) -> None:
    make_project(tmp_path, "qwen-t4", "someone")
    (tmp_path / "own.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n' * 90, encoding="utf-8")
    file = tmp_path / "phases" / "phase1.toml"
    text = file.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith(("huggingface", "split"))]
    file.write_text("\n".join(lines) + '\nfile = "own.jsonl"\n', encoding="utf-8")
    chain = load_chain(tmp_path)
    place = [Stand("phase1", "codealpaca", "project")]
    here = rehearsed_chain(chain, tmp_path / "work", place, ["phase1"])
    assert build(here, "phase1", "local", {}).code_hash == build(chain, "phase1", "kaggle", {}).code_hash
    source = here.phase("phase1").data.sources[0]
    assert (source.kind.name, source.file, source.limit) == ("project", "own.jsonl", 33)


def test_every_parameter_that_differs_is_told_with_both_values(chain: Chain) -> None:
    found = told(chain, "phase1")
    assert found["training.precision"] == ("fp16", "fp32")
    assert found["accelerator.gpus"] == (2, 0)
    assert found["training.epochs"] == (3, 2)
    assert found["data.sources.0.dataset"] == (None, "rehearsal/phase1-codealpaca")
    assert found["environment.install"] == (["bitsandbytes==0.50.2"], [])
    untouched = {"seed", "pad", "lora", "model", "chain", "phase", "data.recipe", "data.system_prompt"}
    assert not [key for key in found if key in untouched or key.startswith(("pad.", "lora.", "data.sources.0.fields"))]
    assert not {"training.optimizer", "training.quantization", "training.checkpointing"} & set(found)


def test_nothing_differs_between_equal_parameters(chain: Chain) -> None:
    told = parameters_of_phase(chain, "phase2", "kaggle", ())
    assert differences(told, told) == ()


def test_a_key_that_only_one_side_has_is_a_difference() -> None:
    assert differences({"a": {"b": 1}}, {"a": {}, "c": [1]}) == (Difference("a.b", 1, None), Difference("c", None, [1]))


def test_the_gates_of_random_weights_are_not_those_of_the_chain(chain: Chain) -> None:
    gates = small(chain).phase("phase1").gates
    assert gates.all_epochs
    assert gates.max_loss is None and gates.min_token_accuracy is None


def test_four_bits_and_the_optimizer_stay_what_the_phase_asks_for(chain: Chain) -> None:
    changed = change(chain.root, 'quantization = "none"', 'quantization = "nf4"')
    training = small(changed).phase("phase1").training
    assert (training.quantization, training.optimizer) == ("nf4", "paged_adamw_8bit")


def test_every_source_is_in_the_mix_and_two_passes_take_four_steps(chain: Chain) -> None:
    phase = chain.phase("phase2")
    assert examples_of(phase) == 2 * 16 + 1
    assert share_of(phase) * len(phase.data.sources) >= examples_of(phase)
    assert [source.limit for source in small(chain).phase("phase2").data.sources] == [9, 9, 9, 9]


def test_a_large_batch_becomes_a_small_one(chain: Chain) -> None:
    change(chain.root, "batch = 2 ", "batch = 64 ")
    training = small(change(chain.root, "accumulation = 8", "accumulation = 4")).phase("phase1").training
    assert (training.batch, training.accumulation) == (16, 1)


def test_limits_below_the_rehearsals_own_are_kept(chain: Chain) -> None:
    file = chain.root / "phases" / "phase1.toml"
    text = file.read_text(encoding="utf-8").replace("limit = 20022", "limit = 5").replace("25000", "4")
    file.write_text(text, encoding="utf-8")
    data = small(load_chain(chain.root)).phase("phase1").data
    assert (data.max_examples, data.sources[0].limit) == (4, 5)


def test_a_phase_brings_those_it_builds_on_along(chain: Chain) -> None:
    assert with_ancestors(chain, ["phase3"]) == ["phase1", "phase2", "phase3"]
    assert with_ancestors(chain, ["phase1", "phase2"]) == ["phase1", "phase2"]


def test_naming_another_sample_changes_nothing_of_what_is_pushed(chain: Chain) -> None:
    before = build(chain, "phase1", "kaggle", {}).hash
    file = chain.root / "phases" / "phase1.toml"
    file.write_text(file.read_text(encoding="utf-8") + 'rehearsal = "samples/a.jsonl"\n', encoding="utf-8")
    assert build(load_chain(chain.root), "phase1", "kaggle", {}).hash == before
