"""What may stand in `kchain.toml` and `phases/*.toml`: the keys, their types, and what each one trades.

Every model here refuses unknown keys. Defaults are the T4 recipe; the reason for each stands in its description, which
`init` and the documentation repeat.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

SECONDS = {"s": 1, "m": 60, "h": 3600}


def _duration(value: Any) -> Any:
    """Seconds from `"9h"`, `"90m"` or `"30s"`; anything else is left for pydantic to refuse."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", value)
        if not match:
            raise ValueError('a duration is a number and a unit: "9h", "90m" or "30s"')
        return int(float(match[1]) * SECONDS[match[2]])
    return value


def _auto(value: Any) -> Any:
    """None, which no TOML file can hold, for "auto"; anything else is left for pydantic."""
    return None if value == "auto" else value


def _one_line(value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("one line, without control characters")
    return value


NAME = r"^[a-z0-9][a-z0-9_-]*$"
NAME_LENGTH = 40
REF = r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$"
MODEL_REF = r"^[\w.-]+/[\w.-]+/[\w.-]+/[\w.-]+/\d+$"
DURATION = BeforeValidator(_duration)
Duration = Annotated[int, DURATION]
Name = Annotated[str, StringConstraints(pattern=NAME, max_length=NAME_LENGTH)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Ref = Annotated[str, StringConstraints(pattern=REF)]
ModelRef = Annotated[str, StringConstraints(pattern=MODEL_REF)]
# The key may say "auto": kchain chooses, and says why.
AUTO = BeforeValidator(_auto)
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Column = Text | Annotated[tuple[Text, ...], Field(min_length=1)]
Token = Annotated[str, StringConstraints(pattern=r"^\S+$", max_length=64)]


class Strict(BaseModel):
    """A table that refuses keys it does not know and values of another type, and does not change once read.

    Infinities and NaN are refused too: they have no literal that could stand in a notebook.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, str_max_length=100_000)


class Model(Strict):
    """`[model]`: the base model, and the token that ends a turn."""

    source: ModelRef = Field(description="Kaggle model that stays on Kaggle: owner/model/framework/variation/version")
    eos_token: Text = Field("<|im_end|>", description="token that ends an answer; the pad token is forced to it")
    eos_id: int = Field(151645, ge=0, description="its id; the notebook stops when the tokenizer gives another one")


class Lora(Strict):
    """`[lora]`: one configuration for the whole chain."""

    r: int = Field(16, ge=1, le=512, description="rank: more capacity, larger adapter")
    alpha: int = Field(32, ge=1, le=2048, description="scale; the update is multiplied by alpha / r")
    dropout: float = Field(0.05, ge=0.0, lt=1.0, description="dropout in front of the adapter")
    targets: tuple[Name, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), min_length=1, description="modules that get an adapter"
    )
    bias: Literal["none"] = Field("none", description="biases stay frozen; a merge could not carry them otherwise")


class Tokens(Strict):
    """`[tokens]`: tokens whose rows of the embedding (and of the head) are trained beside the LoRA weights."""

    added: tuple[Token, ...] = Field(
        (), description="new tokens; later phases know them, the model must have spare rows for them (Qwen's have)"
    )
    trained: tuple[Token, ...] = Field((), description="tokens that the base model or an earlier phase has already")

    @property
    def all(self) -> tuple[str, ...]:
        """Every token whose rows are trained, in the order of the adapter's rows."""
        return self.added + self.trained

    @model_validator(mode="after")
    def _each_once(self) -> Tokens:
        twice = sorted({token for token in self.all if self.all.count(token) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)}: a token is named once, as added or as trained")
        return self


class Training(Strict):
    """`[training]`: the caps of a T4 built in."""

    epochs: int = Field(3, ge=1, le=100, description="passes over the data")
    max_steps: int | None = Field(None, ge=1, description="stop after so many optimizer steps, whatever the epochs")
    batch: Annotated[int | None, AUTO] = Field(
        2,
        ge=1,
        le=512,
        description="examples a GPU holds at a time; auto: the fastest that fits, with 2 x accumulation kept",
    )
    accumulation: int = Field(8, ge=1, le=1024, description="batches per optimizer step; batch x accumulation is kept")
    learning_rate: float = Field(2e-4, gt=0.0, lt=1.0, description="peak learning rate")
    scheduler: Literal["linear", "cosine", "constant"] = Field("linear", description="how the learning rate falls")
    warmup: Fraction = Field(0.0, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0.0, lt=1.0, description="decay of the adapter's weights")
    optimizer: Literal["paged_adamw_8bit", "adamw_8bit", "adamw_torch"] = Field(
        "paged_adamw_8bit", description="8-bit state, paged out of the GPU when memory is short"
    )
    precision: Literal["auto", "fp16", "bf16", "fp32"] = Field(
        "auto", description="auto: fp16 on a T4 (it has no bf16), bf16 where there is one, fp32 on a CPU"
    )
    quantization: Annotated[Literal["none", "nf4"] | None, AUTO] = Field(
        "none", description="nf4: the frozen base in 4 bits, after merging; auto: only where nothing else fits"
    )
    max_length: Annotated[int | None, AUTO] = Field(
        1024,
        ge=8,
        le=131072,
        description="tokens of an example; longer ones are cut, labels too; auto: as long as the project's own files "
        "need, else 1024, and less where that does not fit",
    )
    checkpointing: Annotated[bool | None, AUTO] = Field(
        True, description="recompute activations in the backward pass: less memory, more time; auto: only where needed"
    )
    logging_steps: int = Field(50, ge=1, description="optimizer steps between two log lines")
    step_seconds: Annotated[float | None, AUTO] = Field(
        5.0,
        gt=0.0,
        description="planned seconds of an optimizer step; a run slower than twice this stops itself; auto: three "
        "times what kchain plan estimates, and no less than 5",
    )
    max_sessions: int = Field(
        3, ge=1, description="sessions a phase may take; one that its time limit ends is continued in the next"
    )


class Settled(Training):
    """`[training]` with everything chosen."""

    batch: int
    quantization: Literal["none", "nf4"]
    max_length: int
    checkpointing: bool
    step_seconds: float


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


class Gates(Strict):
    """`[gates]`: what a finished phase must have reached before the chain goes on. A gate left out is not asked."""

    all_epochs: bool = Field(True, description="the whole training ran, nothing was cut short")
    max_loss: float | None = Field(None, gt=0.0, description="mean training loss at the end, at most")
    min_loss_fall: Fraction | None = Field(None, description="share by which the training loss fell, at least")
    min_token_accuracy: Fraction | None = Field(None, description="token accuracy on the validation split, at least")


class ChainTable(Strict):
    """`[chain]`: the name, the owner and the machine."""

    name: Name = Field(description="name of the chain; part of no path on Kaggle")
    owner: Annotated[str, StringConstraints(pattern=NAME)] = Field(description="Kaggle user name")
    target: Text = Field("kaggle", description="who runs the notebooks: kaggle, local, or the URL of a kchain server")
    accelerator: Text = Field(
        "NvidiaTeslaT4",
        description="machine: a shape of Kaggle's, or cpu; on a server one of its own, such as NvidiaA10G, cpu-48",
    )
    internet: bool = Field(True, description="needed by Hugging Face sources and by the notebook's installs")
    session_timeout: Duration = Field(
        9 * 3600, ge=60, le=12 * 3600, description="Kaggle ends the session after this: the ceiling on a runaway"
    )
    seed: int = Field(42, ge=0, lt=2**31, description="data order, sampling, initialisation and dropout")


class ChainFile(Strict):
    """`kchain.toml`."""

    chain: ChainTable
    model: Model
    lora: Lora = Lora()
    training: Training = Training()
    gates: Gates = Gates()


class PhaseFile(Strict):
    """`phases/NAME.toml`."""

    title: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=5, max_length=50), AfterValidator(_one_line)
    ] = Field(description="title of the Kaggle notebook; its address is made from it")
    description: Text = Field(description="what this phase teaches, for whoever reviews the notebook")
    after: Name | None = Field(None, description="phase whose result this one builds on; none for the first")
    adapter: Literal["merge", "continue"] = Field(
        "merge",
        description="merge: earlier adapters go into the base, a new one is trained; "
        "continue: the adapter of `after` itself is trained on, and this phase's takes its place",
    )
    accelerator: Text | None = Field(None, description="another machine than the chain's")
    internet: bool | None = Field(None, description="another setting than the chain's")
    session_timeout: Duration | None = Field(None, ge=60, le=12 * 3600, description="another limit than the chain's")
    data: Data
    tokens: Tokens = Tokens()
    lora: Lora | None = None
    training: Training | None = None
    gates: Gates | None = None
