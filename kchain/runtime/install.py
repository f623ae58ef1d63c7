"""The packages of the environment, installed before anything imports them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence

from .failure import Stop


def prepare(install: Sequence[str], uninstall: Sequence[str]) -> None:
    """Removes, then adds packages with pip; does nothing for empty lists.

    Raises:
        Stop: pip failed; its own words stand above in the log.
    """
    if uninstall:
        _pip("uninstall", "--yes", *uninstall)
    if install:
        _pip("install", "--no-input", *install)
    importlib.invalidate_caches()


def _pip(*words: str) -> None:
    # `!pip` in a cell would not stop the notebook when it fails; check=True does.
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        raise Stop(
            f"pip {' '.join(words)} failed with status {error.returncode}",
            "turn internet on for this phase, or pin a version that the image's Python has",
        ) from error
