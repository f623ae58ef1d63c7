"""The generated pages say what the code says, and every command is documented."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path, text", list(generator().pages()), ids=lambda value: getattr(value, "name", ""))
def test_a_generated_page_is_what_the_code_says_now(path: Path, text: str) -> None:
    assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: run `make docs`"


def test_every_key_of_the_phase_files_is_explained() -> None:
    for heading, (_, table) in generator().TABLES.items():
        for name, field in table.model_fields.items():
            known = field.description or name in {"data", "lora", "tokens", "training", "samples", "gates"}
            assert known, f"{heading}: {name} has no description"


def anchors(page: Path) -> set[str]:
    """What a link may name behind # on a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for link, heading in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
            if "://" not in link:
                there = page.parent / link if link else page
                assert there.exists(), f"{page.name}: {link} leads nowhere"
                assert not heading or heading in anchors(there), f"{page.name}: {link} has no heading #{heading}"


def test_files_that_the_pages_name_are_there() -> None:
    for page in [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for name in re.findall(r"`((?:kchain|tests|benchmarks|docs)/[\w/.-]+)`", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists() or "NAME" in name, f"{page.name}: there is no {name}"
