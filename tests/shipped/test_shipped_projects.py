"""The shipped chains load, say what each line trades, and are the chains the field's figures ask for."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from kchain.kernel_metadata import adapter_sources, kernel_metadata
from kchain.phases import Chain, Phase, Source, load_chain
from kchain.phases.init import EXAMPLES, example_files

SHIPPED = Path(str(files("kchain.phases"))) / "shipped"
FILES = [(example, path, text) for example in EXAMPLES for path, text in example_files(example)]


# The others have one phase, and are looked at in test_shipped_own.py.
FOUR_PHASES = ("qwen-t4", "tiny")


@pytest.fixture(scope="module", params=FOUR_PHASES)
def chain(request: pytest.FixtureRequest) -> Chain:
    return load_chain(SHIPPED / request.param)


@pytest.fixture(scope="module")
def qwen() -> Chain:
    return load_chain(SHIPPED / "qwen-t4")


@pytest.fixture(scope="module")
def tiny() -> Chain:
    return load_chain(SHIPPED / "tiny")


def source(phase: Phase, name: str) -> Source:
    return next(source for source in phase.data.sources if source.name == name)


def test_a_shipped_chain_is_four_phases_each_built_on_all_before_it(chain: Chain) -> None:
    assert [phase.name for phase in chain.phases] == ["phase1", "phase2", "phase3", "phase4"]
    assert [phase.name for phase in chain.lineage("phase4")] == ["phase1", "phase2", "phase3"]


def test_the_themes_come_in_the_order_of_the_real_chain(chain: Chain) -> None:
    slugs = [phase.slug for phase in chain.phases]
    for slug, words in zip(slugs, [["code"], ["linux"], ["writing", "stories"], ["conversation"]], strict=True):
        assert any(word in slug for word in words), slug


def test_every_phase_forces_pad_to_the_end_of_a_turn(chain: Chain) -> None:
    assert (chain.model.eos_token, chain.model.eos_id) == ("<|im_end|>", 151645)


def test_all_shipped_phases_share_the_field_s_lora_configuration(chain: Chain) -> None:
    for phase in chain.phases:
        lora = phase.lora
        assert (lora.r, lora.alpha, lora.dropout, lora.bias) == (16, 32, 0.05, "none")
        assert lora.targets == ("q_proj", "k_proj", "v_proj", "o_proj")


def test_the_kernel_address_that_a_comment_promises_is_the_real_one(chain: Chain) -> None:
    for phase in chain.phases:
        title = (chain.root / phase.file).read_text(encoding="utf-8").split("title = ")[1]
        assert phase.slug in title.splitlines()[0].split(" # ")[1]


def test_a_shipped_phase_asks_for_a_verified_whole_run(chain: Chain) -> None:
    for phase in chain.phases:
        assert phase.gates.all_epochs
        assert phase.gates.max_loss and phase.gates.min_token_accuracy


@pytest.mark.parametrize("example, path, text", FILES, ids=lambda value: str(value)[:40].split("\n")[0])
def test_every_line_of_a_shipped_file_says_what_it_trades(example: str, path: Path, text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line.startswith(("#", "[")):
            assert " # " in line, f"{example}/{path}:{number} has no comment: {line}"
        assert len(line) <= 120, f"{example}/{path}:{number} is too long to read"


def test_the_t4_caps_of_the_field_are_built_in(qwen: Chain) -> None:
    for phase in qwen.phases:
        training = phase.training
        assert (training.batch, training.accumulation, training.epochs) == (2, 8, 3)
        assert (training.learning_rate, training.logging_steps) == (2e-4, 50)
        assert training.checkpointing and training.optimizer == "paged_adamw_8bit"
        assert phase.data.max_examples == 25_000
        assert (phase.accelerator.name, phase.precision) == ("NvidiaTeslaT4", "fp16")


def test_the_base_model_stays_on_kaggle(qwen: Chain) -> None:
    assert qwen.model.source == "qwen-lm/qwen2.5/transformers/0.5b-instruct/1"
    assert qwen.target == "kaggle"


def test_the_gates_are_the_field_s_where_answers_are_code_and_wider_for_prose(qwen: Chain) -> None:
    code = dict.fromkeys(("phase1", "phase2"), (0.8, 0.75))
    prose = {"phase3": (3.5, 0.3), "phase4": (2.0, 0.5)}
    assert {each.name: (each.gates.max_loss, each.gates.min_token_accuracy) for each in qwen.phases} == code | prose


def test_phase_1_learns_code_from_codealpaca(qwen: Chain) -> None:
    code = source(qwen.phase("phase1"), "codealpaca")
    assert code.huggingface == "sahil2801/CodeAlpaca-20k"
    assert code.fields == {"prompt": "instruction", "context": "input", "completion": "output"}


def test_phase_2_mixes_the_linux_sources_with_the_field_s_caps(qwen: Chain) -> None:
    phase = qwen.phase("phase2")
    caps = {each.dataset or each.huggingface: each.limit for each in phase.data.sources}
    assert caps == {
        "kushagragoyal060705/complex-linux-commands-from-natual-language": 10_000,
        "aelhalili/bash-commands-dataset": 840,
        "m-a-p/CodeFeedback-Filtered-Instruction": 14_000,
        "cyberprince/linux-terminal-commands-dataset": None,
    }
    words = source(phase, "codefeedback").where[0].contains
    assert words is not None and {"bash", "shell"} <= set(words)


def test_the_source_known_to_be_broken_may_fail(qwen: Chain) -> None:
    assert source(qwen.phase("phase2"), "terminal-commands").optional


def test_what_could_not_be_checked_is_optional_and_says_how_to_check(qwen: Chain) -> None:
    for phase in qwen.phases:
        text = (qwen.root / phase.file).read_text(encoding="utf-8")
        for each in phase.data.sources:
            if each.dataset:
                assert each.optional and f"kaggle datasets files {each.dataset}" in text
                assert each.file is None, "nobody has seen what the files are called"
        assert "Not checked" in text or "NOT checked" in text


def test_phases_3_and_4_share_dolly_without_overlap(qwen: Chain) -> None:
    creative = source(qwen.phase("phase3"), "dolly-creative")
    rest = source(qwen.phase("phase4"), "dolly-rest")
    assert creative.huggingface == rest.huggingface == "databricks/databricks-dolly-15k"
    assert creative.where[0].equals == rest.where[0].equals == "creative_writing"
    assert (creative.where[0].negate, rest.where[0].negate) == (False, True)


def test_conversations_are_learned_turn_by_turn(qwen: Chain) -> None:
    phase = qwen.phase("phase4")
    assert phase.data.recipe == "conversation"
    chat = source(phase, "ultrachat")
    assert (chat.split, chat.fields) == ("train_sft", {"messages": "messages"})


def test_no_phase_asks_for_more_examples_than_its_cap(qwen: Chain) -> None:
    for phase in qwen.phases:
        assert sum(each.limit or 0 for each in phase.data.sources) <= phase.data.max_examples


def test_a_child_gets_every_ancestor_s_output_and_its_data_attached(qwen: Chain) -> None:
    metadata = kernel_metadata(qwen, "phase2", adapter_sources(qwen, "phase2", {}))
    assert metadata["kernel_sources"] == ["your-kaggle-name/qwen-phase-1-code"]
    assert metadata["dataset_sources"] == [
        "kushagragoyal060705/complex-linux-commands-from-natual-language",
        "cyberprince/linux-terminal-commands-dataset",
    ]
    assert metadata["machine_shape"] == "NvidiaTeslaT4"


def test_the_tiny_chain_needs_nothing_but_this_machine(tiny: Chain) -> None:
    assert tiny.target == "local"
    for phase in tiny.phases:
        assert not phase.internet and phase.precision == "fp32"
        assert phase.accelerator.name == "cpu"
        assert all(each.kind.name == "dataset" for each in phase.data.sources)


def test_the_tiny_chain_shows_a_filter_a_broken_source_and_a_conversation(tiny: Chain) -> None:
    assert source(tiny.phase("phase2"), "tiny-linux").where
    assert source(tiny.phase("phase2"), "tiny-terminal").optional
    assert tiny.phase("phase4").data.recipe == "conversation"


def test_the_tiny_gates_ask_for_the_fall_that_was_measured(tiny: Chain) -> None:
    for phase in tiny.phases:
        assert phase.gates.min_loss_fall == 0.7
