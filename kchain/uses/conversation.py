"""A conversation with a chain: what was said, the system prompt, and the style in use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kchain.errors import InputError
from kchain.uses.sampling import Styles, sampling_for
from kchain.uses.speaker import Reply, Speaker
from kchain.uses.subject import TrainedPhase


class Conversation:
    """Questions and answers, each question with the style's token in front, as the training had it.

    Args:
        system: the system prompt, empty for none; None: the one the phase was trained with.
        style: the token to begin with; None for none.
        typed: settings given on the command line, None where they were not; they count for every style.

    Attributes:
        turns: what was said, {"role", "content"}, the system prompt first.
    """

    def __init__(
        self,
        speaker: Speaker,
        subject: TrainedPhase,
        system: str | None,
        style: str | None,
        styles: Styles,
        typed: Mapping[str, Any],
    ) -> None:
        self.speaker = speaker
        self._system = subject.system_prompt if system is None else system
        self._known = subject.tokens
        self._styles, self._typed = styles, typed
        self.choose_style(style)
        self.begin()

    def begin(self) -> None:
        """Forget what was said."""
        self.turns = [{"role": "system", "content": self._system}] if self._system else []

    def choose_style(self, style: str | None) -> None:
        """Put another style's token in front from now on; None or "" for none.

        Raises:
            InputError: the tokenizer reads it as several tokens, so no training knew it as a style.
        """
        if style and len(self.speaker.tokenizer.encode(style, add_special_tokens=False)) != 1:
            known = f"styles of this chain: {', '.join(self._known)}" if self._known else "this chain trained no styles"
            raise InputError(f"{style!r} is not a token of this chain's tokenizer", known)
        self._style = style or None

    def ask(self, question: str, on_text: Callable[[str], None] | None = None) -> Reply:
        """The answer to a question; both are remembered."""
        content = f"{self._style} {question}" if self._style else question
        turns = [*self.turns, {"role": "user", "content": content}]
        answer = self.speaker.answer(turns, sampling_for(self._style, self._styles, self._typed), on_text)
        self.turns = [*turns, {"role": "assistant", "content": answer.text}]
        return answer
