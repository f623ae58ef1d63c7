"""Shipped chains with phases added that use what phase 1 or phase 2 trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kchain.bundle import build
from kchain.phases import Chain, load_chain
from kchain.phases.init import make_project
from kchain.templates import parameters_of_phase
from kchain.templates.code import closure, read

FILES = {
    "judge": 'kind = "evaluate"\ntitle = "Is it better"\ndescription = "Asks."\nafter = "{after}"\n'
    '[evaluate]\ncheck = "contains"\nlimit = 3\nmax_tokens = 8\n',
    "make": 'kind = "export"\ntitle = "Made for others"\ndescription = "Makes."\nafter = "{after}"\n'
    '[export]\nformats = ["safetensors", "adapter"]\n',
    "say": 'kind = "generate"\ntitle = "What it says"\ndescription = "Answers."\nafter = "{after}"\n'
    '[generate]\nprompts = ["Hello!"]\nfile = "prompts.jsonl"\nmax_tokens = 8\n',
}
ENTRIES = {
    "judge": "kchain.uses.evaluate_session",
    "make": "kchain.uses.export_session",
    "say": "kchain.uses.chat_session",
}


def add_uses(root: Path, after: str, **more: str) -> Path:
    """Write the three phase files; `more` is added to the file of that name."""
    (root / "prompts.jsonl").write_text('{"prompt": "List the files"}\n', encoding="utf-8")
    for name, text in FILES.items():
        file = root / "phases" / f"{name}.toml"
        file.write_text(text.format(after=after) + more.get(name, ""), encoding="utf-8")
    return root


def use_chain(root: Path, example: str = "tiny", after: str = "phase2", **more: str) -> Chain:
    """A shipped chain with the three."""
    make_project(root, example, "someone")
    return load_chain(add_uses(root, after, **more))


def told(chain: Chain, phase: str) -> dict[str, Any]:
    """PARAMETERS of a phase's notebook, for the chain's own target."""
    from kchain.kernel_metadata import adapter_sources

    return parameters_of_phase(chain, phase, chain.target, adapter_sources(chain, phase, {}))


def carried(chain: Chain, phase: str) -> dict[str, str]:
    """The files of kchain that a notebook writes, by their path below kchain's folder."""
    found = {}
    for cell in build(chain, phase, chain.target, {}).notebook["cells"]:
        first, _, body = cell["source"].partition("\n")
        if first.startswith("%%writefile $KCHAIN/"):
            found[first.removeprefix("%%writefile $KCHAIN/")] = body
    return found


def needed(phase: str) -> dict[str, str]:
    """What it must carry: the modules that its session imports."""
    return {path: read(path) for path in closure(ENTRIES[phase])}


def result_of(chain: Chain, phase: str, **changes: Any) -> dict[str, Any]:
    """The result file that a session of this phase would leave, its lineage made up."""
    lineage = [{"phase": each.name, "sha256": each.name[-1] * 64} for each in chain.lineage(phase)]
    result = {"format": 1, "bundle": "b" * 64, "status": "complete", "pad_id": chain.model.eos_id, "lineage": lineage}
    return json.loads(json.dumps({**result, "metrics": {}, "outputs": {}, "found": "found", **changes}))  # type: ignore[no-any-return]
