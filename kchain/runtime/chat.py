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
CURE = "use a model with a plain chat template (an instruct model), or the recipe text"
Turn = dict[str, str]


class Refused(ValueError):
    """The chat template does not take these turns; the message is its own."""


class Chat:
    """The chat template of a tokenizer.

    Args:
        tokenizer: as loaded; its special tokens are control tokens.
        real: special tokens that count as themselves wherever they stand: those trained as styles.
    """

    def __init__(self, tokenizer: Any, real: Collection[str] = ()) -> None:
        self.tokenizer = tokenizer
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._controls = sorted(special - set(real), key=len, reverse=True)
        pattern = "|".join(re.escape(token) for token in self._controls)
        self._pattern = re.compile(f"{pattern}|[{OPEN}{CLOSE}]") if pattern else None
        self._typed: bool | None = None

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

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text, or of a part of it; what was hidden becomes ordinary letters."""
        ids: list[int] = []
        for number, part in enumerate(HIDDEN.split(text)):
            if number % 2:
                ids += self.tokenizer.encode(
                    self._controls[int(part)], add_special_tokens=False, split_special_tokens=True
                )
            elif part:
                ids += self.tokenizer.encode(part, add_special_tokens=False)
        return ids

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
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate))
        except Exception as error:  # a template is a program: jinja's errors, and whatever its expressions raise
            raise Refused(f"{type(error).__name__}: {error}") from error
