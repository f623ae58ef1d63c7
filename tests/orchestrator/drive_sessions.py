"""Worlds whose first phase takes several sessions, and what was pushed in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from drive_model import World

from kchain.bundle import Continuation, continuation_of
from kchain.errors import QuotaUsedUp
from kchain.orchestrator.watch import watch

Maker = Callable[..., World]


def drive(world: World, **options: Any) -> None:
    watch(world.chain, world.target, world.listener, ports=world.ports, **options)


def pushed(world: World, phase: str = "one") -> list[Continuation | None]:
    """What each version of a phase went on from."""
    return [continuation_of(json.loads(version.source)) for version in world.service.kernels[world.chain.kernel(phase)]]


def told(world: World, phase: str = "one") -> list[tuple[int, str]]:
    """(session, kind of source) of each version of a phase; a first session has none."""
    return [(1, "") if each is None else (each.session, each.kind) for each in pushed(world, phase)]


def stop_after_session(world: World, session: int = 1) -> None:
    """Drive until that session has ended and the next push is refused for a while."""
    world.service.faults = [*[None] * session, QuotaUsedUp("pause here")]
    with pytest.raises(QuotaUsedUp):
        drive(world)
