"""`[data]` of a phase file: sources, their conditions, and how bad the examples may be."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from kchain.phases.source_kinds import PLACES, SOURCE_KINDS, SourceKind
from kchain.phases.values import Column, Fraction, Name, Strict, Text, Token


class Condition(Strict):
    """One condition on an example: a column and exactly one test; the four lengths together are one."""

    column: Column = Field(description="column, with dots into nested objects, or a list of columns to look in")
    equals: str | int | float | bool | None = Field(None, description="the value equals this")
    any_of: tuple[str | int | float, ...] | None = Field(None, description="the value is one of these")
    contains: tuple[Text, ...] | None = Field(None, description="the text contains one of these words, in any case")
    matches: Text | None = Field(None, description="the text matches this regular expression")
    min_characters: int | None = Field(None, ge=0, description="at least this many characters")
    max_characters: int | None = Field(None, ge=0, description="at most this many characters")
    min_words: int | None = Field(None, ge=0, description="at least this many words")
    max_words: int | None = Field(None, ge=0, description="at most this many words")
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
                raise ValueError(f"matches is not a regular expression: {error}") from None
        return self


class _Named(Strict):
    name: Name = Field(description="name of the source in reports")


if TYPE_CHECKING:

    class _Placed(_Named):
        pass

else:  # A key for each kind of source. Type checkers need not know them: code asks for `kind` and `place`.
    _keys = {kind.key: (kind.form | None, Field(None, description=kind.help)) for kind in SOURCE_KINDS if kind.help}
    _Placed = create_model("_Placed", __base__=_Named, **_keys)


class Source(_Placed):
    """`[[data.sources]]`: where examples come from, which of them, and how their columns map."""

    file: Text | None = Field(
        None,
        description="file in the data set, or a pattern with * for several; not needed with split, or if only one "
        "file is readable; without dataset: a file of this project",
    )
    subset: Text | None = Field(None, description="configuration of a Hugging Face data set")
    split: Text | None = Field(
        None,
        description='split of a Hugging Face data set, by default "train"; of a Kaggle data set without '
        "`file`: the files with this word in their names",
    )
    fields: dict[Name, Column] = Field(
        description="recipe field = column (dots reach into nested objects), or a list of columns of which the first "
        "non-empty one counts"
    )
    style: Token | None = Field(
        None, description="style token in front of every prompt of this source; from a column: fields.style"
    )
    where: tuple[Condition, ...] = Field((), description="conditions that an example must meet, all of them")
    limit: int | None = Field(None, ge=1, description="examples at most, drawn with the seed")
    seed: int | None = Field(None, ge=0, lt=2**31, description="seed of the draw, instead of the chain's")
    optional: bool = Field(False, description="a source that fails is reported and skipped")
    rehearsal: Text | None = Field(
        None, description="file with a few rows of this source, used by `kchain rehearse` instead of it"
    )

    @property
    def kind(self) -> SourceKind:
        """The first kind whose key it has."""
        return next((kind for kind in SOURCE_KINDS if getattr(self, kind.key)), SOURCE_KINDS[-1])

    @property
    def place(self) -> str:
        """Where the examples are: what stands under the key of its kind."""
        return str(getattr(self, self.kind.key))

    @property
    def origin(self) -> dict[str, Any]:
        """Name and place, key by key, for a model card."""
        return self.model_dump(include={"name", *PLACES})

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        given = [key for key in PLACES[:-1] if getattr(self, key)]
        if len(given) > 1:
            raise ValueError(f"give {' or '.join(given)}, not {'both' if len(given) == 2 else 'several'}")
        if not given and not self.file:
            raise ValueError(f"give one of {', '.join(PLACES[:-1])} or {PLACES[-1]}")
        for key, why in self.kind.refused:
            if getattr(self, key):
                raise ValueError(why)
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

    1.0 never stops a phase: where the fault is not one in this data (numbers are the answers, several languages).
    """

    bare_numbers: Fraction = Field(0.02, description="answers that are only a number")
    empty: Fraction = Field(0.01, description="answers without any text")
    truncated: Fraction = Field(0.2, description="answers that end inside a code block or a sentence (a guess)")
    repeated: Fraction = Field(0.5, description="answers shared by ten or more examples and 0.5 % of all")
    loops: Fraction = Field(0.02, description="answers that repeat themselves over and over")
    copied: Fraction = Field(0.1, description="answers that only repeat the prompt")
    odd_language: Fraction = Field(0.1, description="answers in a language or script that under a tenth of all are in")
    odd_length: Fraction = Field(0.1, description="answers far longer or shorter than the others")
    role_order: Fraction = Field(0.01, description="conversations whose turns do not alternate user, assistant")
    leaked_templates: Fraction = Field(
        0.01, description="examples with chat template markers (`<|im_end|>`, `### Response:`) in their text"
    )
    too_long: Fraction = Field(0.5, description="examples longer than training.max_length, which are truncated")
    overlap: Fraction = Field(0.5, description="validation examples whose prompt is also trained on")
    broken: Fraction = Field(0.5, description="rejected rows, as a share of all rows read")


class Data(Strict):
    """`[data]`: the mix a phase learns from."""

    recipe: Literal["text", "prompt_completion", "conversation"] = Field(
        "prompt_completion",
        description="text: every token is learned; prompt_completion: the answer alone; conversation: all answers",
    )
    system_prompt: str = Field(
        "You are a helpful assistant.", description="used where an example has none; empty: none"
    )
    max_examples: int = Field(25_000, ge=1, description="cap over all sources: time and host memory, not GPU memory")
    validation: Annotated[float, Field(ge=0.0, lt=0.5)] = Field(0.02, description="share of the validation set")
    max_validation: int = Field(500, ge=1, description="validation examples at most")
    deduplicate: Literal["normalized", "exact", "none"] = Field(
        "normalized", description="drop repeated examples; normalized: ignoring case, white space and Unicode form"
    )
    quality: Quality = Field(Quality(), description="thresholds, in a table of its own")
    sources: tuple[Source, ...] = Field(min_length=1, description="in a table of its own each")

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
