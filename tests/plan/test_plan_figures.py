"""The plan of a phase: steps, hours, disk and bytes, with the reason of each."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from kchain.errors import InputError
from kchain.phases import ACCELERATORS, Chain, load_chain
from kchain.phases.memory import Memory, memory_words
from kchain.phases.memory import memory as step_memory
from kchain.phases.models import Shape, known, model_shape
from kchain.phases.plan import TrainingPlan, session_words, training_plan
from kchain.units import GIB, duration, gib, size

QWEN3, QWEN3_VL, QWEN25 = known("qwen-3"), known("qwen-3-vl"), known("qwen2.5")

QWEN = "qwen-lm/qwen2.5/transformers/0.5b-instruct/1"
HUB = '{ name = "hub", huggingface = "h/f", fields = { prompt = "p", completion = "c" }'


def write(root: Path, source: str = f"{HUB} }}", model: str = QWEN, chain: str = "", rest: str = "") -> Chain:
    (root / "phases").mkdir(exist_ok=True)
    (root / "kchain.toml").write_text(
        f'[chain]\nname = "demo"\nowner = "someone"\n{chain}[model]\nsource = "{model}"\n{rest}'
    )
    for number, name in enumerate(("one", "two", "three")):
        after = f'after = "{("one", "two")[number - 1]}"\n' if number else ""
        data = f"[data]\nsources = [{source}]\n"
        (root / "phases" / f"{name}.toml").write_text(f'title = "Part {name}"\ndescription = "x"\n{after}{data}')
    return load_chain(root)


def planned(root: Path, phase: str = "one", **values: Any) -> TrainingPlan:
    return training_plan(write(root, **values), phase)


@pytest.mark.parametrize(
    "size_, published",
    # As on the model cards of Qwen/Qwen2.5-*-Instruct.
    [("0.5b", 0.49e9), ("1.5b", 1.54e9), ("3b", 3.09e9), ("7b", 7.61e9), ("14b", 14.7e9)],
)
def test_the_shapes_give_the_published_number_of_parameters(size_: str, published: float) -> None:
    assert math.isclose(QWEN25[size_].parameters, published, rel_tol=0.01)


def test_the_published_bytes_of_the_half_billion_model() -> None:
    """Its model.safetensors holds 494,032,768 bf16 numbers: 988 MB."""
    assert QWEN25["0.5b"].parameters == 494_032_768


@pytest.mark.parametrize(
    "source, known",
    [
        (QWEN, True),
        ("qwen-lm/qwen2.5/Transformers/7b/3", True),
        ("qwen-lm/qwen2.5-coder/transformers/14b-instruct/1", True),
        ("qwen-lm/qwen2.5/transformers/7b-instruct-awq/1", False),
        ("qwen-lm/qwen2.5/gguf/7b-instruct/1", False),
        ("qwen-lm/qwen-3/transformers/0.6b/1", True),
        ("qwen-lm/qwen-3/transformers/14b-base/1", True),
        ("qwen-lm/qwen-3/transformers/14b-awq/1", False),
        ("qwen-lm/qwen-3-vl/transformers/8b-instruct/1", True),
        ("qwen-lm/qwen-3-vl/transformers/30b-a3b-instruct-fp8/1", False),
        ("qwen-lm/qwen2.5/transformers/72b-instruct/1", False),
        ("a/b/c/d/1", False),
    ],
)
def test_a_shape_is_known_only_of_what_it_was_read_from(source: str, known: bool) -> None:
    assert (model_shape(source) is not None) is known


def test_an_adapters_bytes_follow_from_rank_and_shape() -> None:
    shape = QWEN25["0.5b"]
    # By hand: q and o 896 -> 896, k and v 896 -> 128; 24 layers; rank 16; 4 bytes.
    by_hand = 24 * 16 * (2 * (896 + 896) + 2 * (896 + 128)) * 4
    assert shape.adapter_bytes(16, ("q_proj", "k_proj", "v_proj", "o_proj")) == by_hand == 8_650_752
    assert shape.adapter_bytes(32, ("q_proj",)) == 24 * 32 * 1792 * 4
    assert shape.adapter_bytes(16, ("q_proj", "wte")) is None


def test_trainable_parameters_as_a_user_measured_them() -> None:
    """64 M trainable, 0.43 %, of a 14 B model; 174 M, 1.95 %, of an 8 B one that also sees: rank 64."""
    shape = QWEN3["14b"]
    trainable = (shape.adapter_bytes(16, shape.linear) or 0) // 4
    assert trainable == 64_225_280
    assert round(100 * trainable / shape.parameters, 2) == 0.43
    seeing = QWEN3_VL["8b"]
    trainable = (seeing.adapter_bytes(64, seeing.linear) or 0) // 4
    assert round(trainable / 1e6) == 175
    assert round(100 * trainable / (seeing.parameters + trainable), 2) == 1.95


@pytest.mark.parametrize(
    "shape, published",
    # Qwen/Qwen3-0.6B's file; the cards of the others.
    [(QWEN3["0.6b"], 596_049_920), (QWEN3["4b"], 4.0e9), (QWEN3["14b"], 14.8e9), (QWEN3_VL["8b"], 8.77e9)],
)
def test_qwen_3_has_the_published_number_of_parameters(shape: Shape, published: float) -> None:
    assert math.isclose(shape.parameters, published, rel_tol=0.01)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_peft_makes_an_adapter_of_the_planned_size() -> None:
    """The oracle is peft itself, on an empty model of the real shape."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    shape = QWEN25["0.5b"]
    config = transformers.Qwen2Config(
        hidden_size=shape.hidden, num_hidden_layers=2, num_attention_heads=shape.heads, vocab_size=64,
        num_key_value_heads=shape.kv_heads, intermediate_size=shape.intermediate,
    )  # fmt: skip
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=16, target_modules=targets, task_type="CAUSAL_LM"))
    trainable = sum(weight.numel() for weight in wrapped.parameters() if weight.requires_grad)
    assert shape.adapter_bytes(16, targets) == trainable // 2 * shape.layers * 4


def test_examples_are_capped_and_the_plan_says_by_what(tmp_path: Path) -> None:
    capped = planned(tmp_path)
    assert (capped.examples, capped.examples_reason) == (25_000, "max_examples, as the size of hub is unknown")
    assert capped.validation == 500
    many = planned(tmp_path, source=f"{HUB}, limit = 25001 }}")
    assert (many.examples, many.examples_reason) == (25_000, "max_examples")
    small = planned(tmp_path, source=f"{HUB}, limit = 840 }}")
    assert (small.examples, small.examples_reason) == (840, "all that the sources may give")
    assert small.validation == 16


def test_the_lines_of_a_project_file_are_counted(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"p": 1}\n' * 30)
    own = '{ name = "own", file = "own.jsonl", fields = { prompt = "p", completion = "c" }'
    assert planned(tmp_path, source=f"{own} }}").examples == 30
    assert planned(tmp_path, source=f"{own}, limit = 20 }}").examples == 20
    assert planned(tmp_path, source=f"{own}, limit = 50 }}, {HUB}, limit = 5 }}").examples == 35


SIDE = '{ name = "side", dataset = "a/b", optional = true, fields = { prompt = "p", completion = "c" } }'


def test_an_optional_source_without_a_limit_is_not_counted_beside_others_and_the_plan_says_so(tmp_path: Path) -> None:
    one = planned(tmp_path, source=f"{HUB}, limit = 840 }}, {SIDE}")
    assert one.examples == 840
    assert one.examples_reason == "all that the others may give if side (optional, no limit) is skipped, else 25,000"
    assert one.steps == 3 * math.ceil(824 / 16)


def test_what_is_not_counted_still_counts_when_the_session_must_be_long_enough(tmp_path: Path) -> None:
    one = planned(tmp_path, source=f"{HUB}, limit = 840 }}, {SIDE}", chain='session_timeout = "10m"\n')
    assert one.hours < 1
    assert "h of training need" in one.warnings[0]


def test_optional_sources_alone_are_counted_as_the_cap(tmp_path: Path) -> None:
    assert planned(tmp_path, source=SIDE).examples == 25_000
    assert (
        planned(tmp_path, source=f"{HUB} }}, {SIDE}").examples_reason
        == "max_examples, as the size of hub, side is unknown"
    )


def test_a_data_set_without_a_file_name_is_described_as_such(tmp_path: Path) -> None:
    assert planned(tmp_path, source=SIDE).sources == ("the only file of a/b",)


def test_a_tiny_set_still_has_one_example_to_judge_by(tmp_path: Path) -> None:
    assert planned(tmp_path, source=f"{HUB}, limit = 10 }}").validation == 1


def test_steps_are_epochs_times_full_batches(tmp_path: Path) -> None:
    one = planned(tmp_path)
    assert one.steps == 3 * math.ceil(24_500 / 16) == 4596
    assert one.hours == pytest.approx(4596 * one.seconds / 3600)


def test_max_steps_is_the_ceiling_only_where_it_is_lower(tmp_path: Path) -> None:
    low = planned(tmp_path, rest="[training]\nmax_steps = 10\n")
    assert (low.steps, low.steps_reason) == (10, "max_steps")
    assert planned(tmp_path, rest="[training]\nmax_steps = 9999\n").steps == 4596


def test_a_phase_longer_than_its_sessions_is_warned_of_with_a_cure(tmp_path: Path) -> None:
    unknown = {"model": "a/b/c/d/1"}  # whose hours are those of step_seconds
    late = planned(tmp_path, chain='session_timeout = "2h"\n', rest="[training]\nmax_sessions = 1\n", **unknown)
    assert not late.fits
    assert "up to 6.4 h of training need 4 sessions and do not fit into a session of 2.0 h" in late.warnings[0]
    assert "max_examples" in late.warnings[0]
    three = planned(tmp_path, chain='session_timeout = "2h"\n', **unknown)
    assert "do not fit into 3 sessions of 2.0 h" in three.warnings[0]
    four = planned(tmp_path, chain='session_timeout = "2h"\n', rest="[training]\nmax_sessions = 4\n", **unknown)
    assert (four.fits, four.sessions, four.max_sessions) == (True, 4, 4)
    assert session_words(four) == "at most 4 sessions of 2 h = 8 h of GPU quota"
    assert planned(tmp_path, chain='session_timeout = "9h"\n', **unknown).sessions == 1


def test_a_model_larger_than_the_gpu_is_warned_of_unless_it_is_quantized(tmp_path: Path) -> None:
    big = "qwen-lm/qwen2.5/transformers/14b-instruct/1"
    assert any("27.5 GiB of a GPU that has 14.6 GiB" in text for text in planned(tmp_path, model=big).warnings)
    assert planned(tmp_path, model=big, rest='[training]\nquantization = "nf4"\nmax_length = 512\n').fits


def test_what_does_not_fit_names_what_does_and_that_really_fits(tmp_path: Path) -> None:
    big = "qwen-lm/qwen2.5/transformers/7b-instruct/1"
    kept = '[training]\nquantization = "nf4"\ncheckpointing = false\n'
    late = planned(tmp_path, model=big, rest=f"{kept}batch = 4\naccumulation = 4\nmax_length = 512\n")
    (warning,) = late.warnings
    assert late.memory is not None and late.memory.total > late.gpu_memory
    assert "set batch = 2, accumulation = 8 (" in warning
    assert ", or checkpointing = true (" in warning
    assert planned(tmp_path, model=big, rest=f"{kept}batch = 2\naccumulation = 8\nmax_length = 512\n").fits
    longest = int(warning.partition("max_length = ")[2].split()[0])
    for length, fits in ((longest, True), (longest + 64, False)):
        rest = f"{kept}batch = 4\naccumulation = 4\nmax_length = {length}\n"
        assert planned(tmp_path, model=big, rest=rest).fits is fits


def test_the_memory_of_a_phase_is_that_of_its_settings(tmp_path: Path) -> None:
    one = planned(tmp_path)
    settings = ("fp16", "none", 2, 1024, 16, ("q_proj", "k_proj", "v_proj", "o_proj"), "paged_adamw_8bit", True)
    assert one.memory == step_memory(QWEN25["0.5b"], *settings)
    assert one.memory.adapter == one.adapter_bytes
    assert one.as_dict()["memory"] == one.memory.as_dict()


def test_a_given_shape_stands_in_for_what_kchain_does_not_know(tmp_path: Path) -> None:
    chain = write(tmp_path, model="a/b/c/d/1")
    found = training_plan(chain, "two", QWEN25["7b"])
    assert found.weight_bytes == 2 * QWEN25["7b"].parameters
    assert found.memory is not None
    assert any('set quantization = "nf4"' in warning for warning in found.warnings)


def test_a_cpu_is_not_measured_against_a_gpu(tmp_path: Path) -> None:
    big = "qwen-lm/qwen2.5/transformers/14b-instruct/1"
    one = planned(tmp_path, model=big, chain='accelerator = "cpu"\n')
    assert not any("GPU" in warning for warning in one.warnings)
    assert one.memory is not None and one.memory.weights == 4 * QWEN25["14b"].parameters


def test_a_merged_base_needs_disk_only_where_there_is_something_to_merge(tmp_path: Path) -> None:
    assert planned(tmp_path, "one").disk == 0
    assert planned(tmp_path, "two").disk == 2 * 494_032_768
    assert planned(tmp_path, "three").disk == 2 * 494_032_768, "one merged base, however many adapters"
    assert planned(tmp_path, "three", chain='accelerator = "cpu"\n').disk == 2 * 494_032_768, "fp16 on disk everywhere"


def test_what_moves_grows_by_an_adapter_and_not_by_a_model(tmp_path: Path) -> None:
    found = [planned(tmp_path, name) for name in ("one", "two", "three")]
    assert [one.moved for one in found] == [0, 8_650_752, 2 * 8_650_752]
    assert [one.whole_model for one in found] == [0, 988_065_536, 988_065_536]
    assert [one.built_on for one in found] == [(), ("one",), ("one", "two")]


def test_an_unknown_model_leaves_figures_open_and_claims_nothing(tmp_path: Path) -> None:
    one = planned(tmp_path, "two", model="a/b/c/d/1")
    assert (one.weight_bytes, one.memory, one.adapter_bytes, one.disk, one.moved, one.whole_model) == (None,) * 6
    assert one.steps == 4596
    assert one.fits


@pytest.mark.parametrize("name", ACCELERATORS)
def test_as_many_gpus_train_as_share_the_batches_of_a_step_evenly(tmp_path: Path, name: str) -> None:
    chain = f'target = "local"\naccelerator = "{name}"\n'
    one = planned(tmp_path, chain=chain)
    assert one.gpus_used == one.gpus, "8 batches on 1, 2 or 4 GPUs"
    assert one.precision_reason
    odd = planned(tmp_path, chain=chain, rest="[training]\naccumulation = 7\n")
    assert odd.gpus_used == min(1, odd.gpus)


def test_the_plan_is_plain_data_for_programs(tmp_path: Path) -> None:
    values = json.loads(json.dumps(planned(tmp_path, "two").as_dict()))
    assert values["built_on"] == ["one"]
    assert values["kernel"] == "someone/part-two"


def test_an_unknown_phase_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no phase 'nine'"):
        planned(tmp_path, "nine")


@pytest.mark.parametrize(
    "found, words",
    [
        (size(999), "999 B"),
        (size(8_650_752), "8.7 MB"),
        (size(988_065_536), "988.1 MB"),
        (size(15_231_233_024), "15.2 GB"),
        (gib(int(14.56 * GIB)), "14.6 GiB"),
        (duration(9), "9 h"),
        (duration(6.38), "6.4 h"),
        (duration(0.2), "12 min"),
        (duration(40 / 3600), "40 s"),
        (duration(0), "0 s"),
    ],
)
def test_figures_are_written_for_people(found: str, words: str) -> None:
    assert found == words


def test_a_memory_plan_is_one_line_without_its_trifles() -> None:
    needed = Memory(5 * GIB, GIB // 100, 2 * GIB, 0, GIB, GIB // 2)
    line = memory_words(needed, 14 * GIB)
    assert line == "8.5 GiB at most, of 14.0 GiB: weights 5.0, optimizer 2.0, logits 1.0, margin 0.5"
    assert memory_words(needed, 0).startswith("8.5 GiB at most: weights")
