"""A conversation as text and as token ids, by the model's chat template. How that wants contents is found by trying.

What a person typed stays text: a literal `<|im_end|>` in a content must not end the turn. It is hidden from the
template behind characters that no text has (U+FDD0 and U+FDD1 are none, by Unicode), and read as ordinary letters.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from .failure import Stop

OPEN, CLOSE = "\ufdd0", "\ufdd1"
HIDDEN = re.compile(f"{OPEN}(\\d+){CLOSE}")
WORD = "kchain"  # what a template is tried with
# In front of a template that asks for today's date: the same bundle must give the same examples tomorrow, or a run that
# takes two sessions could not go on after midnight. The day is the one that Llama's own template falls back to.
DAY = '{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}{{ "" }}'
# What a tokenizer may put in front of every text, as it writes a space.
SPACES = ("\u2581", "\u0120")
CURE = "use a model with a plain chat template (an instruct model), or the recipe text"
Turn = dict[str, str]


class Refused(ValueError):
    """The chat template does not take these turns; the message is its own."""


class Chat:
    """The chat template of a tokenizer.

    Args:
        tokenizer: as loaded; its special tokens are control tokens.
        real: special tokens that count as themselves wherever they stand: those trained as styles.

    Attributes:
        begin: ids that the tokenizer puts in front of plain text, as the base was trained: its BOS token, or none.
    """

    def __init__(self, tokenizer: Any, real: Collection[str] = ()) -> None:
        self.tokenizer = tokenizer
        self._added = tuple(token.content for token in tokenizer.added_tokens_decoder.values())
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._controls = sorted(special - set(real), key=len, reverse=True)
        pattern = "|".join(re.escape(token) for token in self._controls)
        self._pattern = re.compile(f"{pattern}|[{OPEN}{CLOSE}]") if pattern else None
        self._typed: bool | None = None
        self._template = _dated(tokenizer)
        first = tokenizer.convert_ids_to_tokens(tokenizer.encode(WORD, add_special_tokens=False)[:1])
        self._spaced = any(token.startswith(SPACES) for token in first)
        bos = tokenizer.bos_token_id
        self.begin = [bos] if bos is not None and tokenizer.encode(WORD)[:1] == [bos] else []

    def render(self, turns: list[Turn], generate: bool) -> str:
        """The text of the turns, with the beginning of an answer if `generate`; control tokens in them are hidden.

        Raises:
            Refused: the template says no to these turns.
            Stop: it cannot write any turn.
        """
        if self._typed is None:
            self._typed = self._find_typed()
        hidden = [{**turn, "content": self._hide(turn["content"])} for turn in turns]
        return self._apply(hidden, generate, self._typed)

    def encode(self, text: str, before: str = "") -> list[int]:
        """Token ids of rendered text, or of a part of it; what was hidden becomes ordinary letters.

        Args:
            before: what stands before the part.
        """
        ids: list[int] = []
        for number, part in enumerate(HIDDEN.split(text)):
            if number % 2:
                ids += self._go_on(self._controls[int(part)], before, split_special_tokens=True)
                before = WORD  # letters, as far as what follows is concerned
            elif part:
                ids += self._go_on(part, before)
                before = part
        return ids

    def _go_on(self, part: str, before: str, **options: bool) -> list[int]:
        """Token ids of a text that goes on, without the space that some tokenizers put in front of every text: encoded
        behind a line break, or behind the token that stands there, as in the whole text.
        """

        def encode(text: str) -> list[int]:
            return list(self.tokenizer.encode(text, add_special_tokens=False, **options))

        if self._spaced and before:
            last = next((token for token in self._added if before.endswith(token)), "\n")
            alone, both = encode(last), encode(last + part)
            if both[: len(alone)] == alone:
                return both[len(alone) :]
        return encode(part)

    def has_controls(self, turns: list[Turn]) -> bool:
        """Whether a content has a control token typed into it."""
        return any(self._hide(turn["content"]) != turn["content"] for turn in turns)

    def _hide(self, content: str) -> str:
        return self._pattern.sub(self._hidden, content) if self._pattern else content

    def _hidden(self, found: re.Match[str]) -> str:
        if found[0] in (OPEN, CLOSE):
            return "\ufffd"
        return f"{OPEN}{self._controls.index(found[0])}{CLOSE}"

    def _find_typed(self) -> bool:
        """Whether contents must be lists of typed parts, as those of vision-language models may have to be."""
        if not self.tokenizer.chat_template:
            raise Stop("the tokenizer has no chat template", CURE)
        words = []
        for typed in (False, True):
            try:
                if WORD in self._apply([{"role": "user", "content": WORD}], True, typed):
                    return typed
                words.append("it leaves the content out")
            except Refused as error:
                words.append(str(error))
        raise Stop(f"the chat template does not work: {'; with typed parts: '.join(words)}", CURE)

    def _apply(self, turns: list[Turn], generate: bool, typed: bool) -> str:
        messages: list[Any] = turns
        if typed:
            messages = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        try:
            # Templates of models that think write an empty thought where none is wanted: it is prompt, not answer.
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    chat_template=self._template,
                    tokenize=False,
                    add_generation_prompt=generate,
                    enable_thinking=False,
                )
            )
        except Exception as error:  # a template is a program: jinja's errors, and whatever its expressions raise
            raise Refused(f"{type(error).__name__}: {error}") from error


def _dated(tokenizer: Any) -> str | None:
    """The template with one day for ever where it asks for the date; None: as it is."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return DAY + template if template and "strftime_now" in template else None
