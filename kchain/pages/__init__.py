"""Pages for people: one HTML file each that needs nothing else, all in one style, light and dark, wide and narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kchain import files
from kchain.errors import InputError


def render(part: str, template: str, **values: Any) -> str:
    """A page from a template of a part of kchain, such as "data"; whatever enters it is escaped.

    `{% include "style.css.jinja" %}` gives every page the same style.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loader = ChoiceLoader([PackageLoader(f"kchain.{part}", "."), PackageLoader("kchain.pages", ".")])
    environment = Environment(
        loader=loader, undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values)


def write(path: Path, page: str) -> None:
    """Write a page; it is whole or not there.

    Raises:
        InputError: it cannot be written there.
    """
    try:
        files.write(path, page.encode(errors="replace"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}", "choose another place") from None
