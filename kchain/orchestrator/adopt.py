"""`kchain adopt`: an adapter trained elsewhere becomes a phase's result, after the same checks as any other.

Three places it may come from: a data set, a kernel's output, a folder on this machine (which is first uploaded as a
private data set, since later phases mount it). The phase's own kernel is special: it rebuilds what a lost journal knew.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kchain.client.answers import LIVE
from kchain.client.target import Target
from kchain.errors import AdapterRefused, InputError, KchainError, NotNow, PhaseFailed
from kchain.kernel_metadata import Continuation
from kchain.orchestrator.driving.actions import Reporter
from kchain.orchestrator.driving.continuation import content_slug
from kchain.orchestrator.driving.drive import Driver, Ports, driving, wait_until_ready
from kchain.orchestrator.journal.journal import KeptBundle
from kchain.orchestrator.journal.state import PhaseState, Result, expected_lineage, rows, run_event
from kchain.orchestrator.judging.adapter import UNKNOWN_PAD, VerifiedAdapter, expect, verify
from kchain.orchestrator.judging.judge import result_event
from kchain.orchestrator.judging.result import ResultFile, read_result
from kchain.phases import Chain
from kchain.runtime.contract import ADAPTER, CONFIG, REACHED, RESULT, TOKENIZER, WEIGHTS
from kchain.units import size

if TYPE_CHECKING:
    from kchain.client.answers import Kernel

# The folder of an adopted adapter among the phase's runs.
ADOPTED = "adopted"
# How peft saved weights before safetensors.
_PICKLE = "adapter_model.bin"


@dataclass(frozen=True)
class Origin:
    """Where an adapter is: exactly one of the three.

    Attributes:
        folder: local folder that holds it.
        inside: folder within the data set or the kernel's output; None: wherever it is found.
    """

    dataset: str | None = None
    kernel: str | None = None
    folder: Path | None = None
    inside: str | None = None


def adopt(
    chain: Chain,
    phase: str,
    target: Target,
    origin: Origin,
    reporter: Reporter,
    *,
    pad_id: int | None = None,
    ports: Ports | None = None,
) -> Result:
    """Take over an adapter.

    Args:
        pad_id: id of the pad token it was trained with, where no result file says it.

    Raises:
        InputError: there is no adapter there.
        AdapterRefused: it does not fit this chain.
        PhaseFailed: the phase's own kernel failed, or its data set could not be processed.
        NotNow: the phase's own kernel has not finished; what it has reached is known now.
        Unreachable, DriverLocked: see `kchain.errors`.
    """
    if chain.phase(phase).use is not None and origin.kernel != chain.kernel(phase):
        raise InputError(f"{phase} trains nothing: no adapter can be its result", f"run it: kchain push {phase}")
    if pad_id is not None and pad_id != chain.model.eos_id:
        raise AdapterRefused(
            f"an adapter trained with pad id {pad_id} does not go with this chain's {chain.model.eos_id}",
            "train it again with the pad token forced to the end-of-turn token",
        )
    with driving(chain, target, reporter, ports) as driver:
        adoption = _Adoption(driver, phase, pad_id)
        if origin.kernel is not None and origin.kernel == chain.kernel(phase):
            _Rebuilding(driver, phase).rebuild()
        elif origin.kernel is not None:
            adoption.from_kernel(origin.kernel, origin.inside)
        elif origin.dataset is not None:
            adoption.from_dataset(origin.dataset, origin.inside)
        elif origin.folder is not None:
            adoption.from_folder(origin.folder, origin.inside)
        state = driver.states()[phase]
        if state.result is None:
            raise _unfinished(phase, state)
        return state.result


class _Adoption:
    """An adapter that was trained elsewhere, taken over for a phase."""

    def __init__(self, driver: Driver, phase: str, pad_id: int | None) -> None:
        self._driver = driver
        self._chain = driver.chain
        self._phase = phase
        self._pad_id = pad_id
        self._told: set[str] = set()
        self._runs = Path("runs") / driver.target.folder / phase

    def from_dataset(self, ref: str, inside: str | None, sha256: str | None = None) -> None:
        from kchain.client.refusals import Absent

        client = self._driver.client()
        try:
            names = [file.name for file in client.dataset_files(ref)]
        except Absent as error:
            raise InputError(error.message, error.hint) from error
        place = locate(names, inside, f"data set {ref}")
        beside = [name for name in (join(place, RESULT), join(parent(place), RESULT)) if name in names]
        with self._arriving() as folder:
            (folder / ADAPTER).mkdir(parents=True)
            # The tokenizer says which pad token the adapter was trained with.
            for file in (WEIGHTS, CONFIG, *(file for file in TOKENIZER if join(place, file) in names)):
                client.dataset_download(ref, join(place, file), folder / ADAPTER / file)
            if beside:
                client.dataset_download(ref, beside[0], folder / RESULT)
            adapter = self._verify(folder, sha256)
        self._record(adapter, client.dataset_version(ref), "dataset", ref, place, ADAPTER)

    def from_kernel(self, ref: str, inside: str | None) -> None:
        kernel = self._driver.client().kernel(ref)
        if kernel is None:
            raise InputError(f"kernel {ref}: the target knows no such kernel, or it is not yours", "check the name")
        with self._arriving() as folder:
            self._driver.fetch(ref, kernel.version, folder)
            place = locate(_files(folder), inside, f"the output of {ref}")
            adapter = self._verify(folder, None, place)
        self._record(adapter, kernel.version, "kernel", ref, place, place)

    def from_folder(self, source: Path, inside: str | None) -> None:
        if not source.is_dir():
            raise InputError(f"{source} is not a folder", "give the folder that holds " + WEIGHTS)
        folder = source / locate(_files(source), inside, str(source))
        adapter = self._verify(folder.parent, None, folder.name)
        slug = content_slug(f"{self._chain.name}-{self._phase}-adapter", adapter.sha256)
        client, ref, reporter = self._driver.client(), f"{self._chain.owner}/{slug}", self._driver.reporter
        if client.dataset_status(ref) is None:
            reporter.note(self._phase, f"uploading {size(adapter.bytes)} as the private data set {ref}")
            with tempfile.TemporaryDirectory(prefix="kchain-adopt-") as name:
                for file in (WEIGHTS, CONFIG, *(file for file in TOKENIZER if (folder / file).is_file())):
                    shutil.copyfile(folder / file, Path(name) / file)
                beside = [path for path in (folder / RESULT, folder.parent / RESULT) if path.is_file()]
                if beside:
                    shutil.copyfile(beside[0], Path(name) / RESULT)
                client.dataset_create(Path(name), ref, slug)
        wait_until_ready(self._driver, client, ref, lambda text: reporter.waiting(self._phase, text))
        self.from_dataset(ref, None, adapter.sha256)

    @contextmanager
    def _arriving(self) -> Iterator[Path]:
        """A folder to fetch into; it takes the place of what was adopted before only when all went well."""
        runs = self._chain.root / self._runs
        runs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".adopting-", dir=runs) as name:
            folder = Path(name) / ADOPTED
            yield folder
            if (runs / ADOPTED).exists():
                (runs / ADOPTED).rename(Path(name) / "before")
            folder.rename(runs / ADOPTED)

    def _verify(self, folder: Path, sha256: str | None, place: str = ADAPTER) -> VerifiedAdapter:
        expected = expect(self._chain, self._phase, sha256=sha256, needs_result=False, folder=place)
        try:
            adapter = verify(folder, expected)
        except AdapterRefused as error:
            # The hints of verify are about runs of this chain, with a log to read; this one was made elsewhere.
            hint = f"adopt another adapter, or train the phase here: kchain push {self._phase}"
            raise AdapterRefused(error.message, hint) from None
        self._refuse_other_ancestors(adapter)
        for warning in adapter.warnings:
            if warning == UNKNOWN_PAD:
                if self._pad_id is not None:
                    continue
                warning += f"; taken to be this chain's {self._chain.model.eos_id} (say it with --pad-id)"
            # Said once, though a folder is verified before and after its upload.
            if warning not in self._told:
                self._driver.reporter.note(self._phase, warning)
                self._told.add(warning)
        return adapter

    def _refuse_other_ancestors(self, adapter: VerifiedAdapter) -> None:
        """An adapter that says what it was trained on must have been trained on what the chain will merge before it."""
        ancestors = expected_lineage(self._chain, self._driver.states(), self._phase)
        if ancestors is None or adapter.result is None or adapter.result.lineage is None:
            return
        trained_on, merged = ([each.sha256 for each in one] for one in (adapter.result.lineage, ancestors))
        if trained_on != merged:
            told, base = (" + ".join(each[:10] for each in one) or "the base alone" for one in (trained_on, merged))
            raise AdapterRefused(
                f"this adapter was trained on {told}, {self._phase} builds on {base}",
                "adopt it for the phase it was trained as, or leave out its kchain-result.json if you know better",
            )

    def _record(self, adapter: VerifiedAdapter, version: int, kind: str, ref: str, place: str, inside: str) -> None:
        folder = (self._runs / ADOPTED / inside).as_posix()
        detail = result_event(adapter, version=version, kind=kind, ref=ref, source_folder=place, folder=folder)
        detail["pad_id"] = detail["pad_id"] if detail["pad_id"] is not None else self._pad_id
        detail["moved"]["pulled_bytes"] = adapter.bytes
        self._driver.journal.append(self._phase, "adopted", **detail)


class _Rebuilding:
    """What a lost journal knew of a phase, from its own kernel: the last version, and the checkpoint before it."""

    def __init__(self, driver: Driver, phase: str) -> None:
        self._driver = driver
        self._phase = phase
        self._ref = driver.chain.kernel(phase)
        self._runs = Path("runs") / driver.target.folder / phase

    def rebuild(self) -> None:
        """Record the kernel's current version as if it had been pushed and followed from here.

        Raises:
            InputError: the kernel is not one that kchain pushed.
            NotNow: it runs.
            PhaseFailed: it failed; the journal says why.
        """
        client = self._driver.client()
        kernel = client.kernel(self._ref)
        if kernel is None or _hash(kernel) is None:
            raise InputError(f"kernel {self._ref} is not one that kchain pushed", f"kchain push {self._phase}")
        word = client.status(self._ref, kernel.version).word
        if word in LIVE:
            raise NotNow(f"{self._ref} version {kernel.version} is {word.lower()}", "adopt it when it has ended")
        continues = _continues(kernel.source)
        if continues is not None and self._fetch(kernel.version).status not in REACHED:
            # It reached nothing itself: what it was to resume from still counts.
            self._take_checkpoint(continues, kernel.version)
        self._take(kernel)
        self._driver.judge(self._phase)

    def _take_checkpoint(self, continues: Continuation, before: int) -> None:
        """Record the newest version before that one which left the checkpoint, where there is one."""
        for number in range(before - 1, 0, -1):
            kernel = self._driver.client().kernel(self._ref, number)
            if kernel is None or _hash(kernel) is None or _session(kernel.source) != continues.session - 1:
                continue
            told = self._fetch(number).checkpoint
            if told is not None and told.sha256 == continues.sha256:
                # The answer names the kernel's current version, whichever was asked for.
                self._take(type(kernel)(number, kernel.source))
                self._driver.judge(self._phase)
                return

    def _take(self, kernel: Kernel) -> None:
        """Record a version as pushed, ended and fetched."""
        result = self._fetch(kernel.version)
        status = self._driver.client().status(self._ref, kernel.version)
        kept, run = self._known(kernel)
        append = self._driver.journal.append
        append(
            self._phase,
            "pushed",
            kept=kept,
            version=kernel.version,
            url="",
            invalid=[],
            found=True,
            hash=kept.hash,
            lineage=rows(result.lineage or ()),
            resend=False,
            **run,
        )
        append(self._phase, "ended", word=status.word, failure=status.failure or "")
        append(self._phase, "pulled", folder=(self._runs / f"v{kernel.version}").as_posix())

    def _fetch(self, version: int) -> ResultFile:
        """The outputs of a version, in its folder; what its result file says, nothing without one."""
        folder = self._driver.chain.root / self._runs / f"v{version}"
        self._driver.fetch(self._ref, version, folder)
        return read_result(folder) or ResultFile()

    def _known(self, kernel: Kernel) -> tuple[KeptBundle, dict[str, Any]]:
        """The bundle of a version as it is kept, and the run that it belongs to.

        The metadata that was pushed is not what the target gives back, the notebook is: only a bundle that renders as
        it did then can be resumed.
        """
        folder, phase = self._driver.folders[self._phase], self._driver.chain.phase(self._phase)
        if (recognised := folder.recognised(kernel.source)) is not None:
            kept, continues = recognised
            return kept, run_event(continues, folder.rendered.hash, phase.training.max_sessions)
        found, session = str(_hash(kernel)), _session(kernel.source)
        return KeptBundle(found, "{}", kernel.source), run_event(_continues(kernel.source), found, session)


def _unfinished(phase: str, state: PhaseState) -> KchainError:
    """What is said of a phase whose own kernel was taken over and has no result yet."""
    if state.checkpoint is None or state.version is None:
        return PhaseFailed(
            f"the last session of {phase} found no checkpoint to resume from",
            f"from the beginning: kchain push {phase} --again",
        )
    checkpoint = state.checkpoint
    return NotNow(
        f"{phase} is known again, and not finished: session {checkpoint.session} of {state.version.max_sessions} "
        f"ended at {checkpoint.words}",
        "its next session resumes from there: kchain watch",
    )


def _hash(kernel: Kernel) -> str | None:
    from kchain.bundle import find_hash

    return find_hash(kernel.source)


def _continues(source: str) -> Continuation | None:
    from kchain.bundle import continuation_of

    try:
        return continuation_of(json.loads(source))
    except (ValueError, TypeError):
        # Pushed by a kchain that knew no sessions, or changed since.
        return None


def _session(source: str) -> int:
    continues = _continues(source)
    return 1 if continues is None else continues.session


def locate(names: Iterable[str], inside: str | None, where: str) -> str:
    """The folder among these file names that holds the adapter; "" for the top.

    Raises:
        InputError: none does, or several do and `inside` does not say which.
    """
    all_names = list(names)
    found = sorted({parent(name) for name in all_names if PurePosixPath(name).name == WEIGHTS})
    if inside is not None:
        found = [place for place in found if place == inside.strip("/")]
    if not found:
        if pickles := [name for name in all_names if PurePosixPath(name).name == _PICKLE]:
            raise InputError(
                f"{where}: {pickles[0]} is a pickle, which kchain never opens: it could run any code",
                "load it where it was made and save it with save_pretrained(..., safe_serialization=True)",
            )
        raise InputError(f"{where}: no {WEIGHTS} there", "kchain adopts LoRA adapters saved as safetensors")
    if len(found) > 1:
        places = ", ".join(place or "(top)" for place in found)
        raise InputError(f"{where}: several adapters: {places}", "say which: --inside FOLDER")
    return found[0]


def parent(name: str) -> str:
    """The folder part of a file name; "" at the top."""
    folder = PurePosixPath(name).parent.as_posix()
    return "" if folder == "." else folder


def join(place: str, name: str) -> str:
    """A file name within a folder that may be the top."""
    return f"{place}/{name}" if place else name


def _files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
