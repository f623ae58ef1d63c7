"""The contract of a finished phase: what a session leaves behind, and what whoever goes on from it may rely on.

The only home of these facts, read by both sides: the session that writes, and the orchestrator, the next session and
the uses that read. Standard library alone: a notebook imports it before anything is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

# Files and folders of a session's output.
RESULT = "kchain-result.json"
ADAPTER = "adapter"  # folder of CONFIG, WEIGHTS and the tokenizer
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
CHECKPOINT = "checkpoint"  # folder of MANIFEST and the files that it names
MANIFEST = "manifest.json"
VALIDATION = "validation.jsonl"  # the examples that were kept aside
EXPORT = "export"  # folder of one folder a format
EXPORT_MANIFEST = "kchain-export.json"
LOG = "session.log"  # what the session printed, as it is kept when the output is fetched

# One event is one line of a session's log: this, and a JSON object with a string "event".
EVENT_PREFIX = "kchain: "

# Files that a tokenizer may consist of, in the layouts of transformers 4 and 5. A folder holds a tokenizer if it has
# the configuration and one of the vocabularies; a chat template may be the base model's.
TOKENIZER_CONFIG = "tokenizer_config.json"
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
CHAT_TEMPLATE = "chat_template.jinja"
CHAT_TEMPLATES = (CHAT_TEMPLATE, "chat_template.json")
TOKENIZER = (
    *VOCABULARIES, TOKENIZER_CONFIG, "merges.txt", "added_tokens.json", "special_tokens_map.json", *CHAT_TEMPLATES,
)  # fmt: skip

# Names of an adapter's tensors: the matrices of a module, (r, in) and (out, r), and the rows of trained tokens.
LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
TOKEN_ROWS = ".token_adapter.trainable_tokens_delta"
# Options of an adapter_config.json with which `B @ A * alpha / r` is not the whole change of the base model's weights.
OTHER_MATHS = (
    "use_dora", "use_rslora", "use_qalora", "use_bdlora", "fan_in_fan_out", "lora_bias", "rank_pattern",
    "alpha_pattern", "modules_to_save", "layers_to_transform", "layer_replication", "target_parameters",
    "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config",
)  # fmt: skip
# Values of its `init_lora_weights` that change the base model's weights before training, which no adapter tells.
OTHER_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")


def other_maths(config: Mapping[str, Any]) -> list[str]:
    """The options in an adapter_config.json that a merge would lose, as `name = value`."""
    found = [f"{key} = {config[key]!r}" for key in OTHER_MATHS if config.get(key)]
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(OTHER_BASES):
        found.append(f"init_lora_weights = {start!r}")
    return found


def has_tokenizer(names: Iterable[str]) -> bool:
    """Whether these names of files in one folder make up a tokenizer."""
    there = set(names)
    return TOKENIZER_CONFIG in there and not there.isdisjoint(VOCABULARIES)


def answer_ends(own: int, told: Any) -> list[int]:
    """The ids that end an answer: the chain's own first, then those of the model.

    Args:
        told: `eos_token_id` of the model's configuration: one id, several, or None.
    """
    return [own, *(each for each in (told if isinstance(told, list) else [told]) if each not in (None, own))]


# Of PARAMETERS, what may change between two sessions of a run: words, time, and how the target is used.
MAY_CHANGE = ("title", "description", "target", "environment", "session_timeout", "continuation", "samples")
MAY_CHANGE_IN_TRAINING = ("logging_steps", "step_seconds", "max_sessions", "processes")


def decisive(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that decide what is learned: a checkpoint of one session fits another with the same ones."""
    kept = {name: value for name, value in parameters.items() if name not in MAY_CHANGE}
    training = {name: value for name, value in kept["training"].items() if name not in MAY_CHANGE_IN_TRAINING}
    return {**kept, "training": training}


# A run stops itself when its mean step takes longer than this many times the plan, judged without the first steps.
SLOW = 2.0
# Shares of a session's time: training stops early enough for judging, and judging early enough for saving.
RESERVE, LEAST_RESERVE, MOST_RESERVE = 0.1, 60.0, 900.0
SAVING = 0.25  # share of the reserve in which nothing is judged any more


def reserve(limit: float) -> float:
    """Seconds that a session of `limit` seconds leaves for judging and saving; a very short one leaves a third."""
    return max(min(RESERVE * limit, MOST_RESERVE), min(LEAST_RESERVE, limit / 3))


def judging(limit: float) -> float:
    """Seconds of that reserve until judging must be over."""
    return (1 - SAVING) * reserve(limit)


FORMAT = 1
# Ends of a training that leave a checkpoint: the session's time was over, or steps took much longer than planned.
Stopped = Literal["time", "slow"]
STOPS: tuple[Stopped, ...] = get_args(Stopped)
# Ends of a session whose adapter counts: the whole training, or what time allowed of it.
REACHED = ("complete", "partial")
# How the reason of a failed result begins where the session was ended from outside, and where its checkpoint was the
# matter; and what the latter says of a checkpoint that is there and does not fit.
ENDED = "the session was ended during"
NO_CHECKPOINT = "preflight: continuation: "
UNFIT_CHECKPOINT = "belongs to a run with other"
# Figures over the whole run. Losses are nats a token; shares lie between 0 and 1. `..._before` is the model that the
# phase began from; `forgotten` the largest rise of the loss on an earlier phase's validation split.
METRICS = (
    "loss_first", "loss_last", "steps", "epochs", "eval_loss", "eval_loss_before", "token_accuracy",
    "token_accuracy_before", "forgotten", "eos_rate", "eos_rate_before", "style_separation",
)  # fmt: skip


@dataclass(frozen=True)
class LineageEntry:
    """An adapter that a session was built on.

    Attributes:
        kind, ref: what it was mounted from: a "kernel" or a "dataset", and its owner/slug.
        use: "merge" (into the base) or "continue" (trained on).
    """

    phase: str
    kind: str
    ref: str
    sha256: str
    use: str = "merge"


@dataclass(frozen=True)
class AdapterEntry:
    """The adapter that a session saved: its folder, and its weights file with hash, bytes and number of tensors."""

    folder: str
    file: str
    sha256: str
    bytes: int
    tensors: int


@dataclass(frozen=True)
class CheckpointEntry:
    """The checkpoint that a session left. `sha256`: of its manifest; `bytes`: of all its files."""

    folder: str
    sha256: str
    bytes: int
    step: int
    steps: int


@dataclass(frozen=True)
class OutputEntry:
    """A file of the output."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class CheckpointManifest:
    """`checkpoint/manifest.json`: what the next session of a run compares before it resumes.

    Attributes:
        step, steps: optimizer steps that are done, and those of the whole training.
        parameters, data: fingerprints of what decides what is learned.
        batch, processes: how the training was shared out when it stopped.
        recovered: what was changed when memory ran out.
        files: sha256 of every file beside it, by name.
    """

    step: int
    steps: int
    parameters: str
    data: str
    batch: int
    processes: int
    recovered: list[dict[str, Any]]
    files: dict[str, str]


@dataclass(kw_only=True)
class SessionResult:
    """What `kchain-result.json` says of every session.

    Attributes:
        format: of this file.
        bundle: hash of the bundle that ran, 64 hex digits.
        status: "complete"; "partial": it ended early, and what it made counts; "failed".
        reason: why it is not complete.
        lineage: the adapters it was built on, root first; None: it does not say.
        moved: bytes that travelled: adapter_bytes_in, base_bytes.
        seconds: run time of the session.
        peak_memory_bytes: of the GPU, or of the process where there is none.
    """

    format: int = FORMAT
    bundle: str = ""
    chain: str = ""
    phase: str = ""
    status: Literal["failed", "partial", "complete"] = "failed"
    reason: str | None = None
    pad_token: str | None = None
    pad_id: int | None = None
    lora: dict[str, Any] = field(default_factory=dict)
    base_model: str = ""
    lineage: list[LineageEntry] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    moved: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    peak_memory_bytes: int | None = None

    @classmethod
    def begin(cls, parameters: Mapping[str, Any], bundle: str, **more: Any) -> Self:
        """The result of a session that has not begun: it failed, until something better can be said.

        Args:
            parameters: the notebook's PARAMETERS.
            bundle: hash of the bundle, 64 hex digits.
            more: other fields.
        """
        return cls(
            bundle=bundle,
            chain=parameters["chain"],
            phase=parameters["phase"],
            reason="the session ended before its first stage",
            pad_token=parameters["pad"]["token"],
            pad_id=parameters["pad"]["id"],
            lora=parameters["lora"],
            base_model=parameters["model"]["source"],
            lineage=[],
            **more,
        )


@dataclass(kw_only=True)
class PhaseResult(SessionResult):
    """The result of a session that trains.

    Attributes:
        session: number of this session in its run, from 1.
        stopped: why training stopped early, one of STOPS; None: it did not.
        skipped_steps: optimizer steps that changed nothing, as their gradients overflowed in fp16.
        recovered: what was changed when memory ran out, one entry each time.
        adapter_mode: "merge" or "continue".
        tokens: ids of the tokens whose rows were trained.
        evaluation: what judging found: splits, not_judged, samples, styles, absent.
        examples, quality: what the data was.
        probe: a prompt's ids and logits, to recognise the trained model by.
    """

    session: int = 1
    stopped: Stopped | None = None
    skipped_steps: int = 0
    checkpoint: CheckpointEntry | None = None
    recovered: list[dict[str, Any]] = field(default_factory=list)
    adapter_mode: str = "merge"
    tokens: dict[str, int] = field(default_factory=dict)
    adapter: AdapterEntry | None = None
    evaluation: dict[str, Any] | None = None
    examples: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    probe: dict[str, Any] | None = None


@dataclass(kw_only=True)
class UseResult(SessionResult):
    """The result of a session that uses what was trained.

    Attributes:
        kind: "evaluate", "export" or "generate".
        found: what it found, in words.
        outputs: every file of the output, by its path.
    """

    kind: str = ""
    adapter: None = None
    found: str = ""
    outputs: dict[str, OutputEntry] = field(default_factory=dict)
