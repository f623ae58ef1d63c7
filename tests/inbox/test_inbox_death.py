"""An inbox that dies at any moment: started again it loses no file, and trains and pushes nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drive_model import Died, ModelFolders, make_world, model_parts

from kchain.errors import Ambiguous, DriverLocked, NotNow, NotReviewed, PhaseFailed, QuotaUsedUp, Unreachable
from kchain.inbox import box as moving
from kchain.inbox import job as taking
from kchain.inbox import run as running
from kchain.inbox import train as training
from kchain.inbox.box import Box
from kchain.inbox.run import Inbox, Settled
from kchain.orchestrator.lock import driver_lock, only_one

# Deaths of one file's way, at points counted over a whole run; more would be a step that nobody thought about.
POINTS = 48
STEPS: tuple[tuple[Any, str], ...] = (
    (running, "take"), (running, "write_lines"), (running, "put"), (running, "land"), (running, "put_reason"),
    (running, "forget"), (taking, "hash_file"), (taking, "write_json"), (taking, "rename_folder"),
    (moving, "hash_file"), (moving, "flush"), (Box, "withdraw"),
)  # fmt: skip


def rows(word: str) -> str:
    return "".join(json.dumps({"p": f"{word} {n}", "c": f"The {word} is number {n}."}) + "\n" for n in range(20))


class Place:
    """An inbox on the model service, with a process that can die."""

    def __init__(self, root: Path) -> None:
        self.world = make_world(root, 2)
        self.box = Box(root / "box")
        self.box.prepare()
        self.done: list[Settled] = []

    def drop(self, name: str, text: str) -> None:
        (self.box.inbox / name).write_text(text, encoding="utf-8")

    def run(self, phase: str = "one") -> int:
        ports, pull = self.world.ports, self.world.service.pull

        def with_adapter(client: Any, ref: str, version: int, to: Path) -> Path:
            pull(client, ref, version, to)
            (to / "adapter").mkdir(exist_ok=True)
            (to / "adapter" / "adapter_model.safetensors").write_text(f"weights of {ref} {version}")
            return to

        object.__setattr__(ports, "pull", with_adapter)
        told = self.done.append
        return Inbox(self.box, self.world.chain.root, phase, None, self.world.listener, told, 0.0, ports).run(once=True)

    def outcomes(self) -> list[str]:
        return [settled.outcome for settled in self.done]

    def files(self) -> dict[str, list[str]]:
        """What lies in each folder."""
        folders = (self.box.inbox, self.box.archive, self.box.rejected, self.box.adapters)
        return {folder.name: sorted(path.name for path in folder.glob("*")) for folder in folders}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(tmp_path)
    points = made.world.service.points

    def with_points(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def reached(*arguments: Any, **named: Any) -> Any:
            points.reach(f"{name}:before")
            found = step(*arguments, **named)
            points.reach(f"{name}:after")
            return found

        return reached

    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, with_points(name, getattr(owner, name)))
    for module in (running, training):
        monkeypatch.setattr(module, "BundleFolders", ModelFolders)
    with model_parts(points):
        made.world.review("one")
        points.names.clear()
        yield made


def test_the_points_of_a_file_are_known(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    assert place.run() == 0
    names = place.world.service.points.names
    order = [
        name for name in names if name in ("take:before", "push:after", "land:after", "put:after", "forget:before")
    ]
    assert order == ["take:before", "push:after", "land:after", "put:after", "forget:before"]
    assert len(names) == POINTS, names


@pytest.mark.parametrize("fatal", range(1, POINTS + 1))
def test_death_at_any_point_loses_no_file_and_trains_none_twice(place: Place, fatal: int) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.world.service.points.fatal = fatal
    with pytest.raises(Died):
        place.run()
    place.world.restarted()
    assert place.run() == 0
    assert place.world.service.accepted == 1
    found = place.files()
    assert found.pop("adapters")[0].startswith("x-")
    assert found == {"inbox": [], "archive": ["x.jsonl"], "rejected": []}
    assert (place.box.archive / "x.jsonl").read_text() == rows("cat")
    assert sorted(path.name for path in place.box.state.iterdir()) == ["lock"]


@pytest.mark.parametrize("fatal", range(1, 26))
def test_death_while_a_file_is_rejected_leaves_it_rejected_with_its_reason(place: Place, fatal: int) -> None:
    place.drop("x.jsonl", rows("cat") + '{"other": 1\n' * 60)
    place.world.service.points.fatal = fatal
    try:
        assert place.run() == 1
    except Died:
        place.world.restarted()
        place.run()
    rejected = ["x.jsonl", "x.jsonl.reason.txt"]
    assert place.files() == {"inbox": [], "archive": [], "rejected": rejected, "adapters": []}
    assert place.world.service.accepted == 0


def test_a_lost_answer_is_looked_for_and_nothing_is_pushed_twice(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.world.service.faults = [(Ambiguous("no answer"), "after")]
    assert place.run() == 0
    assert place.world.service.accepted == 1


@pytest.mark.parametrize("fault", [QuotaUsedUp("no hours left"), Unreachable("no route")])
def test_what_is_not_possible_now_leaves_the_file_where_it_is(place: Place, fault: Exception) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.world.service.faults = [fault]
    place.world.service.read_faults = [fault] if isinstance(fault, Unreachable) else []
    with pytest.raises(type(fault)):
        place.run()
    assert place.files()["inbox"] == ["x.jsonl"]
    assert place.run() == 0
    assert place.outcomes() == ["trained"]
    assert place.world.service.accepted == 1


def test_the_same_content_is_trained_once_whatever_it_is_called(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.run()
    place.drop("x.jsonl", rows("cat"))
    place.run()
    place.drop("y.jsonl", rows("cat"))
    place.run()
    assert place.outcomes() == ["trained", "already trained", "already trained"]
    assert {settled.adapter for settled in place.done} == {place.done[0].adapter}
    assert place.files()["archive"] == ["x.jsonl", "y.jsonl"]
    assert place.world.service.accepted == 1


def test_the_same_content_is_trained_again_when_the_phase_has_changed(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.run()
    name = place.world.chain.name and next(iter(place.world.states().keys() - {"one"}))
    ModelFolders.code[name] = "a newer kchain"
    place.drop("x.jsonl", rows("cat"))
    place.run()
    ModelFolders.salt[name] = "another learning rate"
    place.drop("x.jsonl", rows("cat"))
    place.run()
    assert place.outcomes() == ["trained", "already trained", "trained"]
    assert len(place.files()["adapters"]) == 2


def test_a_run_that_failed_rejects_the_file_and_dropping_it_again_tries_again(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    service = place.world.service
    ref = next(f"someone/model-phase-one-inbox-{moving.hash_file(path)[:10]}" for path in place.box.inbox.iterdir())
    service.finals = {ref: ["ERROR"]}
    assert place.run() == 1
    reason = (place.box.rejected / "x.jsonl.reason.txt").read_text()
    assert "ended with ERROR" in reason
    assert "put the file into inbox/ again" in reason
    assert "kchain push" not in reason
    (place.box.rejected / "x.jsonl").rename(place.box.inbox / "x.jsonl")
    assert place.run() == 0
    assert service.accepted == 2


def test_three_runs_that_fail_in_a_row_stop_the_inbox(place: Place) -> None:
    for number in range(5):
        place.drop(f"{number}.jsonl", rows(f"cat {number}"))
        ref = f"someone/model-phase-one-inbox-{moving.hash_file(place.box.inbox / f'{number}.jsonl')[:10]}"
        place.world.service.finals[ref] = ["ERROR"]
    with pytest.raises(PhaseFailed, match="3 runs in a row failed"):
        place.run()
    assert place.world.service.accepted == 3
    assert len(place.files()["inbox"]) == 2


def test_a_phase_that_nobody_reviewed_trains_nothing(place: Place) -> None:
    place.world.edit("one", "another learning rate")
    place.drop("x.jsonl", rows("cat"))
    with pytest.raises(NotReviewed) as told:
        place.run()
    assert "kchain review one" in told.value.hint
    assert place.files()["inbox"] == ["x.jsonl"]


def test_a_phase_waits_for_the_phases_that_it_builds_on(place: Place) -> None:
    place.world.review("two")
    place.drop("x.jsonl", rows("cat"))
    with pytest.raises(NotNow, match="builds on one"):
        place.run("two")
    place.world.service.accept(place.world.chain.kernel("one"), "by hand")
    assert place.files()["inbox"] == ["x.jsonl"]


def test_one_kchain_works_on_an_inbox_and_one_drives_the_chain(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    with only_one(place.box.state / "lock", "taken"), pytest.raises(DriverLocked, match="works on this inbox"):
        place.run()
    with driver_lock(place.world.chain.root), pytest.raises(DriverLocked, match="drives this chain"):
        place.run()
    assert place.run() == 0


def test_a_file_that_is_deleted_while_it_trains_is_archived_all_the_same(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.world.clock.on_tick = lambda: (place.box.inbox / "x.jsonl").unlink(missing_ok=True)
    place.run()
    assert (place.box.archive / "x.jsonl").read_text() == rows("cat")


def test_a_file_that_changes_while_it_trains_is_another_file(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.world.clock.on_tick = lambda: place.drop("x.jsonl", rows("dog"))
    place.run()
    assert place.outcomes() == ["trained", "trained"]
    assert {path.read_text() for path in place.box.archive.iterdir()} == {rows("cat"), rows("dog")}


def test_an_adapter_that_was_deleted_is_fetched_again(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.run()
    import shutil

    for folder in (place.box.adapters, place.world.chain.root / "runs"):
        shutil.rmtree(folder)
    place.drop("x.jsonl", rows("cat"))
    place.run()
    assert place.outcomes()[-1] == "already trained"
    assert len(place.files()["adapters"]) == 1
