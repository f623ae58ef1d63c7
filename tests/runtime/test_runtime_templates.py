"""Templates and tokenizers of other families: thoughts, dates, leading spaces, tokens that begin a text."""

from __future__ import annotations

from typing import Any

import pytest
from runtime_tiny import EOS, build_tokenizer, encode_one
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from kchain.runtime.chat import Chat
from kchain.runtime.encode import IGNORED, Encoded, encode, encode_all

PAIR = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "there"}]
# As a model that thinks writes it: the last answer with its thought, earlier ones without.
THINKING = """{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}
{%- if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}
{{- m.content + '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}"""
DATED = """{%- if not date_string is defined %}{%- if strftime_now is defined %}
{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}{{- 'Today is ' + date_string + '<|im_end|>' }}"""
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %} [INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


def tokenizer_with(template: str) -> Any:
    tokenizer = build_tokenizer()
    tokenizer.eos_token, tokenizer.chat_template = EOS, template
    return tokenizer


def learned(encoded: Encoded, tokenizer: Any) -> str:
    text: str = tokenizer.decode([int(label) for label in encoded.labels if label != IGNORED])
    return text


def test_an_empty_thought_is_prompt_and_not_learned() -> None:
    tokenizer = tokenizer_with(THINKING)
    encoded = encode_one({"messages": PAIR}, Chat(tokenizer))
    assert learned(encoded, tokenizer) == f"there{EOS}"
    assert tokenizer.decode(encoded.ids.tolist()).endswith(f"<think>\n\n</think>\n\nthere{EOS}")


def test_a_longer_conversation_with_a_model_that_thinks_is_an_example_for_each_answer() -> None:
    tokenizer = tokenizer_with(THINKING)
    talk = [*PAIR, {"role": "user", "content": "and?"}, {"role": "assistant", "content": "more"}]
    first, second = encode({"messages": talk}, Chat(tokenizer))
    assert (learned(first, tokenizer), learned(second, tokenizer)) == (f"there{EOS}", f"more{EOS}")
    prompt = Chat(tokenizer).render(talk[:3], True)
    assert tokenizer.decode(second.ids.tolist()) == f"{prompt}more{EOS}", "as generation will see it"
    assert len(encode_all([{"messages": PAIR}, {"messages": talk}], Chat(tokenizer), 512).examples) == 3


@pytest.mark.parametrize("today", ['{{- strftime_now("%d %B %Y") + "<|im_end|>" }}', DATED])
def test_examples_are_the_same_on_every_day(today: str) -> None:
    tokenizer = tokenizer_with(today + CHATML)
    text = Chat(tokenizer).render(PAIR[:1], True)
    assert "26 Jul 2024<|im_end|><|im_start|>user\nhi" in text
    assert learned(encode_one({"messages": PAIR}, Chat(tokenizer)), tokenizer) == f"there{EOS}"
    assert tokenizer.chat_template == today + CHATML, "the adapter's tokenizer keeps the model's own template"


def spaced(kind: str) -> Any:
    """A tokenizer that puts a space in front of every text, as those of Llama 2, TinyLlama and Mistral do."""
    words = ["Hello", "hi", "there", "▁Hello", "▁hi", "▁there", "[INST]", "▁[INST]", "▁[/INST]", "▁▁"]
    letters = sorted(set("".join(words)) | set("abcdefghijklmnopqrstuvwxyz|<>\n/[]"))
    vocabulary = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>", *letters])}
    merges: list[tuple[str, str]] = []
    for word in words:
        for end in range(1, len(word)):
            merges.append((word[:end], word[end]))
            vocabulary.setdefault(word[: end + 1], len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, list(dict.fromkeys(merges)), unk_token="<unk>"))
    if kind == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ("<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")  # type: ignore[no-untyped-call,unused-ignore]


@pytest.mark.parametrize("kind", ["prepend", "metaspace"])
@pytest.mark.parametrize("template, answer", [(ZEPHYR, "Hello"), (MISTRAL, "▁Hello")], ids=["zephyr", "mistral"])
def test_parts_are_tokenized_as_the_whole_conversation_is(kind: str, template: str, answer: str) -> None:
    tokenizer = spaced(kind)
    tokenizer.chat_template = template
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello"}] * 2
    encoded = encode_one({"messages": talk}, Chat(tokenizer))
    whole = tokenizer.encode(tokenizer.apply_chat_template(talk, tokenize=False), add_special_tokens=False)
    name = tokenizer.convert_ids_to_tokens
    assert name(encoded.ids.tolist()) == name(whole[: len(encoded)])
    answers = name([int(label) for label in encoded.labels if label != IGNORED])
    assert "".join(answers) == f"{answer}</s>" * 2


def test_plain_text_begins_as_the_tokenizer_begins_it() -> None:
    tokenizer = spaced("prepend")
    for text in ("hi there", "<s>hi there"):
        encoded = encode_one({"text": text}, Chat(tokenizer))
        assert tokenizer.convert_ids_to_tokens(encoded.ids.tolist()[:1]) == ["<s>"]
        assert tokenizer.convert_ids_to_tokens(encoded.ids.tolist()).count("<s>") == 1
    without = tokenizer_with(CHATML)
    assert encode_one({"text": "hi"}, Chat(without)).ids.tolist() == without.encode(f"hi{EOS}")
