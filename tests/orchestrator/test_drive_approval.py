"""What `push --yes` approves, what stays approved, and what a dry run warns of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from drive_model import ModelFolder, World, make_world, model_parts
from drive_service import OWNER

from kchain.client.target import Target
from kchain.errors import InputError, PushRefused
from kchain.orchestrator.driving.folders import bundle_folders, record_rehearsal
from kchain.orchestrator.push import preview, push


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A chain that nobody has looked at."""
    with model_parts():
        yield make_world(tmp_path, 1)


def test_what_the_target_refused_stays_approved(world: World) -> None:
    world.service.faults.append(PushRefused("no such owner"))
    with pytest.raises(PushRefused):
        push(world.chain, "one", world.target, world.listener, yes=True, ports=world.ports)
    assert len(world.state("one").reviewed) == 1
    done = push(world.chain, "one", world.target, world.listener, again=True, ports=world.ports)
    assert done.version == 1, "without --yes and without a review"


def test_what_does_not_lint_is_not_approved_by_yes(world: World) -> None:
    ModelFolder.lint_errors["one"] = ("KC101 somewhere: something",)
    with pytest.raises(InputError, match="does not lint"):
        push(world.chain, "one", world.target, world.listener, yes=True, ports=world.ports)
    assert world.state("one").reviewed == frozenset()


def test_a_dry_run_warns_of_code_that_was_never_rehearsed_where_it_would_cost_quota(world: World) -> None:
    kaggle = Target("kaggle", OWNER, world.chain.root)
    shown = preview(world.chain, "one", kaggle, yes=True, ports=world.ports)
    assert "kchain rehearse one" in shown.warning and "would push" in shown.verdict
    assert preview(world.chain, "one", world.target, yes=True, ports=world.ports).warning == ""
    record_rehearsal(world.chain, "one", bundle_folders(world.chain, kaggle, {})["one"].rendered.code_hash)
    assert preview(world.chain, "one", kaggle, again=True, ports=world.ports).warning == ""
