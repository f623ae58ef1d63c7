"""The contract of a finished phase: what both sides read from one table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kchain.runtime import contract
from kchain.runtime.adapters import Adapter
from kchain.runtime.tokenizer import tokenizer_folder

HARMLESS = {"r": 4, "use_dora": False, "rank_pattern": {}, "layer_replication": None, "init_lora_weights": True}


def test_a_plain_lora_loses_nothing_in_a_merge() -> None:
    for start in (True, False, "gaussian", "orthogonal"):
        assert contract.other_maths({**HARMLESS, "init_lora_weights": start}) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("layer_replication", [[0, 2], [1, 2]]),
        ("layers_to_transform", [0]),
        ("alora_invocation_tokens", [1, 2]),
        ("target_parameters", ["experts.gate_up_proj"]),
        ("init_lora_weights", "pissa_niter_16"),
        ("init_lora_weights", "LoftQ"),
    ],
)
def test_an_option_that_a_merge_would_lose_is_named_with_its_value(option: str, value: object) -> None:
    assert contract.other_maths({**HARMLESS, option: value}) == [f"{option} = {value!r}"]


@pytest.mark.parametrize(
    ("told", "ends"), [(None, [9]), (9, [9]), (7, [9, 7]), ([7, 9, 8], [9, 7, 8]), ([], [9])], ids=str
)
def test_an_answer_ends_with_the_chains_own_token_or_with_one_of_the_models(told: object, ends: list[int]) -> None:
    assert contract.answer_ends(9, told) == ends


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        (["tokenizer_config.json", "tokenizer.json"], True),
        (["tokenizer_config.json", "vocab.json", "merges.txt"], True),
        (["tokenizer_config.json", "tokenizer.model"], True),
        (["tokenizer_config.json", "merges.txt", "chat_template.jinja"], False),
        (["tokenizer.json"], False),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_the_last_adapter_with_a_whole_tokenizer_gives_it(names: list[str], whole: bool, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in (contract.CONFIG, contract.WEIGHTS, *names):
        (folder / name).touch()
    adapter = Adapter("phase1", "kernel", "me/one", folder, "0" * 64, 1)
    assert tokenizer_folder(tmp_path / "base", [adapter]) == (folder if whole else tmp_path / "base")


def test_a_result_says_failed_until_its_session_knows_better() -> None:
    parameters = {
        "chain": "c",
        "phase": "p",
        "pad": {"token": "<end>", "id": 7},
        "lora": {"r": 4},
        "model": {"source": "a/b/c/d/1"},
    }
    begun = contract.PhaseResult.begin(parameters, "f" * 64, session=2)
    assert (begun.status, begun.reason) == ("failed", "the session ended before its first stage")
    assert (begun.session, begun.pad_id, begun.lineage, begun.adapter) == (2, 7, [], None)


def test_the_contract_needs_the_standard_library_alone() -> None:
    code = (
        "import sys, kchain.runtime.contract\n"
        "names = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "print('OTHERS', sorted(name for name in names if name in ('pydantic', 'torch', 'numpy', 'peft')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "OTHERS []"
