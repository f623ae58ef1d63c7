"""What a session left, read through one door: `kchain-result.json`, and any other JSON that came with it.

A file may be an older kchain's, another bundle's, or anybody's. What is missing (or null) has a default. A figure that
is not a finite number reads as None, and whoever asks for it says so. Any other value of a wrong type refuses the file,
but in what is only shown (evaluation, examples, quality) leaves out the part that it stands in.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    OnErrorOmit,
    Strict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import from_json

from kchain.errors import AdapterRefused
from kchain.orchestrator.journal.state import Ancestor
from kchain.runtime.contract import RESULT, OutputEntry

_CURE = "pull it again, or train it again"


def _finite(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and abs(value) <= sys.float_info.max else None


def _or_empty(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError:
        return read({})


_Part = TypeVar("_Part")
Figure = Annotated[float | None, BeforeValidator(_finite)]
Count = Annotated[int | None, BeforeValidator(lambda value: value if type(value) is int else None)]
Flag = Annotated[bool, BeforeValidator(lambda value: value is True)]
Number = Annotated[float, Strict(), AllowInfNan(False)]
Shown = Annotated[_Part, WrapValidator(_or_empty)]


class FromSession(BaseModel):
    """A table in a file that a session wrote."""

    # Built when the first file is read: `kchain status` of a new chain reads none.
    model_config = ConfigDict(frozen=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_missing(cls, told: Any) -> Any:
        return {key: value for key, value in told.items() if value is not None} if isinstance(told, dict) else told


class Metrics(FromSession):
    """Figures over the whole run (kchain/runtime/contract.py); those of other sessions than trainings are kept, too.

    Attributes:
        all_epochs: the training ran to its end.
        success_rate, better: of an evaluation: share of solved questions, and "chain", "base" or none.
    """

    model_config = ConfigDict(extra="allow")

    loss_first: Figure = None
    loss_last: Figure = None
    steps: Count = None
    eval_loss: Figure = None
    eval_loss_before: Figure = None
    token_accuracy: Figure = None
    token_accuracy_before: Figure = None
    forgotten: Figure = None
    eos_rate: Figure = None
    eos_rate_before: Figure = None
    style_separation: Figure = None
    all_epochs: Flag = False
    success_rate: Figure = None
    better: str = ""


class SavedAdapter(FromSession):
    """The adapter as the session recorded it: hash, size and number of tensors of its weights file."""

    sha256: str | None = None
    bytes: Count = None
    tensors: Count = None


class SavedCheckpoint(FromSession):
    """The checkpoint as the session recorded it: its folder, and the hash of its manifest."""

    folder: str | None = None
    sha256: str | None = None


class SplitFigures(FromSession):
    """Loss (nats a token) and token accuracy (0 to 1) of one model on one split."""

    loss: Number
    token_accuracy: Number


class JudgedSplit(FromSession):
    """The split of a phase, judged by the model before and by the one after; None where that was not judged."""

    phase: str
    examples: int
    before: SplitFigures | None = None
    after: SplitFigures

    @property
    def rise(self) -> float | None:
        """By how much the loss rose; below 0: it fell."""
        return None if self.before is None else self.after.loss - self.before.loss


class NotJudged(FromSession):
    """A split that could not be judged."""

    phase: str
    reason: str


class SampleAnswer(FromSession):
    """What a model answered; `ended`: by itself, not cut."""

    text: str
    tokens: int
    ended: bool


class SampleAnswers(FromSession):
    """One prompt, the answer of the data, and the answers of the models before and after the phase."""

    prompt: str
    expected: str
    before: SampleAnswer
    after: SampleAnswer


class StyleFigures(FromSession):
    """Answers in one style: their mean length in tokens, and the share that ended by itself."""

    tokens: Number
    ended: Number


class Styles(FromSession):
    by_style: dict[str, OnErrorOmit[StyleFigures]] = {}


class JudgedPhase(FromSession):
    """What the session's own evaluation found.

    Attributes:
        splits: validation sets, the phase's own last.
        absent: why there is no figure, by the names of metrics.
    """

    splits: list[OnErrorOmit[JudgedSplit]] = []
    not_judged: list[OnErrorOmit[NotJudged]] = []
    samples: list[OnErrorOmit[SampleAnswers]] = []
    styles: Styles = Styles()
    absent: dict[str, OnErrorOmit[str]] = {}


class SourceCounts(FromSession):
    """How many rows of a data source were read, and what became of them; `error`: why the source failed."""

    name: str
    read: Count = None
    kept: Count = None
    filtered: Count = None
    broken: Count = None
    duplicates: Count = None
    capped: Count = None
    error: str = ""


class ExampleCounts(FromSession):
    train: Count = None
    validation: Count = None
    sources: list[OnErrorOmit[SourceCounts]] = []


class FaultCounts(FromSession):
    """Examples that have a fault, and their share of all."""

    count: int
    share: Number


class FoundFaults(FromSession):
    faults: dict[str, OnErrorOmit[FaultCounts]] = {}


class ResultFile(FromSession):
    """`kchain-result.json`; what each field means stands in kchain/runtime/contract.py.

    Attributes:
        lineage: the adapters that it was built on, root first; None: it does not say.
        told: the whole file as it is, for whoever passes it on.
    """

    format: Count = None
    bundle: str = ""
    status: str = ""
    reason: str = ""
    session: Count = None
    stopped: str = ""
    pad_id: Count = None
    lora: dict[str, Any] = {}
    base_model: str = ""
    tokens: dict[str, Count] = {}
    lineage: tuple[Ancestor, ...] | None = None
    adapter: SavedAdapter | None = None
    checkpoint: SavedCheckpoint | None = None
    metrics: Metrics = Metrics()
    moved: dict[str, Any] = {}
    seconds: Figure = None
    found: str = ""
    outputs: dict[str, OutputEntry] = {}
    evaluation: Shown[JudgedPhase] = JudgedPhase()
    examples: Shown[ExampleCounts] = ExampleCounts()
    quality: Shown[FoundFaults] = FoundFaults()
    versions: Shown[dict[str, Any]] = {}
    told: Mapping[str, Any] = {}


_File = TypeVar("_File", bound=FromSession)


def read_result(folder: Path) -> ResultFile | None:
    """The result file in a session's outputs; None: it left none.

    Raises:
        AdapterRefused: the file is there and no result.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    told = read_object(path)
    return parse(ResultFile, {**told, "told": told}, path)


def parse(model: type[_File], told: Mapping[str, Any], path: Path) -> _File:
    """What a file says, as this model.

    Raises:
        AdapterRefused: a value is of a wrong type; says which.
    """
    try:
        return model.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        found = "is missing" if first["type"] == "missing" else f"is {str(first['input']):.100}: {first['msg']}"
        raise AdapterRefused(f"{path}: {place} {found}", _CURE) from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        AdapterRefused: there is none.
    """
    try:
        told = from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise AdapterRefused(f"{path}: cannot be read as JSON: {error!s:.100}", _CURE) from None
    if not isinstance(told, dict):
        raise AdapterRefused(f"{path}: holds {type(told).__name__} where a JSON object was expected", _CURE)
    return told
