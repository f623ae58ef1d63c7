"""What the demo publishes, by name: the sample data sets, a few hundred templated examples per theme, and the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

MODEL = "kchain/tiny-qwen/transformers/random/1"


@dataclass(frozen=True)
class Sample:
    """One data set: its address on the server, the file of this package, and the file's name in the data set."""

    ref: str
    source: str
    file: str = "train.jsonl"

    def text(self) -> str:
        """The file's content."""
        return files("kchain.demo").joinpath("data", self.source).read_text(encoding="utf-8")

    def write(self, folder: Path) -> None:
        """Write the data set's only file into `folder`."""
        (folder / self.file).write_text(self.text(), encoding="utf-8")


SAMPLES = (
    Sample("kchain/tiny-code", "tiny-code.jsonl"),
    Sample("kchain/tiny-linux", "tiny-linux.jsonl"),
    # Ends in the middle of a string: what a phase does with a source that cannot be read.
    Sample("kchain/tiny-terminal", "tiny-terminal.jsonl", "commands.json"),
    Sample("kchain/tiny-stories", "tiny-stories.jsonl"),
    Sample("kchain/tiny-chat", "tiny-chat.jsonl"),
)


def texts() -> Iterator[str]:
    """Every string of every sample that can be read, for the tokenizer to learn words from."""
    for sample in SAMPLES:
        if sample.file.endswith(".jsonl"):
            for line in sample.text().splitlines():
                yield from _strings(json.loads(line))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)
