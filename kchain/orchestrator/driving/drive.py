"""The loop of a driver: observe, decide, act, until a phase is where it is wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kchain.client.stream import Follower
from kchain.client.target import Target
from kchain.errors import KchainError, NotNow, PhaseFailed, RateLimited, Unreachable
from kchain.orchestrator.driving.act import Actor, Judging, Puller, pull_outputs
from kchain.orchestrator.driving.actions import Action, Done, Found, GiveUp, Push, Reporter, Wait, Wish
from kchain.orchestrator.driving.decide import decide, failure_error
from kchain.orchestrator.driving.folders import bundle_folders
from kchain.orchestrator.driving.observe import Observer
from kchain.orchestrator.journal.journal import Journal, Key
from kchain.orchestrator.journal.lock import driver_lock
from kchain.orchestrator.journal.state import PhaseState, goes_on
from kchain.orchestrator.judging.judge import judge
from kchain.phases import Chain

if TYPE_CHECKING:
    from kchain.client.client import Client

# Failed reads in a row that a driver which had already reached its target sits out.
PATIENCE = 40
# A data set takes seconds to minutes to be processed; after this many looks something is wrong.
_LOOKS = 400


class Clock:
    """Time, as a driver sees it."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Sleep, at most until `wake`."""
        self._woken.wait(seconds)
        self._woken.clear()

    def wake(self) -> None:
        """End the sleep of another thread."""
        self._woken.set()


def connect_to(target: Target) -> Client:
    """`client.connect`, imported when it is first needed."""
    from kchain.client.client import connect

    return connect(target)


@dataclass(frozen=True)
class Ports:
    """What a driver reaches the world with; tests put their own in."""

    connect: Callable[[Target], Client] = connect_to
    pull: Puller = pull_outputs
    judge: Judging = judge
    clock: Clock = field(default_factory=Clock)


class Driver:
    """Drives the phases of one chain on one target; made by `driving`, which holds the lock."""

    def __init__(self, chain: Chain, target: Target, journal: Journal, reporter: Reporter, ports: Ports) -> None:
        self.chain = chain
        self.target = target
        self.journal = journal
        self.reporter = reporter
        self.folders = bundle_folders(chain, target, journal.states())
        self._ports = ports
        self._clock = ports.clock
        self._observer = Observer(chain, journal, target.settle_seconds)
        self._actor = Actor(chain, target, journal, reporter, ports.pull, ports.judge)
        self._client: Client | None = None
        self._reached = False
        self._failed_reads = 0
        self._followed: tuple[str, int] | None = None
        self._follower: Follower | None = None

    def client(self) -> Client:
        """The connection to the target, made when first asked for."""
        if self._client is None:
            self._client = self._ports.connect(self.target)
        return self._client

    def states(self) -> Mapping[str, PhaseState]:
        return self.journal.states()

    def drive(self, phase: str, wish: Wish, *, until_pushed: bool = False, wait: bool = True) -> Action:
        """Bring a phase to where it is wanted.

        Args:
            until_pushed: stop after a push instead of at its result.
            wait: False: stop at the first thing that has to be waited for.

        Returns:
            Done, a Push or Found (`until_pushed`), or the Wait that was reached (`wait` False).

        Raises:
            KchainError: nothing more can be done until a person has acted.
        """
        folder = self.folders[phase]
        while True:
            states = self.states()
            at_hand = self._observer.at_hand(folder, states, wish, self._clock.now())
            try:
                seen = self._observer.look(self.client, folder, states, wish, at_hand)
                self._reached = self._reached or seen is not at_hand
                action = decide(phase, states.get(phase, PhaseState()), seen, wish)
                action = self._actor.act(self.client, folder, states, seen, action)
            except (Unreachable, RateLimited) as error:
                action = self._sit_out(error)
            else:
                self._failed_reads = 0
                if not (isinstance(action, Wait) and action.live):
                    self._stop_following()
            match action:
                case Done():
                    return action
                case GiveUp(reason):
                    raise reason
                case Push() | Found():
                    wish = Wish.FINISH
                    if until_pushed:
                        return action
                case Wait() if not wait:
                    return action
                case Wait():
                    self.reporter.waiting(phase, action.reason)
                    if action.live:
                        self._follow(phase)
                    self._clock.sleep(action.pause or self.target.poll_seconds)

    def fetch(self, ref: str, version: int, to: Path) -> None:
        """Fetch the outputs of any kernel version into a folder."""
        self._ports.pull(self.client(), ref, version, to)

    def judge(self, phase: str) -> None:
        """Judge outputs that are already here.

        Raises:
            PhaseFailed: they do not count; the journal says why.
        """
        state = self.states()[phase]
        self._actor.judge(phase, state)
        state = self.states()[phase]
        if state.checkpoint is not None and state.failure is None and not goes_on(state):
            # The last session that there may be: what it reached is the result.
            self._actor.judge(phase, state)
        failure = self.states()[phase].failure
        if failure is not None:
            raise failure_error(failure.error, failure.reason, failure.hint)

    def sleep(self) -> None:
        """One ordinary pause between two looks at the target."""
        self._clock.sleep(self.target.poll_seconds)

    def _sit_out(self, error: KchainError) -> Wait:
        """What an outage in the middle of the work calls for; a target that was never there is said at once."""
        self._failed_reads += 1
        # A local server that died is started again by connecting again.
        self._client = None
        if not self._reached or self._failed_reads > PATIENCE:
            raise error
        return Wait(f"{error.message}; asking again", error)

    def _follow(self, phase: str) -> None:
        version = self.states()[phase].version
        if version is None:
            return
        if self._followed != (phase, version.number):
            client, ref = self.client(), self.chain.kernel(phase)
            self._followed = (phase, version.number)
            self._follower = Follower(
                lambda: client.follow(ref, version.number),
                lambda event: self.reporter.event(phase, event),
                self._clock.wake,
            )
        if self._follower is not None:
            self._follower.ensure_running()

    def _stop_following(self) -> None:
        if self._follower is not None:
            # The last lines are on their way when the session is over.
            self._follower.finish(patience=2.0)
        self._follower = None


def wait_until_ready(driver: Driver, client: Client, ref: str, tell: Callable[[str], None]) -> None:
    """Sit out the processing of a data set that has just been made.

    Raises:
        PhaseFailed: the target could not process it.
        NotNow: it takes too long.
    """
    for _ in range(_LOOKS):
        status = client.dataset_status(ref)
        if status == "READY":
            return
        if status in ("FAILED", "DELETED"):
            raise PhaseFailed(f"data set {ref} is {status}", "delete it on the target and repeat the command")
        tell(f"data set {ref} is being processed ({status})")
        driver.sleep()
    raise NotNow(f"data set {ref} is still being processed", "try the same command again later")


@contextmanager
def driving(chain: Chain, target: Target, reporter: Reporter, ports: Ports | None = None) -> Iterator[Driver]:
    """Be the driver of this chain.

    Raises:
        DriverLocked: another process is.
        InputError: the journal is damaged.
    """
    ports = ports or Ports()
    key = Key(target.name, chain.owner, chain.name)
    with driver_lock(chain.root), Journal(chain.root, key, ports.clock.now) as journal:
        yield Driver(chain, target, journal, reporter, ports)
