"""What may stand in `kchain.toml` and `phases/*.toml`: the keys, their types, and what each one trades.

Every model here refuses unknown keys. Defaults are the T4 recipe; the reason for each stands in its description, which
`init` and the documentation repeat.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from kchain.phases.data import Data
from kchain.phases.values import AUTO, NAME, Duration, Fraction, ModelRef, Name, Strict, Text, Title, Token


class ModelTable(Strict):
    """`[model]`: the base model, and the token that ends a turn."""

    source: ModelRef = Field(description="Kaggle model that stays on Kaggle: owner/model/framework/variation/version")
    eos_token: Text = Field("<|im_end|>", description="token that ends an answer; the pad token is forced to it")
    eos_id: int = Field(151645, ge=0, description="its id; the notebook stops if the tokenizer has another one")


class Lora(Strict):
    """`[lora]`: one configuration for the whole chain."""

    r: int = Field(16, ge=1, le=512, description="rank: more capacity, larger adapter")
    alpha: int = Field(32, ge=1, le=2048, description="scale; the update is multiplied by alpha / r")
    dropout: float = Field(0.05, ge=0.0, lt=1.0, description="dropout in front of the adapter")
    targets: tuple[Name, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), min_length=1, description="modules that get an adapter"
    )
    bias: Literal["none"] = Field("none", description="biases stay frozen: a merge could not carry them")


class TokensTable(Strict):
    """`[tokens]`: tokens whose rows of the embedding (and of the head) are trained beside the LoRA weights."""

    added: tuple[Token, ...] = Field(
        (), description="new tokens, kept by later phases; the model must have spare rows for them (Qwen's have)"
    )
    trained: tuple[Token, ...] = Field((), description="existing tokens, of the base model or of an earlier phase")

    @property
    def all(self) -> tuple[str, ...]:
        """Every token whose rows are trained, in the order of the adapter's rows."""
        return self.added + self.trained

    @model_validator(mode="after")
    def _each_once(self) -> TokensTable:
        twice = sorted({token for token in self.all if self.all.count(token) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)}: a token is named once, as added or as trained")
        return self


class Training(Strict):
    """`[training]`: the caps of a T4 built in."""

    epochs: int = Field(3, ge=1, le=100, description="passes over the data")
    max_steps: int | None = Field(None, ge=1, description="stop after this many optimizer steps")
    batch: Annotated[int | None, AUTO] = Field(
        2,
        ge=1,
        le=512,
        description="examples per GPU and pass; auto: the fastest that fits, with 2 x accumulation kept",
    )
    accumulation: int = Field(8, ge=1, le=1024, description="batches per optimizer step; batch x accumulation is kept")
    learning_rate: float = Field(2e-4, gt=0.0, lt=1.0, description="peak learning rate")
    scheduler: Literal["linear", "cosine", "constant"] = Field("linear", description="how the learning rate falls")
    warmup: Fraction = Field(0.0, description="share of the steps over which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0.0, lt=1.0, description="of the adapter's weights")
    optimizer: Literal["paged_adamw_8bit", "adamw_8bit", "adamw_torch"] = Field(
        "paged_adamw_8bit", description="8-bit state, paged out of the GPU when memory is short"
    )
    precision: Literal["auto", "fp16", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 where the GPU has it, else fp16 (a T4), fp32 on a CPU"
    )
    quantization: Annotated[Literal["none", "nf4"] | None, AUTO] = Field(
        "none", description="nf4: the frozen base in 4 bits, after merging; auto: only where nothing else fits"
    )
    max_length: Annotated[int | None, AUTO] = Field(
        1024,
        ge=8,
        le=131072,
        description="tokens per example, longer ones are truncated; auto: as long as the project's files "
        "need, else 1024, and less where that does not fit",
    )
    checkpointing: Annotated[bool | None, AUTO] = Field(
        True, description="recompute activations in the backward pass: less memory, more time; auto: only where needed"
    )
    logging_steps: int = Field(50, ge=1, description="optimizer steps between log lines")
    step_seconds: Annotated[float | None, AUTO] = Field(
        5.0,
        gt=0.0,
        description="planned seconds per optimizer step; a run slower than twice this stops itself; auto: three "
        "times what kchain plan estimates, and no less than 5",
    )
    max_sessions: int = Field(
        3, ge=1, description="sessions a phase may use; one ended by its time limit is continued in the next"
    )


Precision = Literal["fp16", "bf16", "fp32"]


class SettledTraining(Training):
    """`[training]` with everything chosen."""

    precision: Precision
    batch: int
    quantization: Literal["none", "nf4"]
    max_length: int
    checkpointing: bool
    step_seconds: float


class Samples(Strict):
    """`[samples]`: answers that are drawn before and after a phase, beside the losses that are always measured."""

    count: int = Field(8, ge=0, le=1000, description="validation prompts answered before and after; 0: none")
    tokens: int = Field(
        128, ge=1, le=8192, description="tokens per answer at most; an answer that needs more counts as not ended"
    )


class Gates(Strict):
    """`[gates]`: what a finished phase must have reached before the chain goes on. A gate left out is not asked."""

    all_epochs: bool = Field(True, description="the whole training ran")
    max_loss: float | None = Field(None, gt=0.0, description="final mean training loss, at most")
    min_loss_fall: Fraction | None = Field(None, description="share by which the training loss fell, at least")
    min_token_accuracy: Fraction | None = Field(None, description="token accuracy on the validation set, at least")
    max_eval_loss: float | None = Field(None, gt=0.0, description="loss on the validation set, at most")
    max_forgotten: float | None = Field(
        None,
        ge=0.0,
        description="rise of the loss (nats per token) on any earlier phase's validation set, at most; "
        "not asked of a phase that has none before it",
    )
    min_eos_rate: Fraction | None = Field(None, description="share of samples whose answer ended by itself, at least")
    min_style_separation: float | None = Field(
        None, ge=1.0, description="mean answer length of the longest style over that of the shortest, at least"
    )


class ChainTable(Strict):
    """`[chain]`: the name, the owner and the machine."""

    name: Name = Field(description="name of the chain; not part of any address on Kaggle")
    owner: Annotated[str, StringConstraints(pattern=NAME)] = Field(description="Kaggle user name")
    target: Text = Field("kaggle", description="who runs the notebooks: kaggle, local, or the URL of a kchain server")
    accelerator: Text = Field(
        "NvidiaTeslaT4",
        description="Kaggle's machine shape, or cpu; on a kchain server also NvidiaA10G, cpu-48 and others",
    )
    internet: bool = Field(True, description="needed by Hugging Face sources and by the notebook's installs")
    session_timeout: Duration = Field(
        9 * 3600, ge=60, le=12 * 3600, description="the session is ended after this; 12h at most"
    )
    seed: int = Field(42, ge=0, lt=2**31, description="of data order, sampling, initialisation and dropout")


class ChainFile(Strict):
    """`kchain.toml`."""

    chain: ChainTable
    model: ModelTable
    lora: Lora = Lora()
    training: Training = Training()
    samples: Samples = Samples()
    gates: Gates = Gates()


class PhaseFile(Strict):
    """`phases/NAME.toml`."""

    kind: Literal["train"] = Field("train", description="other kinds use a trained phase: see below")
    title: Title = Field(description="title of the Kaggle notebook, from which Kaggle makes its address")
    description: Text = Field(description="what this phase teaches, for reviewers")
    after: Name | None = Field(None, description="phase whose result this one builds on; not for the first one")
    adapter: Literal["merge", "continue"] = Field(
        "merge",
        description="merge: a new adapter on the merged base; "
        "continue: the parent's adapter is trained further and replaced",
    )
    accelerator: Text | None = Field(None, description="another machine than the chain's")
    internet: bool | None = Field(None, description="another setting than the chain's")
    session_timeout: Duration | None = Field(None, ge=60, le=12 * 3600, description="another limit than the chain's")
    data: Data
    tokens: TokensTable = TokensTable()
    lora: Lora | None = None
    training: Training | None = None
    samples: Samples | None = None
    gates: Gates | None = None
