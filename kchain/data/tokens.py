"""Lengths of examples in the tokens of a model, as its notebook will count them."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from kchain.data.check import Measure
from kchain.errors import InputError
from kchain.runtime.examples import Example, styles
from kchain.runtime.quality import Tokens


def measure(folder: Path, cap: int, eos: str | None) -> Measure:
    """Counts the tokens of examples.

    Args:
        folder: of a model, or of its tokenizer alone.
        cap: tokens of an example that are kept: training.max_length.
        eos: the token that ends an answer; None: the tokenizer's own.

    Raises:
        InputError: transformers is not installed, or there is no tokenizer in the folder.
    """
    if not (folder / "tokenizer_config.json").is_file():
        raise InputError(f"{folder} holds no tokenizer_config.json", "name a folder with a model or its tokenizer")
    if find_spec("transformers") is None:
        raise InputError("--tokenizer needs transformers", 'pip install "kchain[train]", or leave the option out')
    from transformers import AutoTokenizer

    from kchain.runtime.chat import Chat, Refused
    from kchain.runtime.encode import encode

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder}: no tokenizer can be loaded: {reason}", "fetch the model's files again") from error
    if eos is not None:
        tokenizer.eos_token = eos

    def count(examples: list[Example]) -> Tokens:
        chat = Chat(tokenizer, styles(examples))
        lengths = []
        for example in examples:
            with suppress(Refused):  # the notebook counts those apart
                lengths += [len(each) for each in encode(example, chat)]
        return Tokens(lengths, cap, sum(length > cap for length in lengths))

    return count
