"""An adapter with trained token rows counts only with the rows of the tokens that its phase names."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_adapters import EXPECTED, LORA, Arrays, weights, write_outputs

from kchain.errors import AdapterRefused
from kchain.orchestrator.judging.adapter import Expected, verify
from kchain.phases import Lora

STYLES = ("<STYLE_TERSE>", "<STYLE_VERBOSE>")
STYLED = dataclasses.replace(EXPECTED, tokens=STYLES)
EMBEDDING = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
HEAD = "base_model.model.lm_head.token_adapter.trainable_tokens_delta"
IDS = [151665, 151666]


def with_rows(*names: str, tokens: int = 2, width: int = 16) -> Arrays:
    rows = {name: np.random.default_rng(1).normal(size=(tokens, width)).astype("<f4") for name in names}
    return weights() | rows


def outputs(folder: Path, arrays: Arrays, indices: Any = None, **result: Any) -> Path:
    """Outputs whose config says these token indices; its tokenizer knows the styles."""
    told = {"embed_tokens": IDS} if indices is None else indices
    write_outputs(folder, arrays, config_changes={"trainable_token_indices": told}, result_changes=result)
    added = [{"id": number, "content": token} for token, number in zip(STYLES, IDS, strict=True)]
    added.append({"id": 151645, "content": "<|im_end|>"})
    (folder / "adapter" / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    (folder / "adapter" / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<|im_end|>"}))
    return folder


def refused(folder: Path, expected: Expected = STYLED) -> str:
    with pytest.raises(AdapterRefused) as caught:
        verify(folder, expected)
    assert caught.value.hint
    return caught.value.message


def test_rows_of_the_phases_tokens_are_accepted(tmp_path: Path) -> None:
    told = {"tokens": dict(zip(STYLES, IDS, strict=True))}
    assert verify(outputs(tmp_path, with_rows(EMBEDDING), **told), STYLED).tensors == 9


def test_a_head_of_its_own_has_rows_of_its_own(tmp_path: Path) -> None:
    both = {"embed_tokens": IDS, "lm_head": IDS}
    assert verify(outputs(tmp_path, with_rows(EMBEDDING, HEAD), both), STYLED).tensors == 10


@pytest.mark.parametrize(
    ("arrays", "indices", "word"),
    [
        (weights(), None, "0 tensors of token rows; the phase trains 2 tokens"),
        (with_rows(EMBEDDING, tokens=3), None, r"has shape (3, 16); (2, 16) was expected"),
        (with_rows(EMBEDDING, width=8), None, r"has shape (2, 8); (2, 16) was expected"),
        (with_rows(EMBEDDING), {"embed_tokens": [151665]}, "it trained rows of the tokens"),
        (with_rows(EMBEDDING), {"embed_tokens": IDS, "lm_head": IDS[:1]}, "it trained rows of the tokens"),
        (with_rows(EMBEDDING), {}, "it trained rows of the tokens"),
        (
            with_rows(EMBEDDING),
            {"embed_tokens": IDS[::-1]},
            "<STYLE_TERSE> has id 151665, its row was trained as 151666",
        ),
    ],
)
def test_other_rows_than_the_phases_are_refused(tmp_path: Path, arrays: Arrays, indices: Any, word: str) -> None:
    assert word in refused(outputs(tmp_path, arrays, indices))


def test_rows_in_a_phase_that_trains_none_are_refused(tmp_path: Path) -> None:
    assert "the phase trains none" in refused(outputs(tmp_path, with_rows(EMBEDDING)), EXPECTED)
    assert "trains 0 tokens" in refused(outputs(tmp_path, with_rows(EMBEDDING), []), EXPECTED)


def test_a_row_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    arrays = with_rows(EMBEDDING)
    arrays[EMBEDDING][1, 3] = np.nan
    assert "the training diverged" in refused(outputs(tmp_path, arrays))


def test_a_result_that_gives_a_token_another_id_is_refused(tmp_path: Path) -> None:
    folder = outputs(tmp_path, with_rows(EMBEDDING), tokens={STYLES[0]: 7})
    assert "<STYLE_TERSE> has id 7" in refused(folder)


ALL = dataclasses.replace(EXPECTED, lora=Lora(r=4, alpha=8, dropout=0.05, targets=("all-linear",)))
SAID = {"lora": {**LORA.model_dump(), "targets": ["all-linear"]}}


def test_all_linear_takes_the_names_that_the_session_found(tmp_path: Path) -> None:
    assert verify(write_outputs(tmp_path, result_changes=SAID), ALL).tensors == 8


def test_all_linear_layers_may_be_of_two_kinds_but_a_module_has_one_shape(tmp_path: Path) -> None:
    kinds = {
        name.replace("layers.1.self_attn.v_proj", "layers.1.linear_attn.in_proj"): array
        for name, array in weights().items()
    }
    assert verify(write_outputs(tmp_path, kinds, result_changes=SAID), ALL).tensors == 8
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
    kinds[name] = kinds[name][:8]
    assert "layer 1 differs" in refused(write_outputs(tmp_path, kinds, result_changes=SAID), ALL)
