"""The demo's tokenizer has Qwen's genuine ids, and gives every text back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from kchain.demo.tokenizer import EOS_ID, FIRST_SPECIAL, SPECIALS, Specials, texts, write_tokenizer

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello there"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(texts(), folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "token, number",
    [("<|endoftext|>", 151643), ("<|im_start|>", 151644), ("<|im_end|>", 151645), ("<|vision_pad|>", 151654)],
)
def test_special_tokens_have_their_genuine_ids(tokenizer: Any, token: str, number: int) -> None:
    assert tokenizer.convert_tokens_to_ids(token) == number
    assert tokenizer.encode(token, add_special_tokens=False) == [number]


def test_the_pad_token_is_the_wrong_one_it_comes_with_in_some_qwen_variants(tokenizer: Any) -> None:
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (EOS_ID, 151654)


def test_its_length_counts_the_filler_too(tokenizer: Any) -> None:
    assert len(tokenizer) == FIRST_SPECIAL + len(SPECIALS)


def test_it_is_read_as_qwen_s_own_class(tokenizer: Any) -> None:
    assert type(tokenizer).__name__.startswith("Qwen2Tokenizer")


@given(text=st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_comes_back_composed_and_otherwise_unchanged(tokenizer: Any, text: str) -> None:
    import unicodedata

    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="<|>"), max_size=200))
@settings(max_examples=50, deadline=None)
def test_text_produces_neither_filler_nor_special_tokens(tokenizer: Any, text: str) -> None:
    assert all(number < 1500 for number in tokenizer.encode(text, add_special_tokens=False))


def test_a_common_word_of_the_samples_is_one_token(tokenizer: Any) -> None:
    assert len(tokenizer.encode(" function", add_special_tokens=False)) == 1


def test_the_template_is_chatml(tokenizer: Any) -> None:
    shown = tokenizer.apply_chat_template(CONVERSATION[:2], tokenize=False, add_generation_prompt=True)
    assert shown == ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_the_template_marks_what_the_assistant_wrote_with_its_end(tokenizer: Any) -> None:
    encoded = tokenizer.apply_chat_template(
        CONVERSATION, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    written = [number for number, mark in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mark]
    assert tokenizer.decode(written) == "Hello there<|im_end|>See you<|im_end|>"


def test_an_added_token_keeps_its_id_when_saved_and_loaded(tokenizer: Any, folder: Path, tmp_path: Path) -> None:
    grown = AutoTokenizer.from_pretrained(folder)
    grown.add_tokens(["<STYLE_TERSE>"], special_tokens=True)
    grown.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).convert_tokens_to_ids("<STYLE_TERSE>") == len(tokenizer)


@pytest.mark.parametrize(
    "eos, number", [("</s>", 2), ("<end_of_turn>", 107), ("<|eot_id|>", 128009), ('it\'s \\ "odd" é', 1600)]
)
def test_another_family_s_end_token_gets_the_id_that_it_has_there(tmp_path: Path, eos: str, number: int) -> None:
    write_tokenizer(texts(), tmp_path, Specials({eos: number}, eos, eos, "### ", "PreTrainedTokenizerFast"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == (eos, number)
    assert tokenizer.encode(eos, add_special_tokens=False) == [number]
    text = "def add(a, b): return a + b"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    shown = tokenizer.apply_chat_template(CONVERSATION[:2], tokenize=False, add_generation_prompt=True)
    assert shown == f"### system\nBe brief.{eos}\n### user\nHi{eos}\n### assistant\n"


def test_two_trainings_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_tokenizer(texts(), tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_the_number_of_used_entries_is_where_the_filler_begins(folder: Path, tmp_path: Path) -> None:
    used = write_tokenizer(texts(), tmp_path)
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert vocabulary[f"<|unused_{used}|>"] == used
    assert f"<|unused_{used - 1}|>" not in vocabulary
    assert sorted(vocabulary.values()) == list(range(FIRST_SPECIAL + len(SPECIALS)))
