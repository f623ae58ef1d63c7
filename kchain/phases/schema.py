"""What may stand in `kchain.toml` and `phases/*.toml`: the keys, their types, and what each one trades.

Every model here refuses unknown keys. Defaults are the T4 recipe; the reason for each stands in its description, which
`init` and the documentation repeat.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from kchain.phases.data import Data
from kchain.phases.values import AUTO, NAME, Duration, Fraction, ModelRef, Name, Strict, Text, Title, Token


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


class Samples(Strict):
    """`[samples]`: answers that are drawn before and after a phase, beside the losses that are always measured."""

    count: int = Field(
        8, ge=0, le=1000, description="prompts of the validation split that are answered, before and after; 0: none"
    )
    tokens: int = Field(
        128, ge=1, le=8192, description="tokens of an answer, at most; one that needs more counts as not ended"
    )


class Gates(Strict):
    """`[gates]`: what a finished phase must have reached before the chain goes on. A gate left out is not asked."""

    all_epochs: bool = Field(True, description="the whole training ran, nothing was cut short")
    max_loss: float | None = Field(None, gt=0.0, description="mean training loss at the end, at most")
    min_loss_fall: Fraction | None = Field(None, description="share by which the training loss fell, at least")
    min_token_accuracy: Fraction | None = Field(None, description="token accuracy on the validation split, at least")
    max_eval_loss: float | None = Field(None, gt=0.0, description="loss on the validation split, at most")
    max_forgotten: float | None = Field(
        None,
        ge=0.0,
        description="rise of the loss, in nats a token, on the validation split of any earlier phase, at most; "
        "not asked of a phase that has none before it",
    )
    min_eos_rate: Fraction | None = Field(
        None, description="share of the samples whose answer ended by itself, at least; see [samples]"
    )
    min_style_separation: float | None = Field(
        None, ge=1.0, description="mean length of the longest style's answers over that of the shortest's, at least"
    )


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
    samples: Samples = Samples()
    gates: Gates = Gates()


class PhaseFile(Strict):
    """`phases/NAME.toml`."""

    kind: Literal["train"] = Field("train", description="a phase of another kind uses what one has trained: see below")
    title: Title = Field(description="title of the Kaggle notebook; its address is made from it")
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
    samples: Samples | None = None
    gates: Gates | None = None
