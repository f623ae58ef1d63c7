"""What people write into kchain.toml and phases/*.toml: what is accepted, and how each mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kchain.errors import InputError
from kchain.phases import find_root, load_chain

CHAIN = """
[chain]
name = "alpha"
owner = "someone"
[model]
source = "qwen-lm/qwen2.5/transformers/0.5b-instruct/1"
"""
SOURCE = '{ name = "s", dataset = "a/b", file = "c.jsonl", fields = { prompt = "p", completion = "c" } }'
PHASE = 'title = "Alpha {name}"\ndescription = "A phase."\n{after}[data]\nsources = [{source}]\n{rest}'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "phases").mkdir()
    (tmp_path / "kchain.toml").write_text(CHAIN, encoding="utf-8")
    write(tmp_path, "one")
    return tmp_path


def write(project: Path, name: str, after: str | None = None, source: str = SOURCE, rest: str = "") -> None:
    parent = f'after = "{after}"\n' if after else ""
    text = PHASE.format(name=name, after=parent, source=source, rest=rest)
    (project / "phases" / f"{name}.toml").write_text(text, encoding="utf-8")


def complaint(project: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_chain(project)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_minimal_chain_gets_the_recipe_of_a_t4(project: Path) -> None:
    phase = load_chain(project).phase("one")
    assert (phase.lora.r, phase.lora.alpha, phase.lora.dropout, phase.lora.bias) == (16, 32, 0.05, "none")
    assert phase.lora.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    training = phase.training
    assert (training.batch, training.accumulation, training.epochs, training.learning_rate) == (2, 8, 3, 2e-4)
    assert (training.optimizer, training.checkpointing, training.logging_steps) == ("paged_adamw_8bit", True, 50)
    assert phase.data.max_examples == 25_000
    assert phase.precision == "fp16"
    assert "no bf16" in phase.precision_reason


def test_a_phase_changes_only_the_keys_it_names(project: Path) -> None:
    write(project, "one", rest="[training]\nepochs = 1\n[gates]\nmax_loss = 0.5\n")
    with (project / "kchain.toml").open("a") as file:
        file.write("[training]\nbatch = 4\nepochs = 7\n[gates]\nmin_token_accuracy = 0.6\n")
    phase = load_chain(project).phase("one")
    assert (phase.training.epochs, phase.training.batch) == (1, 4)
    assert (phase.gates.max_loss, phase.gates.min_token_accuracy) == (0.5, 0.6)


def test_phases_come_with_parents_before_children_and_lineage_root_first(project: Path) -> None:
    write(project, "a-last", after="middle")
    write(project, "middle", after="one")
    chain = load_chain(project)
    assert [phase.name for phase in chain.phases] == ["one", "middle", "a-last"]
    assert [phase.name for phase in chain.lineage("a-last")] == ["one", "middle"]
    assert [phase.name for phase in chain.children("one")] == ["middle"]
    assert chain.kernel("middle") == "someone/alpha-middle"


def test_all_mistakes_of_all_files_are_told_at_once_with_file_and_key(project: Path) -> None:
    (project / "kchain.toml").write_text(CHAIN.replace('"someone"', '"Some One"') + "[training]\nepohcs = 3\n")
    write(project, "one", rest='[gates]\nmax_loss = "small"\n')
    text = complaint(project)
    assert text.startswith("3 problems")
    assert "kchain.toml: chain.owner:" in text
    assert "kchain.toml: training.epohcs: unknown key; allowed here: epochs," in text
    assert "phases/one.toml: gates.max_loss: a number; found 'small'" in text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('{ name = "s", fields = { prompt = "p", completion = "c" } }', "one of dataset, huggingface or file"),
        ('{ name = "s", dataset = "a", file = "c.jsonl", fields = { prompt = "p", completion = "c" } }', "dataset"),
        ('{ name = "s", dataset = "a/b", file = "c.jsonl", fields = { prompt = "p" } }', "completion + prompt"),
        (SOURCE + ", " + SOURCE, "two sources have the same name"),
        (SOURCE.replace(" }", ' }, where = [{ column = "x" }]', 1).replace("]  }", "] }"), "exactly one of"),
        (
            SOURCE.replace("} }", '}, where = [{ column = "x", matches = "(" }] }'),
            "matches is not a regular expression",
        ),
        (
            SOURCE.replace("} }", '}, where = [{ column = "x", equals = 1, contains = ["a"] }] }'),
            "exactly one of any_of, contains, equals, matches or a length; found contains, equals",
        ),
    ],
)
def test_a_source_that_cannot_work_is_refused_with_the_reason(project: Path, source: str, expected: str) -> None:
    write(project, "one", source=source)
    assert expected in complaint(project)


def test_a_kaggle_data_set_needs_no_file_name(project: Path) -> None:
    write(project, "one", source='{ name = "s", dataset = "a/b", fields = { prompt = "p", completion = "c" } }')
    (source,) = load_chain(project).phase("one").data.sources
    assert (source.kind.name, source.file) == ("dataset", None)


def test_an_unknown_parent_is_named_with_the_phases_there_are(project: Path) -> None:
    write(project, "two", after="zero")
    assert "phases/two.toml: after: there is no phase 'zero'; phases: one, two" in complaint(project)


def test_a_circle_is_shown_as_a_circle(project: Path) -> None:
    write(project, "a", after="b")
    write(project, "b", after="a")
    assert "a circle: a -> b -> a" in complaint(project)


def test_two_phases_cannot_share_a_kernel_address(project: Path) -> None:
    write(project, "two")
    path = project / "phases" / "two.toml"
    path.write_text(path.read_text().replace("Alpha two", "ALPHA  one!"), encoding="utf-8")
    assert "same kernel address 'alpha-one'" in complaint(project)


def test_one_chain_has_one_lora_configuration(project: Path) -> None:
    write(project, "two", after="one", rest="[lora]\nr = 8\n")
    text = complaint(project)
    assert "one chain has one LoRA configuration" in text
    assert "r = 8 here, 16 in one" in text


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ('accelerator = "NvidiaTeslaT5"', "unknown accelerator 'NvidiaTeslaT5'"),
        ('session_timeout = "9 hours"', "a duration is a number and a unit"),
        ('session_timeout = "13h"', "at most 12 h; found 13 h"),
        ("session_timeout = 9", "at least 60 s; found 9 s (a number without a unit is seconds)"),
        ('target = ""', "at least 1 character"),
        ('target = "aws"', "kaggle, local, or the URL of a kchain server; found 'aws'"),
    ],
)
def test_a_wrong_value_in_the_chain_table_is_told(project: Path, key: str, expected: str) -> None:
    (project / "kchain.toml").write_text(CHAIN.replace("[model]", f"{key}\n[model]"), encoding="utf-8")
    assert expected in complaint(project)


def test_a_wrong_value_of_the_chain_is_told_once_and_of_its_own_file(project: Path) -> None:
    write(project, "two")
    for wrong in ('accelerator = "NvidiaTeslaT5"\n[model]', '[training]\nprecision = "bf16"\n[model]'):
        (project / "kchain.toml").write_text(CHAIN.replace("[model]", wrong), encoding="utf-8")
        told = complaint(project)
        assert told.startswith("1 problem"), told
        assert "kchain.toml" in told


def test_bf16_on_a_t4_is_refused_and_fp16_on_a_cpu_too(project: Path) -> None:
    write(project, "one", rest='[training]\nprecision = "bf16"\n')
    assert "NvidiaTeslaT4 has no bf16" in complaint(project)
    write(project, "one", rest='[training]\nprecision = "fp16"\n')
    (project / "kchain.toml").write_text(CHAIN.replace("[model]", 'accelerator = "cpu"\n[model]'), encoding="utf-8")
    assert "fp16 training needs a GPU" in complaint(project)


def test_a_hugging_face_source_needs_internet(project: Path) -> None:
    write(project, "one", source='{ name = "h", huggingface = "a/b", fields = { prompt = "p", completion = "c" } }')
    assert load_chain(project).phase("one").data.sources[0].kind.name == "huggingface"
    (project / "kchain.toml").write_text(CHAIN.replace("[model]", "internet = false\n[model]"), encoding="utf-8")
    assert "'h' needs internet, which is off" in complaint(project)


def test_a_target_that_the_base_model_does_not_have_is_told(project: Path) -> None:
    with (project / "kchain.toml").open("a") as file:
        file.write('[lora]\ntargets = ["q_proj", "k_prj"]\n')
    text = complaint(project)
    assert "kchain.toml: lora.targets: qwen-lm/qwen2.5/transformers/0.5b-instruct/1 has no k_prj; it has q_proj" in text


OWN = '{ name = "own", file = "data/own.jsonl", fields = { prompt = "p", completion = "c" } }'


def test_a_jsonl_file_of_the_project_is_read_with_the_chain(project: Path) -> None:
    (project / "data").mkdir()
    (project / "data" / "own.jsonl").write_text('{"p":"ä",\t"c":1}\n\n{"p":"b","c":2}', encoding="utf-8")
    write(project, "one", source=OWN)
    assert load_chain(project).files == {"data/own.jsonl": '{"p": "ä", "c": 1}\n{"p": "b", "c": 2}\n'}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read"),
        (b'{"p": 1}\n{"p": \n', "line 2 is not JSON"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b'{"p": "' + b"x" * 300_000 + b'"}', "over 256 KiB"),
    ],
    ids=["missing", "broken", "not-text", "large"],
)
def test_a_bad_project_file_is_told_before_anything_is_rendered(
    project: Path, content: bytes | None, expected: str
) -> None:
    (project / "data").mkdir()
    if content is not None:
        (project / "data" / "own.jsonl").write_bytes(content)
    write(project, "one", source=OWN)
    assert expected in complaint(project)


def test_a_project_file_outside_the_project_is_refused(project: Path) -> None:
    write(project, "one", source=OWN.replace("data/own.jsonl", "../own.jsonl"))
    assert "is outside the project" in complaint(project)


def test_a_folder_without_a_project_says_how_to_make_one(tmp_path: Path, project: Path) -> None:
    assert find_root(project / "phases") == project
    (project / "kchain.toml").unlink()
    with pytest.raises(InputError, match="kchain init"):
        find_root(project)


def test_a_chain_without_phases_is_told(project: Path) -> None:
    (project / "phases" / "one.toml").unlink()
    assert "no phase file" in complaint(project)


def test_asking_for_an_unknown_phase_names_those_there_are(project: Path) -> None:
    with pytest.raises(InputError, match="phases of this chain: one"):
        load_chain(project).phase("phase9")


@settings(max_examples=60, deadline=None)
@given(text=st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_no_content_of_a_file_gives_a_traceback(tmp_path_factory: pytest.TempPathFactory, text: str | bytes) -> None:
    project = tmp_path_factory.mktemp("any")
    (project / "phases").mkdir()
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    (project / "kchain.toml").write_bytes(content)
    (project / "phases" / "one.toml").write_bytes(content)
    with pytest.raises(InputError):
        load_chain(project)
