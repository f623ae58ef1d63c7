"""What linting finds, and the rules about notebooks; those about metadata stand in `kchain.kernel_metadata.rules`."""

from __future__ import annotations

from dataclasses import dataclass

from kchain.kernel_metadata import Rule, Severity


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        rule: its id, such as KC401.
        where: file and key, or cell and line.
        message: what is wrong there.
        reason: why it goes wrong on Kaggle.
        cure: what to do about it.
    """

    rule: str
    severity: Severity
    where: str
    message: str
    reason: str
    cure: str


def finding(rule: Rule, where: str, message: str) -> Finding:
    """A rule broken in one place."""
    return Finding(rule.id, rule.severity, where, message, rule.reason, rule.cure)


NO_METADATA = Rule(
    "KC100",
    "error",
    "Kaggle's client reads kernel-metadata.json first, and sends nothing without it.",
    "Write one; `kaggle kernels init` makes an empty one.",
)
NO_NOTEBOOK = Rule(
    "KC201",
    "error",
    "Kaggle cannot run a notebook that is no notebook.",
    "Put a notebook there, saved by the editor it comes from, or name the right file in code_file.",
)
NO_KERNELSPEC = Rule(
    "KC202",
    "error",
    "Kaggle runs notebooks with papermill, which stops with 'No kernel name found in notebook'.",
    'Put "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"} into the metadata.',
)
TOO_LARGE = Rule(
    "KC203",
    "error",
    "Kaggle takes sources up to 1 MiB, counted as its client sends them: ASCII JSON without outputs.",
    "Move data into a Kaggle data set, and long code into fewer cells.",
)
NOT_PYTHON = Rule("KC204", "error", "The session ends at this cell.", "Correct the cell.")
NO_GPU = Rule(
    "KC301",
    "error",
    "Training on Kaggle's CPU takes days, and a session ends after 12 h.",
    'Write "enable_gpu": true and name a machine_shape.',
)
NO_INTERNET = Rule(
    "KC302",
    "error",
    "Without internet pip finds nothing, and a failing !pip does not even stop the notebook.",
    'Write "enable_internet": true, or attach the wheels as a data set and install with --no-index.',
)
AUTO_DEVICE = Rule(
    "KC303",
    "error",
    "On a machine with several GPUs this spreads the layers over all of them: steps wait for each other (23.5 s in "
    "place of 5 s was measured), and trainers refuse or wrap the model.",
    'Load with device_map={"": 0}, or set CUDA_VISIBLE_DEVICES=0 first.',
)
PAD_GUARD = Rule(
    "KC401",
    "error",
    "Qwen tokenizers come with a pad token (151654), so the guard never acts and the model learns gibberish.",
    "Set it without asking: tokenizer.pad_token = tokenizer.eos_token, and mask padding by length.",
)
MERGE_4BIT = Rule(
    "KC402",
    "error",
    "A 4-bit weight has no room for a LoRA update: merging rounds most of it away.",
    "Load the base in half or full precision, merge, and quantize afterwards.",
)
SECRET = Rule(
    "KC501",
    "error",
    "A notebook is stored on Kaggle with all its versions; a secret in it is given away for good.",
    "Take it out, revoke it, and make a new one.",
)
