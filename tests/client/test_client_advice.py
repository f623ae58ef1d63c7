"""Advice for what goes wrong in the field, and the traceback of the cell that failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kchain.orchestrator.judging.advice import advise, failing_cell
from kchain.orchestrator.judging.judge import LOG, with_advice

# Message as the library words it -> a word of the cure.
FIELD = [
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.24 GiB. GPU 0 has 15.89 GiB", "accumulation"),
    ("nbclient.exceptions.DeadKernelError: Kernel died", "max_examples"),
    ("Your notebook tried to allocate more memory than is available. It has restarted.", "max_examples"),
    ("OSError: [Errno 28] No space left on device", "20 GB"),
    ("ValueError: Attempting to unscale FP16 gradients.", "fp32"),
    ("\"_amp_foreach_non_finite_check_and_unscale_cuda\" not implemented for 'BFloat16'", "precision"),
    ("ImportError: Found an incompatible version of torchao. Found version 0.10.0", "torchao"),
    ("ValueError: No kernel name found in notebook and no override provided.", "lint"),
    ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "NvidiaTeslaT4"),
    ("RuntimeError: No CUDA GPUs are available", "quota"),
    ("socket.gaierror: [Errno -3] Temporary failure in name resolution", "internet"),
    ("ConnectionError: Couldn't reach 'm-a-p/CodeFeedback' on the Hub (OfflineModeIsEnabled)", "internet"),
    ("the dataset ada/linux is not mounted: neither /kaggle/input/datasets/ada/linux nor", "push again"),
    ("FileNotFoundError: [Errno 2] No such file or directory: '/kaggle/input/linux/train.jsonl'", "push again"),
    ("DatasetNotFoundError: Dataset 'x/y' doesn't exist on the Hub or cannot be accessed.", "optional"),
    ("DatasetNotFoundError: Dataset 'x/y' is a gated dataset on the Hub. You must be authenticated", "open data set"),
    ("train.json is not valid JSON: Expecting value: line 3", "optional"),
    ("UnicodeDecodeError: 'utf-8' codec can't decode byte 0x8b in position 1", "unpack"),
    ("RuntimeError: size mismatch for lm_head.weight: copying a param with shape", "resize"),
    ("RuntimeError: Expected all tensors to be on the same device, but found cuda:0 and cuda:1", "device_map"),
    ("the loss is nan at step 120", "learning_rate"),
    ("{'loss': nan, 'grad_norm': nan}", "learning_rate"),
    ("tokenizer: <|im_end|> has id 151654, the chain says 151645", "eos_id"),
    ("pad id: wanted 151645, got 151654", "eos_id"),
    ("a step takes 23.5 s where 5 s were planned", "step_seconds"),
    ("CANCEL_ACKNOWLEDGED", "session_timeout"),
    ("TypeError: __init__() got an unexpected keyword argument 'tokenizer'", "pins"),
    ("409 Client Error: Conflict for url: https://api.kaggle.com/v1/", "wait"),
    ("useruseruseruser", "pad id"),
    ("token accuracy: wanted >= 75.0%, got 61.2%", "epochs"),
]


@pytest.mark.parametrize(("text", "word"), FIELD)
def test_each_failure_of_the_field_has_its_cure(text: str, word: str) -> None:
    advice = advise(f"some log before\n{text}\nand after")
    assert advice is not None
    assert word in advice.change
    assert advice.meaning


def test_nothing_known_is_no_advice() -> None:
    assert advise("") is None
    assert advise("step 50 of 400, loss 1.2, all is well") is None
    assert advise("ZeroDivisionError: division by zero") is None


def test_what_the_notebook_itself_said_counts_first() -> None:
    event = {"event": "failed", "stage": "data", "reason": "source bash: no row has the column cmd", "cure": "it has c"}
    log = f"CUDA out of memory\nkchain: {json.dumps(event)}\nTraceback (most recent call last):\n"
    advice = advise(log)
    assert advice is not None
    assert (advice.meaning, advice.change) == (event["reason"], event["cure"])


def test_an_event_without_a_real_cure_leaves_it_to_the_table() -> None:
    event = {"event": "failed", "reason": "RuntimeError: No CUDA GPUs", "cure": "read the traceback of the cell"}
    advice = advise(f"kchain: {json.dumps(event)}\nRuntimeError: No CUDA GPUs are available\n")
    assert advice is not None
    assert "quota" in advice.change


def test_the_traceback_counts_before_the_warnings_around_it() -> None:
    noise = "CUDA out of memory was met once, and got over\nSetting `pad_token_id` to `eos_token_id`:151645\n"
    ended = "ValueError    Traceback (most recent call last)\nCell In[3], line 1\n\nValueError: {}\n".format(
        "Attempting to unscale FP16 gradients."
    )
    advice = advise(f"{noise}{ended}\n{noise}")
    assert advice is not None
    assert "fp32" in advice.change


def test_a_warning_about_pad_tokens_is_no_finding() -> None:
    assert advise("Setting `pad_token_id` to `eos_token_id`:151645 for open-end generation.") is None


def test_a_damaged_event_does_not_matter() -> None:
    advice = advise('kchain: {"event": "failed", "reason": \nkchain: {"event": "failed" oops}\nCUDA out of memory')
    assert advice is not None
    assert "accumulation" in advice.change


RED = "\x1b[0;31m"
IPYTHON = f"""Executing Cell 2---------------------------------------
papermill.exceptions.PapermillExecutionError:
---------------------------------------------------------------------------
Exception encountered at "In [2]":
---------------------------------------------------------------------------
{RED}RuntimeError{RED}                              Traceback (most recent call last)
Cell In[2], line 5
      3 def g(x):
      4     raise RuntimeError('CUDA out of memory. Tried to allocate 3.24 GiB')
----> 5 f(1)

Cell In[2], line 4, in g(x)
      3 def g(x):
----> 4     raise RuntimeError('CUDA out of memory. Tried to allocate 3.24 GiB')

{RED}RuntimeError{RED}: CUDA out of memory. Tried to allocate 3.24 GiB
second line of the message

[NbConvertApp] Converting notebook __notebook__.ipynb to html
[NbConvertApp] Writing 281043 bytes to __results__.html
"""


def as_array(text: str) -> str:
    events = [{"stream_name": "stderr", "time": 1, "data": line} for line in text.splitlines(keepends=True)]
    return json.dumps(events)


@pytest.mark.parametrize("log", [IPYTHON, as_array(IPYTHON)])
def test_the_failing_cell_is_shown_without_colours_and_without_the_noise_around_it(log: str) -> None:
    cell = failing_cell(log)
    assert cell is not None
    lines = cell.splitlines()
    assert lines[0].startswith("RuntimeError ")
    assert lines[-2:] == ["RuntimeError: CUDA out of memory. Tried to allocate 3.24 GiB", "second line of the message"]
    assert "----> 5 f(1)" in lines
    assert "\x1b" not in cell
    assert "NbConvertApp" not in cell


@pytest.mark.parametrize("noise", ["[NbConvertApp] Converting", 'kchain: {"event": "x"}', "Ending Cell 2-----"])
def test_what_is_printed_right_behind_an_error_is_not_part_of_it(noise: str) -> None:
    log = f"KeyError      Traceback (most recent call last)\nCell In[1], line 1\n\nKeyError: 'x'\n{noise}\n"
    cell = failing_cell(log)
    assert cell is not None
    assert cell.splitlines()[-1] == "KeyError: 'x'"


def test_of_several_tracebacks_the_last_one_counts() -> None:
    first = "ValueError   Traceback (most recent call last)\nCell In[1], line 1\n\nValueError: recovered\n\n"
    cell = failing_cell(first + IPYTHON)
    assert cell is not None
    assert "recovered" not in cell


def test_a_plain_traceback_is_found_too() -> None:
    traceback = "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    f()\nKeyError: 'x'\n"
    log = f"noise\n{traceback}\nnoise\n"
    cell = failing_cell(log)
    assert cell is not None
    assert cell.splitlines()[-1] == "KeyError: 'x'"
    assert "noise" not in cell


def test_a_long_traceback_is_shortened_in_its_middle() -> None:
    frames = "".join(f"Cell In[1], line {number}, in f{number}()\n" for number in range(500))
    cell = failing_cell(f"RecursionError      Traceback (most recent call last)\n{frames}\nRecursionError: deep\n")
    assert cell is not None
    lines = cell.splitlines()
    assert len(lines) < 70
    assert lines[0].startswith("RecursionError")
    assert lines[-1] == "RecursionError: deep"
    assert any("lines ..." in line for line in lines)


@pytest.mark.parametrize("log", ["", "[]", "all is well\n", "[{", '[{"data": null}]'])
def test_a_log_without_a_traceback_has_none(log: str) -> None:
    assert failing_cell(log) is None


def test_a_traceback_that_breaks_off_is_shown_as_far_as_it_goes() -> None:
    cell = failing_cell("RuntimeError   Traceback (most recent call last)\nCell In[2], line 5\n----> 5 f(1)\n")
    assert cell is not None
    assert cell.endswith("----> 5 f(1)")


@pytest.mark.parametrize(
    ("log", "meaning"),
    [
        ("warning: No module named 'tensorboardX'\n", "while it evaluated the saved adapter"),
        ("torch.OutOfMemoryError: CUDA out of memory\n", "the GPU ran out of memory"),
    ],
)
def test_a_session_that_was_ended_while_it_judged_is_not_told_of_library_versions(
    tmp_path: Path, log: str, meaning: str
) -> None:
    (tmp_path / LOG).write_text(log, encoding="utf-8")
    reason = "the session was ended during evaluate: out of memory, out of time, or hung"
    error = with_advice("phase1 version 1 failed", reason, tmp_path)
    assert meaning in error.hint and "version" not in error.hint
