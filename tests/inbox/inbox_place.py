"""An inbox on the model service, whose process can die between any two of its steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from drive_model import Points, make_world, model_parts
from slugify import slugify

from kchain.inbox import box as moving
from kchain.inbox import loop as running
from kchain.inbox.box import Box
from kchain.inbox.examples import title_of
from kchain.inbox.loop import Handled, Inbox
from kchain.runtime.files import hash_file

STEPS: tuple[tuple[Any, str], ...] = (
    (running, "take"), (running, "write_lines"), (running, "put"), (running, "land"), (running, "put_reason"),
    (running, "forget"), (moving, "hash_file"), (moving, "write_json"), (moving, "rename_folder"),
    (moving, "put_in_place"), (Box, "withdraw"),
)  # fmt: skip


def rows(word: str) -> str:
    return "".join(json.dumps({"p": f"{word} {n}", "c": f"The {word} is number {n}."}) + "\n" for n in range(20))


class Place:
    """An inbox on the model service, with a process that can die."""

    def __init__(self, root: Path) -> None:
        self.world = make_world(root, 2)
        self.box = Box(root / "box")
        self.box.prepare()
        self.done: list[Handled] = []

    def drop(self, name: str, text: str) -> None:
        (self.box.inbox / name).write_text(text, encoding="utf-8")

    def run(self, phase: str = "one", *, once: bool = True, told: Callable[[Handled], None] | None = None) -> int:
        ports, pull = self.world.ports, self.world.service.pull

        def with_adapter(client: Any, ref: str, version: int, to: Path) -> Path:
            pull(client, ref, version, to)
            (to / "adapter").mkdir(exist_ok=True)
            (to / "adapter" / "adapter_model.safetensors").write_text(f"weights of {ref} {version}")
            return to

        object.__setattr__(ports, "pull", with_adapter)
        told = told or self.done.append
        inbox = Inbox(self.box, self.world.chain.root, phase, None, self.world.listener, told, 0.0, ports)
        return inbox.run(once=once)

    def run_name(self, name: str = "x.jsonl") -> str:
        """What the run of a dropped file is called."""
        return f"one-inbox-{hash_file(self.box.inbox / name)[:10]}"

    def kernel(self, name: str = "x.jsonl") -> str:
        """The kernel of a dropped file's run."""
        title = self.world.chain.phase("one").title
        return f"someone/{slugify(title_of(title, 'one', hash_file(self.box.inbox / name)))}"

    def fails(self, name: str = "x.jsonl") -> None:
        """The next session of a dropped file ends with an error."""
        self.world.service.finals[self.kernel(name)] = ["ERROR"]

    def outcomes(self) -> list[str]:
        return [settled.outcome for settled in self.done]

    def files(self) -> dict[str, list[str]]:
        """What lies in each folder."""
        folders = (self.box.inbox, self.box.archive, self.box.rejected, self.box.adapters)
        return {folder.name: sorted(path.name for path in folder.glob("*")) for folder in folders}


@contextmanager
def with_points(points: Points) -> Iterator[None]:
    """Points at which the process can die before and after each of the steps, and quick bundles."""

    def around(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def reached(*arguments: Any, **named: Any) -> Any:
            points.reach(f"{name}:before")
            found = step(*arguments, **named)
            points.reach(f"{name}:after")
            return found

        return reached

    with pytest.MonkeyPatch.context() as patch, model_parts(points):
        for owner, name in STEPS:
            patch.setattr(owner, name, around(name, getattr(owner, name)))
        yield
