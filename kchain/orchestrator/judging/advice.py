"""Why a session failed: the traceback of its cell, and what that probably means and what to change. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic_core import from_json

from kchain.client.log import lines_of
from kchain.runtime.contract import EVENT_PREFIX

_EVENT = re.compile("^" + EVENT_PREFIX + r"(\{.*\"event\": ?\"failed\".*\})\s*$", re.MULTILINE)
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# IPython's first line of a traceback: the error's name, and far to the right the words.
_START = re.compile(r"^(?P<error>[A-Za-z_][\w.]*) +Traceback \(most recent call last\)$")
# What papermill, the HTML export and kchain's own events print right behind an error's message.
_NOISE = re.compile(rf"\[\w+App\]|{EVENT_PREFIX}|(Executing|Ending) Cell ")
_PLAIN = "Traceback (most recent call last):"
_MOST_LINES = 60
_HEAD = 12


@dataclass(frozen=True)
class Advice:
    """What it probably means, and what to change."""

    meaning: str
    change: str


def _row(pattern: str, meaning: str, change: str) -> tuple[re.Pattern[str], Advice]:
    return re.compile(pattern, re.IGNORECASE), Advice(meaning, change)


# Phrases are those of torch, transformers, peft, bitsandbytes, datasets, pip, papermill and Kaggle's own messages.
TABLE = (
    _row(
        r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        "the GPU ran out of memory",
        "halve `batch` and double `accumulation`, keep `checkpointing = true`, lower `max_length`; "
        "fewer examples do not save GPU memory",
    ),
    _row(
        r"DeadKernelError|Kernel died|exit(ed with)? (code|status) (137|-9)|allocate more memory than is available"
        r"|\bMemoryError\b|\bOOM-?kill",
        "the machine ran out of memory, and the system killed the notebook",
        "lower `max_examples`, or give the largest source a `limit`",
    ),
    _row(
        r"No space left on device|Errno 28|disk quota exceeded|out of disk",
        "the session's disk was full",
        "use a smaller base model; /kaggle/working has 20 GB",
    ),
    _row(
        r"was ended during (evaluate|judge)",
        "the session was ended while it evaluated the saved adapter: training was done",
        "a larger `session_timeout`, or a smaller `max_validation` in [data]",
    ),
    _row(
        r"Attempting to unscale FP16 gradients",
        "the LoRA weights were in fp16; fp16 training needs them in fp32",
        "render again with this kchain, which keeps them in fp32",
    ),
    _row(
        r"not implemented for '?BFloat16|bf16.{0,60}(not supported|no bf16|Ampere)|has no bf16",
        "bf16 on a GPU without it (such as a T4)",
        '`precision = "auto"` or "fp16" in [training]',
    ),
    _row(
        r"incompatible version of torchao|(ImportError|ModuleNotFoundError).{0,200}torchao|torchao.{0,200}ImportError",
        "peft refuses the torchao of Kaggle's image",
        "kchain's notebooks uninstall torchao: render again, and keep internet on",
    ),
    _row(
        r"No kernel name found in notebook",
        "the notebook has no kernelspec",
        "render it again; kchain lint finds this",
    ),
    _row(
        r"no kernel image is available for execution on the device|sm_60",
        "the GPU is too old for this torch (a P100, for instance)",
        '`accelerator = "NvidiaTeslaT4"` in kchain.toml',
    ),
    _row(
        r"(asked for, and )?torch sees no GPU|No CUDA GPUs are available|Found no NVIDIA driver"
        r"|Torch not compiled with CUDA|CUDA is required but not available",
        "the session had no GPU",
        "check `accelerator`, the account's phone verification and the GPU quota (kchain doctor)",
    ),
    _row(
        r"gated (repo|dataset)|You must be authenticated to access|401 Client Error.{0,80}huggingface",
        "the Hugging Face data set needs a login, which a notebook does not have",
        "use an open data set, or attach a copy as a Kaggle data set",
    ),
    _row(
        r"name resolution|Name or service not known|getaddrinfo failed|NameResolutionError"
        r"|Failed to establish a new connection|Couldn't reach|OfflineModeIsEnabled|LocalEntryNotFoundError"
        r"|pip .* failed with status",
        "no network: internet is off, or the account's phone is not verified",
        "`internet = true` (and verify the phone), or attach the data as a Kaggle data set",
    ),
    _row(
        r"is not mounted|No such file or directory: '?/kaggle/input|FileNotFoundError.{0,120}/kaggle/input",
        "an input is missing: a source was not attached, or mounted empty",
        "check the invalid sources of the push, names in the phase file, and who may see them; then push again",
    ),
    _row(
        r"DatasetNotFoundError|doesn't exist on the Hub|BuilderConfig .* not found|Unknown split",
        "a Hugging Face data set, subset or split of this name does not exist",
        "check `huggingface`, `subset` and `split`; `optional = true` skips a source that fails",
    ),
    _row(
        r"is not valid JSON|JSONDecodeError|ArrowInvalid|Error tokenizing data|DatasetGenerationError",
        "a source's file does not have the format of its suffix",
        "look at the file; `optional = true` skips the source",
    ),
    _row(
        r"is gzip although|can't decode byte 0x8b",
        "a text file is gzip-compressed",
        "unpack it and publish it again",
    ),
    _row(
        r"size mismatch for (.*\.)?(lm_head|embed_tokens)",
        "the adapter was saved with another vocabulary size",
        "load the adapter's tokenizer, resize the embeddings, then load the adapter",
    ),
    _row(
        r"Expected all tensors to be on the same device",
        "the model was spread over two GPUs",
        'keep it on one, as kchain\'s notebooks do: no device_map="auto"',
    ),
    _row(
        r"the loss is (nan|-?inf)|\bloss['\"]?: ?['\"]?nan|holds NaN|NaN or inf",
        "the training diverged",
        "lower `learning_rate`, add `warmup`, look at the longest and oddest examples",
    ),
    _row(
        r"\bpad[ _]id\b.{0,20}(wanted|is|was)\b|has id \d+, the chain says|pads with",
        "the pad token is not the chain's; such an adapter answers gibberish",
        "set `eos_token` and `eos_id` in [model] to the base tokenizer's, and train the phase again",
    ),
    _row(
        r"a step takes .* where .* planned",
        "training crawled, and stopped itself to save quota",
        "check that it ran on the planned GPU; else raise `step_seconds`, or lower `max_length`",
    ),
    _row(
        r"session's time is nearly over|CANCEL_ACKNOWLEDGED|time ?limit|timed? ?out after|exceeded the .*run ?time",
        "the session reached its time limit, or was stopped",
        "fewer `max_examples` or `epochs`, or a larger `session_timeout` (12h at most)",
    ),
    _row(
        r"unexpected keyword argument|cannot import name|No module named|ImportError|ModuleNotFoundError",
        "a library has another version than the notebook was made for",
        "keep internet on for the pinned versions; kchain render writes today's pins",
    ),
    _row(
        r"\b409\b|Conflict for url|ALREADY_EXISTS",
        "a conflict on Kaggle: a running version, a title in use, or a data set being processed",
        "wait until nothing runs and the data set is ready, check the title, and repeat the command",
    ),
    _row(
        r"useruser|gibberish",
        "the model never learned to stop: the end was masked, or the pad token wrong",
        "check the pad id of every adapter (kchain status), and train the first wrong one again",
    ),
    _row(
        r"got no figure: ",
        "a gate's figure is missing; its line says why",
        "set it only in [gates] of phases that have the figure, give the session more time, or use fewer or "
        "shorter [samples]",
    ),
    _row(
        r"forgotten: wanted",
        "part of what an earlier phase learned was forgotten",
        "a lower `learning_rate`, fewer `epochs`, some examples of earlier phases, or a larger `max_forgotten`",
    ),
    _row(
        r"answers that end by themselves: wanted",
        "the model does not stop, or answers need more tokens",
        "raise `tokens` in [samples] if samples are truncated (kchain status --html); else check the pad id, "
        "and that `max_length` does not truncate the data's answers",
    ),
    _row(
        r"style separation: wanted",
        "answers of the styles have similar lengths, or were truncated",
        "more examples per style, trained `[tokens]`, more `tokens` in [samples], more `epochs`",
    ),
    _row(
        r"token accuracy|loss at the end|fall of the loss|validation loss",
        "the model learned less than its gate asks for",
        "more `epochs` or examples, another `learning_rate`, or a gate that fits the data",
    ),
)


def advise(text: str) -> Advice | None:
    """Advice on a log, a failure message or an error; None where nothing in it is known.

    What the notebook itself said when it stopped counts first, then the traceback that ended it, then everything else:
    a log is full of warnings that ended nothing.
    """
    said = _said(text)
    if said is not None:
        return said
    texts = (failing_cell(text) or "", text)
    return next((advice for part in texts for pattern, advice in TABLE if pattern.search(part)), None)


def _said(text: str) -> Advice | None:
    """The last `failed` event of a log, where it carries a cure of its own."""
    for found in reversed(_EVENT.findall(text)):
        try:
            event = from_json(found)
        except ValueError:
            continue
        reason, cure = event.get("reason"), event.get("cure")
        if isinstance(reason, str) and isinstance(cure, str) and "traceback" not in cure:
            return Advice(reason, cure)
    return None


def failing_cell(log: str) -> str | None:
    """The last traceback in a log, without colours, shortened in the middle; None where there is none.

    Args:
        log: plain text, or the JSON array of log events as Kaggle stores it.
    """
    text = "\n".join(line.text for line in lines_of(log)) if log.lstrip().startswith("[{") else log
    lines = [_COLOURS.sub("", line).rstrip() for line in text.splitlines()]
    found = _of_cell(lines) or _plain(lines)
    if len(found) > _MOST_LINES:
        cut = len(found) - _MOST_LINES
        found = [*found[:_HEAD], f"... {cut} lines ...", *found[_HEAD + cut :]]
    return "\n".join(found) or None


def _of_cell(lines: list[str]) -> list[str]:
    """IPython's traceback: from its first line to the line that names the error again, and what that one says."""
    for index in range(len(lines) - 1, -1, -1):
        match = _START.match(lines[index])
        if match:
            error = re.compile(rf"(?:[\w.]*\.)?{re.escape(match['error'])}(:|$)")
            ends = (_end_of_message(lines, at + 1) for at in range(index + 1, len(lines)) if error.match(lines[at]))
            return lines[index : next(ends, len(lines))]
    return []


def _end_of_message(lines: list[str], start: int) -> int:
    ends = (index for index in range(start, len(lines)) if not lines[index] or _NOISE.match(lines[index]))
    return next(ends, len(lines))


def _plain(lines: list[str]) -> list[str]:
    """Python's own traceback: up to the first line that is not indented, and what that one says."""
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].endswith(_PLAIN):
            last = next(
                (at for at in range(index + 1, len(lines)) if lines[at] and lines[at][0] != " "), len(lines) - 1
            )
            return lines[index : _end_of_message(lines, last + 1)]
    return []
