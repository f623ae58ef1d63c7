"""An inbox that dies at any moment: started again it loses no file, and trains and pushes nothing twice."""

from __future__ import annotations

import pytest
from drive_model import Died
from inbox_place import Place, rows

from kchain.errors import Ambiguous

# Deaths of one file's way, at points counted over a whole run; more would be a step that nobody thought about.
POINTS = 46


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


@pytest.mark.parametrize("final", ["COMPLETE", "ERROR"])
@pytest.mark.parametrize("fatal", range(1, 42, 3))
def test_death_and_then_another_phase_file_still_trains_a_file_once(place: Place, fatal: int, final: str) -> None:
    place.drop("x.jsonl", rows("cat"))
    name, kernel = place.run_name(), place.kernel()
    place.world.service.points.names.clear()  # these read the file
    place.world.service.finals[kernel] = [final]
    place.world.service.points.fatal = fatal
    with pytest.raises(Died):
        place.run()
    place.world.restarted()
    for phase in ("one", name):
        place.world.edit(phase, "another learning rate")
    place.world.review("one")
    assert place.run() == (0 if final == "COMPLETE" else 1)
    assert place.world.service.accepted == 1
    assert [len(place.files()[folder]) for folder in ("inbox", "archive", "rejected")] == (
        [0, 1, 0] if final == "COMPLETE" else [0, 0, 2]
    )


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
