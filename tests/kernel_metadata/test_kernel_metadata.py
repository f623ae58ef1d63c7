"""kernel-metadata.json says where a phase runs and on what, and breaks none of Kaggle's rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kchain.errors import InputError
from kchain.kernel_metadata import AdapterSource, adapter_sources, kernel_metadata, problems
from kchain.kernel_metadata import check as kaggles
from kchain.phases import ACCELERATORS, RETIRED, Chain, load_chain

DATA = """
[[data.sources]]
name = "a"
dataset = "owner-a/set-a"
file = "x.jsonl"
fields = { prompt = "p", completion = "c" }
[[data.sources]]
name = "b"
dataset = "owner-a/set-a"
file = "y.jsonl"
fields = { prompt = "p", completion = "c" }
[[data.sources]]
name = "c"
huggingface = "h/f"
fields = { prompt = "p", completion = "c" }
[[data.sources]]
name = "d"
dataset = "owner-b/set-b"
file = "z.jsonl"
fields = { prompt = "p", completion = "c" }
"""
GOOD: dict[str, Any] = {
    "id": "someone/my-training",
    "title": "My training",
    "code_file": "notebook.ipynb",
    "language": "python",
    "kernel_type": "notebook",
}


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return write(tmp_path, "NvidiaTeslaT4")


def write(root: Path, accelerator: str) -> Chain:
    (root / "phases").mkdir()
    (root / "kchain.toml").write_text(
        f'[chain]\nname = "demo"\nowner = "someone"\naccelerator = "{accelerator}"\n'
        '[model]\nsource = "qwen-lm/qwen2.5/transformers/0.5b-instruct/1"\n'
    )
    for number, name in enumerate(("one", "two", "three")):
        after = f'after = "{("one", "two")[number - 1]}"\n' if number else ""
        text = f'title = "Chain part {name}"\ndescription = "x"\n{after}[data]\n{DATA}'
        (root / "phases" / f"{name}.toml").write_text(text)
    return load_chain(root)


def made(chain: Chain, phase: str, **adopted: AdapterSource) -> dict[str, Any]:
    return kernel_metadata(chain, phase, adapter_sources(chain, phase, adopted))


def test_a_root_phase_has_its_data_and_its_model_and_no_kernel(chain: Chain) -> None:
    assert made(chain, "one") == {
        "id": "someone/chain-part-one",
        "title": "Chain part one",
        "code_file": "notebook.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "machine_shape": "NvidiaTeslaT4",
        "enable_internet": True,
        "dataset_sources": ["owner-a/set-a", "owner-b/set-b"],
        "kernel_sources": [],
        "model_sources": ["qwen-lm/qwen2.5/transformers/0.5b-instruct/1"],
        "competition_sources": [],
        "keywords": [],
    }


def test_every_ancestors_kernel_is_a_source_root_first(chain: Chain) -> None:
    assert made(chain, "three")["kernel_sources"] == ["someone/chain-part-one", "someone/chain-part-two"]


def test_an_adopted_ancestor_brings_its_data_set_or_its_own_kernel(chain: Chain) -> None:
    by_set = made(chain, "three", one=AdapterSource("one", "dataset", "someone/hand-trained", "", "ab"))
    assert by_set["dataset_sources"] == ["owner-a/set-a", "owner-b/set-b", "someone/hand-trained"]
    assert by_set["kernel_sources"] == ["someone/chain-part-two"]
    by_kernel = made(chain, "three", two=AdapterSource("two", "kernel", "someone/older", "out", "ab"))
    assert by_kernel["kernel_sources"] == ["someone/chain-part-one", "someone/older"]


def test_two_ancestors_from_one_data_set_name_it_once(chain: Chain) -> None:
    both = {name: AdapterSource(name, "dataset", "someone/adapters", name, "ab") for name in ("one", "two")}
    assert made(chain, "three", **both)["dataset_sources"].count("someone/adapters") == 1
    assert [source.folder for source in adapter_sources(chain, "three", both)] == ["one", "two"]


def test_adopting_a_phase_that_is_no_ancestor_changes_nothing(chain: Chain) -> None:
    stranger = AdapterSource("three", "dataset", "someone/x", "", "ab")
    assert made(chain, "two", three=stranger) == made(chain, "two")


def test_a_cpu_phase_names_no_machine(tmp_path: Path) -> None:
    metadata = made(write(tmp_path, "cpu"), "one")
    assert "machine_shape" not in metadata
    assert metadata["enable_gpu"] is False


def test_an_unknown_phase_is_told(chain: Chain) -> None:
    with pytest.raises(InputError, match="there is no phase 'four'"):
        made(chain, "four")


@pytest.mark.parametrize("accelerator", [machine.name for machine in ACCELERATORS.values() if machine.kaggle])
def test_kchains_own_metadata_breaks_no_rule(tmp_path: Path, accelerator: str) -> None:
    chain = write(tmp_path, accelerator)
    assert [problem for phase in chain.phases for problem in problems(made(chain, phase.name))] == []


def test_a_machine_of_one_s_own_is_for_a_server_and_never_for_kaggle() -> None:
    metadata = {**GOOD, "machine_shape": "NvidiaA10G", "enable_gpu": True}
    assert problems(metadata, kaggle=False) == []
    (problem,) = problems(metadata)
    assert problem.rule is kaggles.UNKNOWN_SHAPE
    (problem,) = problems({**metadata, "machine_shape": "NvidiaA11G"}, kaggle=False)
    assert problem.rule is kaggles.UNKNOWN_SHAPE


def test_minimal_metadata_is_enough() -> None:
    assert problems(GOOD) == []
    assert problems({key: value for key, value in GOOD.items() if key not in ("id", "title")} | {"id_no": 7}) == []


@pytest.mark.parametrize("retired", RETIRED)
def test_a_retired_machine_is_told_with_the_one_you_would_get(retired: str) -> None:
    (problem,) = problems({**GOOD, "machine_shape": retired, "enable_gpu": True})
    assert problem.rule is kaggles.RETIRED_SHAPE
    assert RETIRED[retired] in problem.message


@pytest.mark.parametrize(
    "title, slug",
    [
        ("Qwen chain: code & more", "qwen-chain-code-more"),
        ("Écriture créative", "ecriture-creative"),
        ("训练模型", "xun-lian-mo-xing"),
    ],
)
def test_the_address_is_made_from_the_title_as_kaggle_makes_it(title: str, slug: str) -> None:
    if len(title) >= 5:
        assert problems({**GOOD, "title": title, "id": f"someone/{slug}"}) == []
    assert any(found.rule is kaggles.SLUG for found in problems({**GOOD, "title": title}))


@pytest.mark.parametrize("words", [{"enable_gpu": "true"}, {"enable_gpu": True}, {"enable_gpu": "True"}])
def test_switches_may_be_words_as_in_kaggles_own_template(words: dict[str, Any]) -> None:
    assert problems({**GOOD, **words, "machine_shape": "NvidiaTeslaT4"}) == []


def test_sources_may_carry_a_version() -> None:
    assert problems({**GOOD, "dataset_sources": ["a/b/3"], "kernel_sources": ["a/b/12"]}) == []


def test_a_prefixed_source_of_an_old_pull_is_found() -> None:
    (problem,) = problems({**GOOD, "dataset_sources": ["datasets/a/b"]})
    assert (problem.rule, problem.key) == (kaggles.SOURCE, "dataset_sources")


def test_every_rule_has_its_own_id_and_says_why_and_what_to_do() -> None:
    found = [value for value in vars(kaggles).values() if isinstance(value, kaggles.Rule)]
    assert len({rule.id for rule in found}) == len(found) >= 11
    assert all(rule.reason.endswith(".") and rule.cure.endswith(".") for rule in found)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = [*GOOD, *kaggles.FLAGS, *kaggles.SOURCE_FORMS, "machine_shape", "id_no", "keywords"]


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_no_metadata_gives_a_traceback(metadata: dict[str, Any]) -> None:
    assert all(problem.message and problem.key for problem in problems(metadata))


CLIENT = """
import json, sys
from kaggle.api.kaggle_api_extended import KaggleApi
from slugify import slugify
api = KaggleApi()
metadata = json.load(open(sys.argv[1]))
assert metadata["language"] in api.valid_push_language_types
assert metadata["kernel_type"] in api.valid_push_kernel_types
owner, slug, version = api.parse_kernel_string(metadata["id"])
assert (slug, version) == (slugify(metadata["title"]), None)
for source in metadata["dataset_sources"]:
    api.validate_dataset_string(source)
for source in metadata["kernel_sources"]:
    api.validate_kernel_string(source)
for source in metadata["model_sources"]:
    api.validate_model_instance_version_string(source)
print("accepted", api.get_bool(metadata, "enable_gpu", False), api.get_bool(metadata, "is_private", True))
"""


def test_kaggles_own_client_accepts_it(tmp_path: Path, chain: Chain) -> None:
    path = tmp_path / "kernel-metadata.json"
    path.write_text(json.dumps(made(chain, "three")))
    environment = {**os.environ, "HOME": str(tmp_path), "KAGGLE_USERNAME": "someone", "KAGGLE_KEY": "0" * 32}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(path)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip().endswith("accepted True True"), done.stdout + done.stderr
