"""Promises that hold in any weather: every schedule of faults, and any order of commands, deaths, outages and edits."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

from drive_model import Died, World, make_world, model_parts
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kchain.errors import Ambiguous, KchainError, PhaseFailed, PushRefused, SessionCap, Unreachable
from kchain.orchestrator.push import push
from kchain.orchestrator.watch import watch


def drive(world: World, **options: Any) -> None:
    watch(world.chain, world.target, world.listener, yes=True, ports=world.ports, **options)


def assert_sound(world: World) -> None:
    assert world.service.overlaps == []
    assert world.service.unbuilt == []
    assert world.kinds().count("pushed") == world.service.accepted


# Everything one push can meet, and everything its session can come to.
PUSHES: dict[str, Any] = {
    "accepted": None,
    "cap": SessionCap("full"),
    "lost": Ambiguous("lost"),
    "unanswered": (Ambiguous("unanswered"), "after"),
    "refused": PushRefused("no"),
}
ENDS = ("COMPLETE", "ERROR")
SCHEDULES = list(itertools.product(itertools.product(PUSHES, repeat=2), itertools.product(ENDS, repeat=2)))


def test_no_schedule_of_faults_breaks_a_promise(tmp_path: Path) -> None:
    """All 100 schedules of two pushes and two endings, each driven until it is done or has failed."""
    assert len(SCHEDULES) == 100
    for number, (pushes, ends) in enumerate(SCHEDULES):
        with model_parts():
            world = make_world(tmp_path / str(number), 1)
            world.service.faults = [PUSHES[name] for name in pushes]
            world.service.finals[world.chain.kernel("one")] = list(ends)
            for again in (False, True, True):
                try:
                    if again:
                        push(world.chain, "one", world.target, world.listener, yes=True, again=True, ports=world.ports)
                    drive(world)
                    break
                except PhaseFailed:
                    continue
            assert_sound(world)
            state = world.state("one")
            assert state.intent is None, (pushes, ends)
            assert (state.result is not None) or (state.failure is not None), (pushes, ends)


class Weather(RuleBasedStateMachine):
    """Any order of commands, deaths, outages, edits from outside and time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world = make_world(Path(self.folder.name), 2)
        self.parts = model_parts(self.world.service.points)
        self.parts.__enter__()
        self.edits = 0

    def teardown(self) -> None:
        """When the weather is calm again, the chain ends, or says what only a person can settle."""
        self.world.restarted()
        self.world.service.faults, self.world.service.read_faults = [], []
        try:
            drive(self.world)
            assert all(self.world.state(phase).result is not None for phase in ("one", "two"))
        except PhaseFailed as error:
            assert error.hint
        self.parts.__exit__(None, None, None)
        self.folder.cleanup()

    def attempt(self, run: Any) -> None:
        try:
            run()
        except (KchainError, Died):
            pass
        finally:
            self.world.restarted()

    @rule()
    def watches_once(self) -> None:
        self.attempt(lambda: drive(self.world, once=True))

    @rule(points=st.integers(1, 12))
    def dies_on_the_way(self, points: int) -> None:
        self.world.service.points.fatal = len(self.world.service.points.names) + points
        self.attempt(lambda: drive(self.world))

    @rule(phase=st.sampled_from(["one", "two"]))
    def pushes_again(self, phase: str) -> None:
        self.attempt(
            lambda: push(
                self.world.chain, phase, self.world.target, self.world.listener,
                yes=True, again=True, wait=False, ports=self.world.ports,
            )
        )  # fmt: skip

    @rule(seconds=st.sampled_from([0.5, 2.5, 10.0]))
    def waits(self, seconds: float) -> None:
        self.world.clock.sleep(seconds)

    @rule(name=st.sampled_from(sorted(PUSHES)))
    def next_push_meets(self, name: str) -> None:
        self.world.service.faults.append(PUSHES[name])

    @rule(count=st.integers(1, 3))
    def next_reads_fail(self, count: int) -> None:
        self.world.service.read_faults = [Unreachable("down") for _ in range(count)]

    @rule(phase=st.sampled_from(["one", "two"]))
    def next_session_fails(self, phase: str) -> None:
        self.world.service.finals.setdefault(self.world.chain.kernel(phase), []).append("ERROR")

    @precondition(lambda self: self.edits < 2)
    @rule(phase=st.sampled_from(["one", "two"]))
    def someone_edits_the_kernel(self, phase: str) -> None:
        versions = self.world.service.kernels.get(self.world.chain.kernel(phase), [])
        if not any(self.world.service.live(version) for version in versions):
            self.edits += 1
            self.world.service.accept(self.world.chain.kernel(phase), '{"cells": []}')

    @invariant()
    def no_two_sessions_of_a_kernel(self) -> None:
        assert self.world.service.overlaps == []

    @invariant()
    def no_phase_on_an_unfinished_parent(self) -> None:
        assert self.world.service.unbuilt == []

    @invariant()
    def every_version_is_ours_known_or_looked_for(self) -> None:
        open_intents = sum(state.intent is not None for state in self.world.states().values())
        known = self.world.kinds().count("pushed") + self.edits
        assert known <= self.world.service.accepted <= known + open_intents


TestWeather = Weather.TestCase
TestWeather.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
