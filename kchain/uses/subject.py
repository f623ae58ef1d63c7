"""What is exported, asked or evaluated: a phase's adapters and the base model they belong to.

On this machine `kchain.publish.content` makes a `TrainedPhase` of a project's journal; in a session on the target,
`UseSession` makes it of what is mounted there. The session imports this module before it installs its packages, so
nothing here needs torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain.errors import InputError, KchainError
from kchain.runtime import preflight
from kchain.runtime.adapters import Adapter, find
from kchain.runtime.contract import RESULT, OutputEntry, UseResult
from kchain.runtime.failure import Stop, emit
from kchain.runtime.files import hash_file
from kchain.runtime.paths import session_paths
from kchain.runtime.stages import Stages


@dataclass(frozen=True)
class Part:
    """One verified adapter.

    Attributes:
        version: of the kernel that trained it, where that is known.
        adopted: it was trained elsewhere.
        result: the kchain-result.json beside it; {} where it has none.
        tokens: those whose rows it trained.
        sources: what its phase file says of its data: tables with name, dataset, huggingface and file.
    """

    adapter: Adapter
    version: int | None
    adopted: bool
    result: Mapping[str, Any]
    tokens: Sequence[str]
    sources: Sequence[Mapping[str, Any]]

    @property
    def phase(self) -> str:
        return self.adapter.phase

    @property
    def folder(self) -> Path:
        return self.adapter.folder


@dataclass(frozen=True)
class TrainedPhase:
    """A phase's result.

    Attributes:
        chain, phase, title, description: names and words of the phase's file.
        system_prompt: that the phase was trained with; empty for none.
        base_model: the model's source on Kaggle; `base` is its folder here.
        pad: {"token", "id"} of the token that ends an answer and pads.
        lora: the chain's LoRA configuration.
        quantization: of the frozen base in training: "none" or "nf4".
        parts: the adapters it is made of, root first.
        work: folder for a merged model while it is needed.
    """

    chain: str
    phase: str
    title: str
    description: str
    system_prompt: str
    base_model: str
    seed: int
    pad: dict[str, Any]
    lora: dict[str, Any]
    quantization: str
    parts: Sequence[Part]
    base: Path
    work: Path

    @property
    def adapters(self) -> list[Adapter]:
        """The adapters as the runtime takes them."""
        return [part.adapter for part in self.parts]

    @property
    def tokens(self) -> list[str]:
        """The tokens whose rows the chain trained: they count wherever they stand in a prompt."""
        return list(dict.fromkeys(token for part in self.parts for token in part.tokens))

    @property
    def lineage(self) -> list[dict[str, str]]:
        """The adapters by hash, root first, as a report or a manifest has them."""
        return [{"phase": each.phase, "sha256": each.sha256} for each in self.adapters]

    @property
    def last(self) -> Part:
        """The phase's own adapter, with the tokenizer that was saved beside it."""
        return self.parts[-1]


@contextmanager
def stops_told() -> Iterator[None]:
    """Turns the runtime's reasons to stop into errors that the command line prints.

    Raises:
        InputError: in place of `Stop`.
    """
    try:
        yield
    except Stop as stop:
        raise InputError(stop.reason, stop.cure) from stop


# Share of a session's time that is kept for its end, and the least of it in seconds.
RESERVE, LEAST_RESERVE = 0.05, 30.0


class UseSession(Stages):
    """A session that uses a trained phase: what its driver cells share, and the stages that all such sessions have.

    Each public method is one stage; a stage that fails ends the notebook.

    Args:
        parameters: the notebook's PARAMETERS.
        bundle: hash of the bundle, 64 hex digits.
    """

    result: UseResult

    def __init__(self, parameters: dict[str, Any], bundle: str) -> None:
        preflight.choose_device(1 if parameters["accelerator"]["gpus"] else 0)
        super().__init__(parameters, session_paths(), UseResult.begin(parameters, bundle, kind=parameters["kind"]))
        self.table: dict[str, Any] = parameters[parameters["kind"]]

    @property
    def precision(self) -> str:
        """Numbers that the model computes with: those of the phase that trained it."""
        quantization: str = self.parameters["quantization"]
        return str(self.parameters["precision"]) if quantization == "none" else quantization

    def preflight(self) -> None:
        """Checks the machine and the inputs, and stops in the first minute if something is wrong."""
        with self._stage("preflight"):
            accelerator = self.parameters["accelerator"]
            self.result.versions = preflight.versions()
            emit("versions", **self.result.versions)
            preflight.check_precision(self.parameters["precision"], accelerator)
            preflight.check_bitsandbytes(self.parameters["quantization"], "")
            if accelerator["gpus"]:
                preflight.check_gpus(accelerator, preflight.look(), preflight.others())
            base = self.paths.mount("model", self.parameters["model"]["source"])
            preflight.check_model(base)
            adapters = find(self.paths, self.parameters)
            from kchain.runtime.changes import find_changes

            find_changes(base, adapters, self.parameters["lora"])
            base_bytes = preflight.weight_bytes(base)
            preflight.check_disk(self.paths.scratch, base_bytes)
            self._record_inputs(adapters, base_bytes)
            self.subject = self._subject(base, adapters)
            self._check_task()

    def save(self) -> None:
        """Records every file of the output by its hash and, last of all, that this session reached its end."""
        with self._stage("save"):
            files = sorted(path for path in self.paths.working.rglob("*") if path.is_file() and path.name != RESULT)
            self.result.outputs = {
                name: OutputEntry(path.stat().st_size, hash_file(path))
                for path in files
                if not (name := path.relative_to(self.paths.working).as_posix()).startswith((".", "__"))
            }
            self.result.status, self.result.reason = "complete", None
            self._write_result()
            emit("result", status="complete", found=self.result.found, seconds=self._seconds())
            print(self.result.found)

    def _tell_probe(self, probe: dict[str, Any] | None) -> None:
        """Warns where the merged model is not what the session trained; in 4 bits it never is."""
        if probe is not None and not probe["agrees"] and self.parameters["quantization"] == "none":
            last, far = self.subject.phase, probe["difference"]
            emit("warning", message=f"the session of {last} recorded logits {far:.2f} away: is this another base?")

    def _check_task(self) -> None:
        """Finds what else is wrong with this kind of session's own task before time is spent."""

    def _check_time(self, done: str) -> None:
        """Stops when the session's time is nearly over: it has to say why before it is ended."""
        if self._left() < 0:
            raise Stop(
                f"the session's {self.parameters['session_timeout']} s are nearly over after {done}", self._shorter()
            )

    def _left(self) -> float:
        """Seconds until the session's time is nearly over."""
        limit = self.parameters["session_timeout"]
        return float(self.began + limit - max(LEAST_RESERVE, RESERVE * limit) - time.monotonic())

    def _shorter(self) -> str:
        """What to change where the time is too short."""
        return "raise session_timeout"

    def _subject(self, base: Path, adapters: list[Adapter]) -> TrainedPhase:
        told, last = self.parameters, adapters[-1].phase
        parts = []
        for adapter, line in zip(adapters, told["lineage"], strict=True):
            file, trained = self.paths.mount(adapter.kind, adapter.ref) / RESULT, told["trained"][adapter.phase]
            result = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            adopted = line["sha256"] is not None
            parts.append(Part(adapter, None, adopted, result, trained["tokens"], trained["sources"]))
        return TrainedPhase(
            chain=told["chain"],
            phase=last,
            title=told["trained"][last]["title"],
            description=told["trained"][last]["description"],
            system_prompt=told["system_prompt"],
            base_model=told["model"]["source"],
            seed=told["seed"],
            pad=told["pad"],
            lora=told["lora"],
            quantization=told["quantization"],
            parts=parts,
            base=base,
            work=self.paths.scratch / "merged",
        )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """A stage that turns kchain's errors into the runtime's reasons to stop."""
        with super()._stage(name):
            try:
                yield
            except KchainError as error:
                raise Stop(error.message, error.hint) from error
