"""`[data]` of a phase file: sources, their conditions, and how bad the examples may be."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from kchain.phases.values import Column, Fraction, Name, Ref, Strict, Text, Token


class Condition(Strict):
    """One condition on an example: a column and exactly one test; the four lengths together are one."""

    column: Column = Field(description="column, with dots into nested objects, or a list of columns to look in")
    equals: str | int | float | bool | None = Field(None, description="the value is this")
    any_of: tuple[str | int | float, ...] | None = Field(None, description="the value is one of these")
    contains: tuple[Text, ...] | None = Field(None, description="the text holds one of these words, in any case")
    matches: Text | None = Field(None, description="the text holds this regular expression")
    min_characters: int | None = Field(None, ge=0, description="the text has at least so many characters")
    max_characters: int | None = Field(None, ge=0, description="the text has at most so many characters")
    min_words: int | None = Field(None, ge=0, description="the text has at least so many words")
    max_words: int | None = Field(None, ge=0, description="the text has at most so many words")
    negate: bool = Field(False, description="keep the examples for which the test fails")

    @model_validator(mode="after")
    def _one_test(self) -> Condition:
        given = [name for name in ("any_of", "contains", "equals", "matches") if getattr(self, name) is not None]
        lengths = [f"{end}_{unit}" for unit in ("characters", "words") for end in ("min", "max")]
        if any(getattr(self, name) is not None for name in lengths):
            given.append("a length")
        if len(given) != 1:
            found = ", ".join(given) or "none"
            raise ValueError(f"give exactly one of any_of, contains, equals, matches or a length; found {found}")
        if self.matches is not None:
            try:
                re.compile(self.matches)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"matches is no regular expression: {error}") from None
        return self


class Source(Strict):
    """`[[data.sources]]`: where examples come from, which of them, and how their columns map."""

    name: Name = Field(description="what the report calls this source")
    dataset: Ref | None = Field(None, description="Kaggle data set owner/slug, mounted into the session")
    huggingface: Ref | None = Field(None, description="Hugging Face data set owner/name; needs internet")
    file: Text | None = Field(
        None,
        description="file in the data set, or a pattern with * for several; may be left out where split or the only "
        "readable file tells; without dataset: a file of this project",
    )
    subset: Text | None = Field(None, description="configuration of a Hugging Face data set")
    split: Text | None = Field(
        None,
        description='split of a Hugging Face data set, "train" if not set; of a Kaggle data set without `file`: '
        "the files with this word in their name",
    )
    fields: dict[Name, Column] = Field(
        description="recipe field = column (dots reach into nested objects), or a list of columns of which the first "
        "that holds something counts"
    )
    style: Token | None = Field(
        None, description="token put in front of every prompt of this source; a column of them: fields.style"
    )
    where: tuple[Condition, ...] = Field((), description="conditions that an example must all meet")
    limit: int | None = Field(None, ge=1, description="at most so many examples, drawn with the seed")
    seed: int | None = Field(None, ge=0, lt=2**31, description="draw with this seed in place of the chain's")
    optional: bool = Field(False, description="true: a source that fails is reported and skipped")
    rehearsal: Text | None = Field(
        None, description="file that stands in for this source in `kchain rehearse`: a few of its rows, as it has them"
    )

    @property
    def kind(self) -> Literal["dataset", "huggingface", "project"]:
        return "dataset" if self.dataset else "huggingface" if self.huggingface else "project"

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if self.dataset and self.huggingface:
            raise ValueError("give dataset or huggingface, not both")
        if not (self.dataset or self.huggingface or self.file):
            raise ValueError("give one of dataset, huggingface or file")
        if self.huggingface and self.file:
            raise ValueError("a huggingface source has subset and split, not file")
        if self.kind == "project" and self.split:
            raise ValueError("a file of this project has no split")
        if self.style is not None and "style" in self.fields:
            raise ValueError("give style (one token for all) or fields.style (a column), not both")
        return self


# Recipe -> (fields it needs, one tuple per way; fields it may have).
RECIPES: dict[str, tuple[tuple[frozenset[str], ...], frozenset[str]]] = {
    "text": ((frozenset({"text"}),), frozenset({"style"})),
    "prompt_completion": ((frozenset({"prompt", "completion"}),), frozenset({"context", "style", "system"})),
    "conversation": (
        (frozenset({"messages"}), frozenset({"prompt", "completion"})),
        frozenset({"context", "style", "system"}),
    ),
}


class Quality(Strict):
    """`[data.quality]`: the share of examples with a fault up to which a phase trains.

    1.0 never stops a phase: where the fault is none in this data (numbers are the answers, several languages).
    """

    bare_numbers: Fraction = Field(0.02, description="answers that are a number and nothing else")
    empty: Fraction = Field(0.01, description="answers without any text")
    truncated: Fraction = Field(0.2, description="answers that end inside a code block or a sentence (a guess)")
    repeated: Fraction = Field(0.5, description="answers that ten or more examples, and 0.5 % of all, share")
    loops: Fraction = Field(0.02, description="answers that say the same over and over")
    copied: Fraction = Field(0.1, description="answers that only repeat the prompt")
    odd_language: Fraction = Field(0.1, description="answers in a language or script that less than a tenth are in")
    odd_length: Fraction = Field(0.1, description="answers far longer or shorter than the others")
    role_order: Fraction = Field(0.01, description="conversations that do not go user, assistant, user, assistant")
    leaked_templates: Fraction = Field(0.01, description="examples with marks of a chat template in their text")
    too_long: Fraction = Field(0.5, description="examples longer than training.max_length, which are cut")
    overlap: Fraction = Field(0.5, description="examples to judge by whose prompt is also trained on")
    broken: Fraction = Field(0.5, description="rows that could not be used, of all rows of the sources that were read")


class Data(Strict):
    """`[data]`: the mix a phase learns from."""

    recipe: Literal["text", "prompt_completion", "conversation"] = Field(
        "prompt_completion",
        description="text: every token is learned; prompt_completion: the answer alone; conversation: all answers",
    )
    system_prompt: str = Field(
        "You are a helpful assistant.", description="put in front where an example has none; empty for none"
    )
    max_examples: int = Field(25_000, ge=1, description="cap over all sources: time and host memory, not GPU memory")
    validation: Annotated[float, Field(ge=0.0, lt=0.5)] = Field(0.02, description="share kept aside to judge by")
    max_validation: int = Field(500, ge=1, description="at most so many examples to judge by")
    deduplicate: Literal["normalized", "exact", "none"] = Field(
        "normalized", description="leave out what was there before; normalized: in any case, white space and NFKC form"
    )
    quality: Quality = Field(Quality(), description="when the examples are too bad to train on: see its own table")
    sources: tuple[Source, ...] = Field(min_length=1, description="the sources, in order")

    @model_validator(mode="after")
    def _fields_fit_recipe(self) -> Data:
        ways, extra = RECIPES[self.recipe]
        for source in self.sources:
            have = frozenset(source.fields)
            if not any(way <= have and have <= way | extra for way in ways):
                need = " or ".join(" + ".join(sorted(way)) for way in ways)
                also = f" (and may have {', '.join(sorted(extra))})" if extra else ""
                found = ", ".join(sorted(have)) or "nothing"
                raise ValueError(f"source {source.name!r}: recipe {self.recipe} maps {need}{also}; found {found}")
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("two sources have the same name")
        return self
