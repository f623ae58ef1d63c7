"""One session from its first second to its result file. The driver cells of the notebook call nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

# Only what needs no torch: the environment is not installed yet when this module is imported.
from . import checkpoint, data, handover, launch, preflight, splits
from .adapters import find
from .contract import ADAPTER, METRICS, PhaseResult, judging, reserve
from .failure import Stop, emit
from .paths import Paths, session_paths
from .readers import SOURCES
from .stages import Stages

LOGS = "logs"
# Tokens of an example that a failure shows: enough to find it in the data.
SHOWN_TOKENS = 24


def start(parameters: dict[str, Any], bundle: str) -> Session:
    """Begins a session; from now on `kchain-result.json` tells the truth, even if the machine dies.

    Args:
        parameters: the notebook's PARAMETERS.
        bundle: hash of the bundle, 64 hex digits.
    """
    training, gpu = parameters["training"], parameters["accelerator"]["gpus"] > 0
    preflight.choose_device(training["processes"] if gpu else 0)
    return Session(parameters, bundle, session_paths())


class Session(Stages):
    """The state that the driver cells share. Each method is one stage; a stage that fails ends the notebook."""

    result: PhaseResult

    def __init__(self, parameters: dict[str, Any], bundle: str, paths: Paths) -> None:
        continuation = parameters["continuation"]
        result = PhaseResult.begin(
            parameters,
            bundle,
            session=continuation["session"] if continuation else 1,
            adapter_mode=parameters["adapter_mode"],
            metrics={**dict.fromkeys(METRICS), "all_epochs": False},
        )
        super().__init__(parameters, paths, result)

    def preflight(self) -> None:
        """Checks the machine and the inputs, and stops in the first minute if something is wrong."""
        with self._stage("preflight"):
            training, accelerator = self.parameters["training"], self.parameters["accelerator"]
            self.result.versions = preflight.versions()
            emit("versions", **self.result.versions)
            preflight.check_precision(training["precision"], accelerator)
            preflight.check_bitsandbytes(training["quantization"], training["optimizer"])
            self._find_gpus(accelerator, training)
            self.source = self.base = self.paths.mount("model", self.parameters["model"]["source"])
            preflight.check_model(self.base)
            for source in self.parameters["data"]["sources"]:
                if source["kind"] not in SOURCES and not source.get("optional"):
                    data.source_files(self.paths, source)
            self.adapters = find(self.paths, self.parameters)
            if self.adapters:
                from .changes import find_changes

                find_changes(self.base, self.adapters, self.parameters["lora"])
            base_bytes = preflight.weight_bytes(self.base)
            merging = any(adapter.use == "merge" for adapter in self.adapters)
            preflight.check_disk(self.paths.scratch, base_bytes if merging else 0)
            self._record_inputs(self.adapters, base_bytes)
            self._find_checkpoint()

    def merge(self) -> None:
        """Merges the adapters of the lineage into the base model, but for one that is trained on."""
        with self._stage("merge"):
            from .merge import merge

            merged = [adapter for adapter in self.adapters if adapter.use == "merge"]
            self.base = merge(self.source, merged, self.parameters["lora"], self.paths.scratch / "merged")

    def load_data(self) -> None:
        """Reads and mixes the sources, and encodes what they gave."""
        with self._stage("data"):
            from . import encode, examples, tokenizer
            from .chat import Chat

            self.tokenizer = tokenizer.load(self.source, self.parameters["pad"], self.adapters)
            self.rows = tokenizer.token_rows(self.tokenizer, self.parameters["tokens"], self.source)
            self.result.tokens = {row.token: row.id for row in self.rows}
            self.mix = data.load(self.paths, self.parameters["data"], self.parameters["seed"])
            self.styles = examples.styles(self.mix.train + self.mix.validation)
            tokenizer.check_styles(self.tokenizer, self.styles)
            chat = Chat(self.tokenizer, {*self.result.tokens, *self.styles})
            length = self.parameters["training"]["max_length"]
            encoded = encode.encode_all(self.mix.train, chat, length)
            self.examples = encoded.examples
            self.validation = encode.encode_all(self.mix.validation, chat, length).examples
            if not self.examples:
                raise Stop(f"no example has anything to learn within {length} tokens", "raise training.max_length")
            self.result.examples = {
                "train": len(self.examples),
                "validation": len(self.validation),
                **encoded.counts(),
                "sources": [report.counts() for report in self.mix.reports],
            }
            emit("examples", first=encode.describe(self.examples[0], self.tokenizer), **self.result.examples)
            encode.tell(encoded, self.mix.train, self.parameters["data"]["system_prompt"])
            self.prints["data"] = checkpoint.data_print(self.examples)
            if self.earlier:
                checkpoint.check_data(self.earlier[1], self.prints["data"])

    def check_data(self) -> None:
        """Looks at the examples before hours are spent on them; stops where more are bad than the phase allows."""
        with self._stage("quality"):
            from . import quality

            lengths = [len(example) for example in self.examples]
            cap, cut = self.parameters["training"]["max_length"], self.result.examples["truncated"]
            found = quality.examine(self.mix, quality.Tokens(lengths, cap, cut))
            self.result.quality = found
            emit("quality", **found)
            bad = quality.problems(found, self.parameters["data"]["quality"])
            if bad:
                raise Stop("; ".join(bad), quality.advice(found, self.parameters["data"]["quality"]))

    def train(self) -> None:
        """Trains the adapter and saves it at once: hours of work are on the disk before anything else can fail."""
        with self._stage("train"):
            from . import save

            folder = self.paths.scratch / "training"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            handover.write_examples(folder, self.examples)
            trained = launch.train(folder, self._job(), self._about)
            outcome, self.batch, self.memory = trained.outcome, trained.job.batch, trained.outcome.memory
            if outcome.reason:
                emit("warning", message=f"training stopped at step {outcome.steps}: {outcome.reason}")
            if outcome.skipped:
                emit("warning", message=f"{outcome.skipped} steps changed nothing: their gradients overflowed in fp16")
            self.reason = outcome.reason
            self.result.stopped, self.result.skipped_steps = outcome.stopped, outcome.skipped
            self.result.recovered += trained.recovered
            self.result.metrics.update(
                loss_first=outcome.loss_first,
                loss_last=outcome.loss_last,
                steps=outcome.steps,
                epochs=outcome.epochs,
                all_epochs=outcome.reason is None,
            )
            title, working = self.parameters["title"], self.paths.working
            weights = folder / handover.ADAPTER
            self.result.adapter = save.save_adapter(weights, self.tokenizer, self.result, title, working)
            if outcome.stopped:
                self._save_checkpoint(folder, trained.job)

    def evaluate(self) -> None:
        """Judges what this phase changed, with the saved adapter loaded as anybody would load it."""
        with self._stage("evaluate"):
            from . import evaluate, judge, samples

            saved = self.paths.working / ADAPTER
            seen = judge.Subject(self.base, self.parameters, saved, self._continued())
            limit, most = self.parameters["session_timeout"], self.parameters["training"]["max_sessions"]
            case = samples.build(
                self.parameters,
                samples.Reading(self.tokenizer, self.result.tokens, self.styles),
                samples.Split(self.parameters["phase"], self.validation),
                splits.find(self.paths, self.adapters),
                goes_on=self.result.stopped == "time" and self.result.session < most,
                batch=self.batch,
                deadline=self.began + limit - reserve(limit) + judging(limit),
            )
            judged = judge.Judge(seen, case, self.parameters["pad"]["id"], self.tokenizer.decode).judge()
            self.result.evaluation = judged.evaluation
            self.result.metrics.update(judged.metrics)
            self.result.probe = evaluate.probe(seen.model, self.examples[0])

    def save(self) -> None:
        """Writes the validation split and, last of all, that this session reached its end."""
        with self._stage("save"):
            from . import save

            save.save_validation(self.mix.validation, self.paths.working)
            splits.hand_on(self.paths, self.adapters)
            self.result.status = "partial" if self.reason else "complete"
            self.result.reason = self.reason
            self._write_result()
            metrics = self.result.metrics
            shown = {name: metrics[name] for name in ("loss_first", "loss_last", "token_accuracy", "steps")}
            emit("result", status=self.result.status, **shown, seconds=self._seconds())

    def _find_gpus(self, accelerator: dict[str, Any], training: dict[str, Any]) -> None:
        """Looks at the GPUs, and decides how many processes train."""
        count = 0
        if accelerator["gpus"]:
            found = preflight.look()
            preflight.check_gpus(accelerator, found, preflight.others())
            count = len(found)
        self.processes = preflight.processes(training["processes"], count, training["accumulation"])
        if count > self.processes:
            preflight.choose_device(self.processes)

    def _find_checkpoint(self) -> None:
        """Finds what the session before this one left, if this one goes on with its run."""
        lineage = [adapter.entry() for adapter in self.adapters]
        self.prints = {"parameters": checkpoint.parameters_print(self.parameters, lineage)}
        continuation = self.parameters["continuation"]
        self.earlier = checkpoint.find(self.paths, continuation, self.prints["parameters"]) if continuation else None
        if self.earlier:
            manifest = self.earlier[1]
            self.result.recovered = list(manifest.recovered)
            checkpoint.tell(manifest, continuation["session"], self.processes)

    def _job(self) -> handover.Job:
        """What the processes are told that train."""
        training, limit = self.parameters["training"], self.parameters["session_timeout"]
        batch = training["batch"]
        if self.earlier:
            most, effective = self.earlier[1].batch, batch * training["accumulation"]
            batch = max(size for size in range(1, most + 1) if effective % (size * self.processes) == 0)
        return handover.Job(
            parameters=self.parameters,
            base=str(self.base),
            batch=batch,
            processes=self.processes,
            checkpoint=str(self.earlier[0]) if self.earlier else None,
            deadline=self.began + limit - reserve(limit),
            step_seconds=training["step_seconds"] * training["processes"] / self.processes,
            logs=str(self.paths.working / LOGS),
            continued=str(folder) if (folder := self._continued()) else None,
            rows=self.rows,
        )

    def _continued(self) -> Path | None:
        """The adapter that is trained on; None for a new one."""
        return next((adapter.folder for adapter in self.adapters if adapter.use == "continue"), None)

    def _save_checkpoint(self, folder: Path, job: handover.Job) -> None:
        """Puts the checkpoint that the training left into the output."""
        saved = checkpoint.latest(folder, job.processes)
        if saved is None:
            raise Stop("the training left no complete checkpoint to resume from", "see the warnings above in the log")
        run = {**self.prints, "batch": job.batch, "processes": job.processes, "recovered": self.result.recovered}
        self.result.checkpoint = checkpoint.publish(saved, self.paths.working, run)

    def _about(self, index: int) -> str:
        """An example in a few words."""
        text = self.tokenizer.decode(self.examples[index].ids[:SHOWN_TOKENS].tolist())
        return f"example {index} begins with {text!r}"
