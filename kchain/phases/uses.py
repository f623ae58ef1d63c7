"""What may stand in the file of a phase that trains nothing: it uses what the phase it is after trained.

Model, LoRA, system prompt, precision and machine are those of that phase; so such a file has a table of its own and
none of the training's.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kchain.phases.values import EACH_ONCE, Duration, Fraction, Name, Strict, Text, Title, Token


class UseFile(Strict):
    """What every file of such a phase has."""

    title: Title = Field(description="title of the Kaggle notebook, from which Kaggle makes its address")
    description: Text = Field(description="what this is for, for reviewers")
    after: Name = Field(description="trained phase whose result is used")
    accelerator: Text | None = Field(None, description="another machine than that phase's, or, to export, than a CPU")
    internet: bool | None = Field(None, description="another setting than that phase's")
    session_timeout: Duration | None = Field(None, ge=60, le=12 * 3600, description="another limit than that phase's")


class Evaluating(Strict):
    """`[evaluate]`: the base model and the chain are asked the same questions."""

    check: Literal["exact", "regex", "contains", "json", "python", "shell"] = Field(
        description="when an answer counts as a success: see `kchain evaluate`"
    )
    file: Text | None = Field(None, description="questions, a file of the project; default: the phase's validation set")
    limit: int = Field(200, ge=1, description="questions at most, drawn with the chain's seed")
    max_tokens: int = Field(256, ge=1, le=32768, description="tokens per answer at most")

    @property
    def kind(self) -> str:
        return "evaluate"

    @property
    def files(self) -> dict[str, str]:
        """Files of the project that it names, by the key that does."""
        return {"evaluate.file": self.file} if self.file else {}


class Style(Strict):
    """What one style changes about the answers; a key that is left out changes nothing."""

    max_tokens: int | None = Field(None, ge=1, description="tokens per answer at most")
    temperature: Annotated[float, Field(ge=0.0, le=10.0)] | None = Field(None, description="0: greedy")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(None, description="nucleus sampling")
    repetition_penalty: Annotated[float, Field(gt=0.0, le=10.0)] | None = Field(
        None, description="above 1: repeat less"
    )


class EvaluationGates(Strict):
    """`[gates]` of a phase that evaluates. A gate left out is not asked."""

    min_success_rate: Fraction | None = Field(None, description="share of the chain's answers that succeed, at least")
    better: bool = Field(False, description="the chain must be shown to be better than the base model")


class Exporting(Strict):
    """`[export]`: what is made of the chain, and stays on the target until somebody fetches it."""

    formats: Annotated[tuple[Literal["safetensors", "adapter", "gguf"], ...], Field(min_length=1), EACH_ONCE] = Field(
        ("safetensors",), description="see `kchain export`"
    )
    type: Literal["f16", "q8_0"] = Field(
        "f16", description="number format of a GGUF file: 16 bits, or 8 with a scale per 32"
    )

    @property
    def kind(self) -> str:
        return "export"

    @property
    def files(self) -> dict[str, str]:
        """Files of the project that it names, by the key that does: none."""
        return {}


class NoGates(Strict):
    """The gates of a phase that has none to choose."""


class Generation(Strict):
    """`[generate]`: the chain answers prompts, and whoever opens the notebook."""

    prompts: tuple[Text, ...] = Field((), description="prompts, each in a conversation of its own")
    file: Text | None = Field(None, description='more prompts, a file of the project: one {"prompt": "..."} per line')
    limit: int = Field(200, ge=1, description="prompts at most, the first ones")
    styles: Annotated[tuple[Token, ...], EACH_ONCE] = Field(
        (), description="style tokens: each prompt is answered once in each style"
    )
    settings: dict[Token, Style] = Field(
        {}, description="what a style changes about max_tokens, temperature, top_p, repetition_penalty, by its token"
    )
    max_tokens: int = Field(512, ge=1, le=32768, description="tokens per answer at most")
    temperature: Annotated[float, Field(ge=0.0, le=10.0)] = Field(0.0, description="0: greedy")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = Field(1.0, description="nucleus sampling")
    repetition_penalty: Annotated[float, Field(gt=0.0, le=10.0)] = Field(1.0, description="above 1: repeat less")
    seed: int = Field(0, ge=0, lt=2**31, description="of the sampling")

    @model_validator(mode="after")
    def _something_to_ask(self) -> Generation:
        if not self.prompts and self.file is None:
            raise ValueError("give prompts, file, or both")
        return self

    @property
    def kind(self) -> str:
        return "generate"

    @property
    def files(self) -> dict[str, str]:
        """Files of the project that it names, by the key that does."""
        return {"generate.file": self.file} if self.file else {}


class EvaluateFile(UseFile):
    """`phases/NAME.toml` with `kind = "evaluate"`."""

    kind: Literal["evaluate"]
    evaluate: Evaluating
    gates: EvaluationGates = EvaluationGates()

    @property
    def use(self) -> Evaluating:
        return self.evaluate


class ExportFile(UseFile):
    """`phases/NAME.toml` with `kind = "export"`."""

    kind: Literal["export"]
    export: Exporting = Exporting()

    @property
    def use(self) -> Exporting:
        return self.export

    @property
    def gates(self) -> NoGates:
        return NoGates()


class GenerateFile(UseFile):
    """`phases/NAME.toml` with `kind = "generate"`."""

    kind: Literal["generate"]
    generate: Generation

    @property
    def use(self) -> Generation:
        return self.generate

    @property
    def gates(self) -> NoGates:
        return NoGates()


AnyUseFile = EvaluateFile | ExportFile | GenerateFile
UseTable = Evaluating | Exporting | Generation
UseGates = EvaluationGates | NoGates
# kind -> what its file must be.
USES: dict[str, type[AnyUseFile]] = {"evaluate": EvaluateFile, "export": ExportFile, "generate": GenerateFile}
