"""The session of an export on the target: the functions of `kchain export`, one stage each."""

from __future__ import annotations

import shutil
from typing import Any

from kchain.errors import need
from kchain.runtime.contract import EXPORT
from kchain.runtime.failure import emit
from kchain.units import size
from kchain.uses.companions import read_json
from kchain.uses.subject import UseSession


def start(parameters: dict[str, Any], bundle: str) -> Exports:
    """Begins a session; from now on `kchain-result.json` tells the truth, even if the machine dies."""
    return Exports(parameters, bundle)


class Exports(UseSession):
    """The chain in every format that was asked for, each in a folder of its own."""

    def export(self) -> None:
        """Writes one format after the other."""
        with self._stage("export"):
            shutil.rmtree(self.paths.working / EXPORT, ignore_errors=True)
            sizes = {form: self._write(form) for form in self.table["formats"]}
            self.result.metrics = {"bytes": sizes}
            self.result.found = ", ".join(f"{form} {size(count)}" for form, count in sizes.items())

    def _write(self, form: str) -> int:
        from kchain.uses.export import export

        self._check_time(f"what comes before {form}")
        place = self.paths.working / EXPORT / form
        made = export(self.subject, form, self.table["type"], place, force=False, in_folder=True)
        emit("exported", format=form, place=place.relative_to(self.paths.working).as_posix(), bytes=made.bytes)
        return made.bytes

    def _check_task(self) -> None:
        if "gguf" in self.table["formats"]:
            need("export", "gguf")
            from kchain.uses.gguf import read_shape

            read_shape(read_json(self.subject.base / "config.json"))

    def _shorter(self) -> str:
        return "raise session_timeout, or name fewer formats in export.formats"
