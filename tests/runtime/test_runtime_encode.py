"""What is learned and what is not: labels, padding, truncation, the pad token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runtime_tiny import EOS, EOS_ID, build_tokenizer, encode_one

from kchain.runtime import tokenizer as tokenizers
from kchain.runtime.batches import Collator
from kchain.runtime.chat import Chat
from kchain.runtime.encode import IGNORED, Encoded, describe, encode, encode_all
from kchain.runtime.failure import Stop

PAD = {"token": EOS, "id": EOS_ID}
PAIR = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "list all files"},
        {"role": "assistant", "content": "ls -la"},
    ]
}
TALK = {
    "messages": [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "first answer"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "second answer"},
        {"role": "user", "content": "nobody answers this"},
    ]
}


def learned(encoded: Encoded, tokenizer: Any) -> str:
    text: str = tokenizer.decode([int(label) for label in encoded.labels if label != IGNORED])
    return text


def test_of_a_prompt_and_completion_only_the_answer_and_its_real_eos_are_learned(tokenizer: Any) -> None:
    encoded = encode_one(PAIR, Chat(tokenizer))
    assert learned(encoded, tokenizer) == f"ls -la{EOS}"
    assert encoded.labels[-1] == EOS_ID, "pad is EOS, and the EOS of the answer must still be learned"


def test_every_prompt_token_is_masked_even_the_eos_that_ends_the_users_turn(tokenizer: Any) -> None:
    encoded = encode_one(PAIR, Chat(tokenizer))
    answer = len(tokenizer.encode(f"ls -la{EOS}"))
    assert (encoded.labels[:-answer] == IGNORED).all()
    assert EOS_ID in encoded.ids[:-answer]


def test_the_prompt_is_tokenized_as_generation_will_see_it(tokenizer: Any) -> None:
    prompt = tokenizer.apply_chat_template(PAIR["messages"][:2], add_generation_prompt=True, tokenize=False)
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    assert encode_one(PAIR, Chat(tokenizer)).ids[: len(ids)].tolist() == ids


def test_a_conversation_learns_all_of_the_assistants_turns_and_nothing_else(tokenizer: Any) -> None:
    encoded = encode_one(TALK, Chat(tokenizer))
    assert learned(encoded, tokenizer) == f"first answer{EOS}second answer{EOS}"
    assert "nobody" not in tokenizer.decode(encoded.ids.tolist()), "what comes after the last answer teaches nothing"


def test_a_conversations_tokens_are_the_templates_text(tokenizer: Any) -> None:
    whole = tokenizer.apply_chat_template(TALK["messages"][:4], tokenize=False)
    assert tokenizer.decode(encode_one(TALK, Chat(tokenizer)).ids.tolist()) == whole.rstrip("\n")


def test_of_plain_text_every_token_and_the_eos_are_learned(tokenizer: Any) -> None:
    encoded = encode_one({"text": "Once upon a time."}, Chat(tokenizer))
    assert learned(encoded, tokenizer) == f"Once upon a time.{EOS}"
    assert (encoded.labels == encoded.ids).all()


def test_labels_are_truncated_with_the_tokens(tokenizer: Any) -> None:
    whole = encode_one(PAIR, Chat(tokenizer))
    batch = encode_all([PAIR], Chat(tokenizer), len(whole) - 2)
    (cut,) = batch.examples
    assert (batch.truncated, batch.dropped) == (1, 0)
    assert cut.ids.tolist() == whole.ids[:-2].tolist()
    assert cut.labels.tolist() == whole.labels[:-2].tolist()


def test_an_example_whose_prompt_fills_the_length_is_dropped_and_counted(tokenizer: Any) -> None:
    answer = len(tokenizer.encode(f"ls -la{EOS}"))
    prompt = len(encode_one(PAIR, Chat(tokenizer))) - answer
    batch = encode_all([PAIR, {"text": "short"}], Chat(tokenizer), prompt)
    assert (len(batch.examples), batch.truncated, batch.dropped) == (1, 1, 1)


def test_a_text_of_one_token_has_nothing_to_be_predicted_from(tokenizer: Any) -> None:
    batch = encode_all([{"text": ""}], Chat(tokenizer), 8)
    assert (batch.examples, batch.dropped) == ([], 1)


def test_the_log_shows_how_much_of_the_first_example_is_masked_and_learned(tokenizer: Any) -> None:
    encoded = encode_one(PAIR, Chat(tokenizer))
    shown = describe(encoded, tokenizer)
    assert shown["learned_text"] == f"ls -la{EOS}"
    assert shown["masked"] + shown["learned"] == len(encoded)
    assert "Be brief." in shown["text"]


def test_a_template_that_counts_turns_is_refused_with_the_reason(tokenizer: Any) -> None:
    template = tokenizer.chat_template
    tokenizer.chat_template = "{{ messages | length }}" + template
    try:
        with pytest.raises(Stop, match="does not write an answer behind its prompt"):
            encode(TALK, Chat(tokenizer))
    finally:
        tokenizer.chat_template = template


def test_a_template_that_ends_answers_otherwise_is_refused(tokenizer: Any) -> None:
    template = tokenizer.chat_template
    tokenizer.chat_template = template.replace("<|im_end|>", "<|endoftext|>")
    try:
        with pytest.raises(Stop, match="behind its prompt, ended by"):
            encode_one(PAIR, Chat(tokenizer))
    finally:
        tokenizer.chat_template = template


# What Qwen2.5-Instruct's chat template does without tools: a system prompt of its own, a line break after each turn,
# results of tools inside a user's turn. Written after the published behaviour.
GENUINE = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' or (message.role == 'system' and not loop.first)"
    " or (message.role == 'assistant' and not message.tool_calls) %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{%- elif message.role == 'tool' %}"
    "{%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}"
    "{{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


@pytest.fixture
def genuine() -> Any:
    """A tokenizer with the genuine template."""
    found = build_tokenizer()
    found.chat_template, found.eos_token = GENUINE, EOS
    return found


def test_the_genuine_template_learns_each_answer_with_its_eos_and_no_line_break_after_it(genuine: Any) -> None:
    encoded = encode_one(TALK, Chat(genuine))
    assert learned(encoded, genuine) == f"first answer{EOS}second answer{EOS}"
    text = genuine.decode(encoded.ids.tolist())
    assert text.startswith("<|im_start|>system\nYou are Qwen"), (
        "without a system prompt the template's own stands there"
    )
    assert f"first answer{EOS}\n<|im_start|>user\ntwo" in text


def test_with_the_genuine_template_the_system_prompt_of_the_phase_replaces_its_own(genuine: Any) -> None:
    encoded = encode_one(PAIR, Chat(genuine))
    assert learned(encoded, genuine) == f"ls -la{EOS}"
    assert "You are Qwen" not in genuine.decode(encoded.ids.tolist())


def test_parts_of_a_conversation_tokenize_as_the_whole_does(genuine: Any) -> None:
    whole = genuine.apply_chat_template(TALK["messages"][:4], tokenize=False).removesuffix("\n")
    assert encode_one(TALK, Chat(genuine)).ids.tolist() == genuine.encode(whole, add_special_tokens=False)


def test_a_tool_s_result_and_a_second_answer_in_a_row_are_written_as_the_genuine_template_does(genuine: Any) -> None:
    turns = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "asking"},
        {"role": "tool", "content": "sun"},
        {"role": "tool", "content": "wind"},
        {"role": "assistant", "content": "fine"},
        {"role": "assistant", "content": ""},
    ]
    encoded = encode_one({"messages": turns}, Chat(genuine))
    assert learned(encoded, genuine) == f"asking{EOS}fine{EOS}{EOS}"
    assert genuine.decode(encoded.ids.tolist()) == genuine.apply_chat_template(turns, tokenize=False).removesuffix("\n")


def encoded_of(ids: list[int], learned_from: int) -> Encoded:
    example = torch.tensor(ids, dtype=torch.int32).numpy()
    labels = example.copy()
    labels[:learned_from] = IGNORED
    return Encoded(example, labels)


def test_padding_is_masked_by_length_although_its_id_is_the_real_eos() -> None:
    batch = Collator(EOS_ID, keep=False)([encoded_of([5, 6, 7, EOS_ID], 2), encoded_of([8, EOS_ID], 1)])
    assert batch["input_ids"].tolist() == [[5, 6, 7, EOS_ID], [8, EOS_ID, EOS_ID, EOS_ID]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [
        [IGNORED, IGNORED, 7, EOS_ID],
        [IGNORED, EOS_ID, IGNORED, IGNORED],
    ]


def test_the_head_is_asked_only_for_positions_that_predict_a_label() -> None:
    batch = Collator(EOS_ID, keep=True)([encoded_of([5, 6, 7, EOS_ID], 3), encoded_of([8, EOS_ID], 1)])
    assert batch["logits_to_keep"].tolist() == [0, 2]
    assert batch["shift_labels"].tolist() == [[IGNORED, EOS_ID], [EOS_ID, IGNORED]]


def test_sparing_the_head_changes_neither_loss_nor_gradient(base: Path, tokenizer: Any) -> None:
    from transformers import AutoModelForCausalLM

    examples = [encode_one(PAIR, Chat(tokenizer)), encode_one(TALK, Chat(tokenizer))]
    found = []
    for keep in (True, False):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        loss = model(**Collator(EOS_ID, keep)(examples)).loss
        loss.backward()
        found.append((loss.item(), model.model.layers[0].self_attn.q_proj.weight.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("arrives", ["<|vision_pad|>", "<|endoftext|>", "<|im_end|>", None])
def test_the_pad_token_is_forced_to_eos_whatever_the_tokenizer_came_with(tmp_path: Path, arrives: str | None) -> None:
    build_tokenizer(arrives).save_pretrained(tmp_path)
    loaded = tokenizers.load(tmp_path, PAD)
    assert (loaded.pad_token, loaded.pad_token_id) == (EOS, EOS_ID)
    assert (loaded.eos_token, loaded.eos_token_id) == (EOS, EOS_ID)


def test_a_tokenizer_that_gives_the_pad_token_another_id_is_refused(base: Path) -> None:
    with pytest.raises(Stop, match="has id 151645, the chain says 151643") as caught:
        tokenizers.load(base, {"token": EOS, "id": 151643})
    assert "model.eos_id" in caught.value.cure


def test_the_pad_id_is_forced_on_the_models_config_and_its_generation_config(base: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.pad_token_id = 151654
    tokenizers.force_on_model(model, PAD)
    assert model.config.pad_token_id == EOS_ID
    assert model.generation_config.pad_token_id == EOS_ID
