"""Where things lie in a session, and where Kaggle mounted what was attached."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .failure import Stop

# Folder of each kind of input in the layout of 2026; the older one has no such folder and no owner.
MOUNTS = {"dataset": "datasets", "kernel": "notebooks", "model": "models"}


@dataclass(frozen=True)
class Paths:
    """The folders of a session: `input` is read, `working` is kept as the output, `scratch` is not kept."""

    input: Path
    working: Path
    scratch: Path

    def mount(self, kind: str, ref: str) -> Path:
        """The folder of an attached input; both layouts are tried, nothing is walked. An empty folder is not an input.

        Args:
            kind: "dataset", "kernel" or "model".
            ref: owner/slug, or owner/model/framework/variation/version.

        Raises:
            Stop: it is in neither place.
        """
        _, _, without_owner = ref.partition("/")
        places = (self.input / MOUNTS[kind] / ref, self.input / without_owner)
        for place in places:
            if place.is_dir() and any(place.iterdir()):
                return place
        tried = " nor ".join(str(place) for place in places)
        raise Stop(
            f"the {kind} {ref} is not mounted: neither {tried} holds anything",
            f"attach the {kind} to the notebook and check its owner, its name and that this account may read it; "
            "if all of that is right, push again: Kaggle's first run with a new input may find it empty",
        )


def session_paths() -> Paths:
    """The folders under KCHAIN_KAGGLE_ROOT (default /kaggle), made where they are missing."""
    root = Path(os.environ.get("KCHAIN_KAGGLE_ROOT", "/kaggle"))
    paths = Paths(root / "input", root / "working", root / "temp")
    paths.working.mkdir(parents=True, exist_ok=True)
    paths.scratch.mkdir(parents=True, exist_ok=True)
    return paths


def refuse_gzip(path: Path) -> None:
    """Stops at a text file that is really gzip, as some object stores hand them out."""
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            raise Stop(f"{path} is gzip although its name says otherwise", f"unpack {path.name} and publish it again")
