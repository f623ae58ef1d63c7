"""Planted faults, one a subsystem, and the tests that find each: `python benchmarks/faults.py [--tree DIR] [NAME ...]`.

Each fault is a small change of one line or a few. It is made in a copy of the tree, and the tests named beside it are
run there until three have failed; those that pass without the fault have found it. A fault that none finds is exit
code 1.

A fault's old text says where it belongs, whatever the file is called: exactly one file of kchain must hold it. With
--tree another checkout is tried, an older one for example; what it does not hold is left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Imported once; every run of tests is forked from here.
HEAVY = (
    "numpy",
    "torch",
    "transformers",
    "peft",
    "kagglesdk",
    "hypothesis",
    "pydantic",
    "jinja2",
    "nbformat",
    "requests",
)


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    Attributes:
        name: what goes wrong.
        old, new: the text, and what takes its place.
        tests: the name of a test file; a colon and words select tests of it by their names.
    """

    name: str
    old: str
    new: str
    tests: str


FAULTS = (
    Fault(
        "an edit by someone else is taken for our own push",
        "if seen.kernel is not None and seen.kernel > (intent.before or 0):",
        "if seen.kernel is not None and seen.kernel < (intent.before or 0):",
        "test_decide_rows.py",
    ),
    Fault(
        "what was not reviewed is pushed",
        "    if seen.bundle not in state.reviewed:\n",
        "    if not state.reviewed and not seen.bundle:\n",
        "test_decide_rows.py",
    ),
    Fault(
        "a checkpoint's data set is not waited for",
        "    if seen.dataset is not None:\n        return _wait(",
        "    if seen.dataset is not None:\n        return None\n        return _wait(",
        "test_decide_sessions.py",
    ),
    Fault(
        "the intent is written after the push",
        '            self.journal.append(phase, "intent", kept=snapshot.kept, before=action.before, **tells)\n'
        "            try:\n                pushed = client.push(snapshot.folder, snapshot.timeout)\n",
        "            try:\n                pushed = client.push(snapshot.folder, snapshot.timeout)\n"
        '                self.journal.append(phase, "intent", kept=snapshot.kept, before=action.before, **tells)\n',
        "test_drive_crash.py",
    ),
    Fault(
        "an event of the journal does not wait for the disk",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = OFF",
        "test_drive_journal.py",
    ),
    Fault(
        "a file gets its name before its bytes are on the disk",
        "            file.flush()\n            os.fsync(file.fileno())\n        partial.replace(path)",
        "            file.flush()\n        partial.replace(path)",
        "test_files.py",
    ),
    Fault(
        "the session's time-out is no part of what was reviewed",
        '_digest({"cells": cells, "metadata": dict(metadata), "timeout": timeout})',
        '_digest({"cells": cells, "metadata": dict(metadata)})',
        "test_bundle_folder.py",
    ),
    Fault(
        "only a missing pad token is replaced",
        '    tokenizer.pad_token = pad["token"]\n    check(',
        '    if tokenizer.pad_token is None:\n        tokenizer.pad_token = pad["token"]\n    check(',
        "test_runtime_chat.py",
    ),
    Fault(
        "labels are masked by the id of the pad token",
        "    return Encoded(np.array(ids, dtype=np.int32), np.array(labels, dtype=np.int32))",
        "    labels = [IGNORED if label == ids[-1] else label for label in labels]\n"
        "    return Encoded(np.array(ids, dtype=np.int32), np.array(labels, dtype=np.int32))",
        "test_runtime_encode.py",
    ),
    Fault(
        "an adapter is merged without its scale",
        'LowRank(adapter, name, b, lora["alpha"] / lora["r"])',
        "LowRank(adapter, name, b, 1.0)",
        "test_runtime_merge.py",
    ),
    Fault(
        "adapters are merged last to first",
        "    for adapter in adapters:\n        own = _adapter_shapes(adapter)",
        "    for adapter in reversed(adapters):\n        own = _adapter_shapes(adapter)",
        "test_runtime_tokens.py:fp64",
    ),
    Fault(
        "a resumed epoch has another order",
        'random.Random(f"{self.seed}/{epoch}").shuffle(shuffled)',
        "random.Random(id(self)).shuffle(shuffled)",
        "test_runtime_order.py",
    ),
    Fault(
        "a Kaggle token is printed",
        'r"\\bKG[A-Z]{2}_[A-Za-z0-9_-]+"',
        'r"\\bKG[A-Z]{2}=[A-Za-z0-9_-]+"',
        "test_client_redact.py",
    ),
    Fault(
        "two drivers at once",
        'with only_one(root / LOCK, "another kchain drives this chain"):',
        'with only_one(root / f"{LOCK}.{os.getpid()}", "another kchain drives this chain"):',
        "test_drive_lock.py",
    ),
    Fault(
        "the server takes a push beside a running version where it must answer 409",
        'if active and profile.on_running == "conflict":',
        'if active and profile.on_running == "refuse":',
        "test_server_push.py:supersede",
    ),
    Fault(
        "one session more than the cap",
        'row["n"] >= cap:',
        'row["n"] > cap:',
        "test_server_push.py:caps",
    ),
    Fault(
        "the linter overlooks `pad_token or eos_token`",
        "return isinstance(node.value.op, ast.Or) and _is_pad(node.value.values[0])",
        "return isinstance(node.value.op, ast.And) and _is_pad(node.value.values[0])",
        "test_bundle_lint.py:pad",
    ),
    Fault(
        "a gate asks the wrong way round",
        '({fall:.1%})", fall >= limit)',
        '({fall:.1%})", fall <= limit)',
        "test_client_gates.py",
    ),
    Fault(
        "a default of the phase files moves",
        "epochs: int = Field(3, ge=1",
        "epochs: int = Field(2, ge=1",
        "test_docs.py",
    ),
    Fault(
        "a name from outside leaves its folder",
        ' or ".." in parts or ',
        " or ",
        "test_server_parts.py",
    ),
    Fault(
        "the first event after a cut stream is lost",
        "                if number > self._seen:",
        "                if number > self._seen + 1:",
        "test_drive_report.py",
    ),
)


def main() -> int:
    """Print a table of faults and what found them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only faults whose name holds one of these words")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to try [default: this one]")
    asked = parser.parse_args()
    faults = [fault for fault in FAULTS if not asked.words or any(word in fault.name for word in asked.words)]
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        return _try(Path(place), asked.tree.resolve(), faults)


def _try(copy: Path, tree: Path, faults: list[Fault]) -> int:
    for name in ("kchain", "tests", "docs", "benchmarks"):
        shutil.copytree(tree / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (*tree.glob("*.md"), *tree.glob("*.toml"), *tree.glob("*.txt"), tree / "Makefile"):
        shutil.copy(file, copy)
    for name in HEAVY:
        importlib.import_module(name)
    missed = 0
    for fault in faults:
        files = [file for file in (copy / "kchain").rglob("*.py") if fault.old in file.read_text("utf-8")]
        if len(files) != 1:
            print(f"{fault.name}: its text stands in {len(files)} files", flush=True)
            missed += tree == ROOT
            continue
        text = files[0].read_text("utf-8")
        files[0].write_text(text.replace(fault.old, fault.new, 1), "utf-8")
        name, _, words = fault.tests.partition(":")
        failed = _run(copy, [str(path) for path in (copy / "tests").rglob(name)], words)
        files[0].write_text(text, "utf-8")
        sound = _run(copy, failed) if failed else []
        found = [test.partition("::")[2] for test in failed if test not in sound]
        missed += not found
        told = ", ".join(found) or "NOTHING FOUND IT"
        print(f"{fault.name} ({files[0].relative_to(copy / 'kchain')}): {told}", flush=True)
    print(f"{len(faults) - missed} of {len(faults)} found")
    return int(missed > 0)


def _run(copy: Path, chosen: list[str], words: str = "") -> list[str]:
    """The first tests that fail, three at most; run in a fork of this process."""
    if not chosen:
        return []
    reader, writer = os.pipe()
    if os.fork() == 0:
        with open(writer, "w", encoding="utf-8") as out:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            json.dump(_failures(copy, chosen, words), out)
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as told:
        found: list[str] = json.load(told)
    os.wait()
    return found


class _Listener:
    def __init__(self) -> None:
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and report.nodeid not in self.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(f"{report.nodeid}::(cannot be imported)")


def _failures(copy: Path, chosen: list[str], words: str) -> list[str]:
    import pytest

    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)
    sys.path.insert(0, str(copy))
    sys.dont_write_bytecode = True  # a file that was changed back within a second would be taken for the changed one
    listener = _Listener()
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow and not long", "--maxfail=3"]
    pytest.main([*options, *(["-k", words] if words else []), *chosen], plugins=[listener])
    return listener.failed


if __name__ == "__main__":
    sys.exit(main())
