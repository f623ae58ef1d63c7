"""`kchain push`: one phase, reviewed, at the right moment, once."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kchain.client.target import Target
from kchain.kernel_metadata import Continuation
from kchain.orchestrator.driving.actions import (
    Action,
    Done,
    Found,
    GiveUp,
    Push,
    Reporter,
    UploadCheckpoint,
    Wait,
    Wish,
)
from kchain.orchestrator.driving.decide import decide
from kchain.orchestrator.driving.drive import Driver, Ports, driving
from kchain.orchestrator.driving.folders import (
    BundleFolder,
    bundle_folders,
    keep,
    session_of,
    tell_unrehearsed,
    unrehearsed,
)
from kchain.orchestrator.driving.observe import Observer
from kchain.orchestrator.journal.journal import JOURNAL, Journal, Key
from kchain.orchestrator.journal.state import PhaseState
from kchain.phases import Chain

if TYPE_CHECKING:
    from kchain.bundle import Bundle


@dataclass(frozen=True)
class PushReport:
    """What a push did.

    Attributes:
        pushed: a new version was made.
        version, url: of the version that now holds the bundle; None and empty when there was nothing to push and
            nothing had been pushed.
    """

    pushed: bool
    version: int | None
    url: str


@dataclass(frozen=True)
class Preview:
    """What a push would do (`--dry-run`).

    Attributes:
        verdict: in words.
        command: Kaggle's own command for the same push; empty for a later session, which is not a folder.
        warning: what `push` would warn of first; empty for nothing.
    """

    kernel: str
    folder: Path
    hash: str
    metadata: Mapping[str, Any]
    session_timeout: int
    verdict: str
    command: str
    warning: str = ""


def push(
    chain: Chain,
    phase: str,
    target: Target,
    reporter: Reporter,
    *,
    yes: bool = False,
    again: bool = False,
    wait: bool = True,
    ports: Ports | None = None,
) -> PushReport:
    """Push one phase, unless the very same bundle already has a result.

    Args:
        yes: approve what renders now.
        again: push a finished or failed phase that has not changed.
        wait: sit out a running version, a session cap, a rate limit; False: stop there.

    Raises:
        NotReviewed, StillRunning, SessionCap, QuotaUsedUp, RateLimited, DriverLocked: not now.
        InputError, PushRefused, EditedOutside, Unreachable: see `kchain.errors`.
    """
    chain.phase(phase)
    with driving(chain, target, reporter, ports) as driver:
        folder = driver.folders[phase]
        prepare(driver, folder, approve=yes)
        if again or _is_news(folder.rendered, driver.states().get(phase, PhaseState())):
            tell_unrehearsed(chain, target, [folder], reporter)
        action = driver.drive(phase, Wish.AGAIN if again else Wish.PUSH, until_pushed=True, wait=wait)
        if isinstance(action, Wait):
            raise action.error
        version = driver.states().get(phase, PhaseState()).version
        return PushReport(isinstance(action, Push), version.number if version else None, version.url if version else "")


def _is_news(bundle: Bundle, state: PhaseState) -> bool:
    """Whether what renders now has no result yet."""
    return state.result is None or (state.version is not None and state.version.hash != bundle.hash)


def prepare(driver: Driver, folder: BundleFolder, *, approve: bool) -> None:
    """Have the bundle folder there; with `approve`, render it anew and count it as reviewed, unless linting refuses it.

    What is approved stays so when the target refuses it: nothing about the bundle is in doubt then.
    """
    if approve:
        bundle = folder.write()
        known = driver.states().get(folder.phase, PhaseState()).reviewed
        if bundle.hash not in known and not folder.lint():
            driver.journal.append(folder.phase, "reviewed", hash=bundle.hash)
    elif not folder.path.is_dir():
        folder.write()


def preview(
    chain: Chain, phase: str, target: Target, *, yes: bool = False, again: bool = False, ports: Ports | None = None
) -> Preview:
    """Look at everything that `push` looks at, and change nothing.

    Args:
        yes, again: as in `push`.

    Raises:
        Unreachable, CredentialsError: the target cannot be asked.
    """
    ports = ports or Ports()
    wish = Wish.AGAIN if again else Wish.PUSH
    with tempfile.TemporaryDirectory() as empty:
        place = chain.root if (chain.root / JOURNAL).exists() else Path(empty)
        with Journal(place, Key(target.name, chain.owner, chain.name)) as journal:
            states = journal.states()
            state = states.get(phase, PhaseState())
            folder = bundle_folders(chain, target, states)[phase]
            rendered = folder.rendered
            observer = Observer(chain, journal, target.settle_seconds)
            seen = observer.at_hand(folder, states, wish, ports.clock.now())
            seen = observer.look(lambda: ports.connect(target), folder, states, wish, seen)
            if yes:
                state = replace(state, reviewed=state.reviewed | {rendered.hash})
            if yes or not folder.path.is_dir():
                # `push` would write the folder first.
                seen = replace(seen, disk=rendered.hash, lint=folder.lint_rendered())
            action = decide(phase, state, seen, wish)
            bundle = rendered
            if isinstance(action, Push) and action.continuation is not None:
                kept = journal.kept(state.version.hash) if action.base and state.version is not None else keep(rendered)
                assert kept is not None, "every bundle that is pushed or found is kept"
                bundle = session_of(kept, action.continuation)
    shown = folder.path.relative_to(chain.root).as_posix()
    news = unrehearsed(chain, target, [folder]) if again or _is_news(rendered, state) else {}
    return Preview(
        kernel=chain.kernel(phase),
        folder=folder.path,
        hash=bundle.hash,
        metadata=bundle.metadata,
        session_timeout=bundle.timeout,
        verdict=_verdict(action, state),
        command=f"kaggle kernels push -p {shown} -t {bundle.timeout}" if bundle is rendered else "",
        warning=news.get(phase, ""),
    )


def _verdict(action: Action, state: PhaseState) -> str:
    match action:
        case Push(continuation=Continuation(session, source=source)) if state.checkpoint is not None:
            return f"would push session {session}, from {state.checkpoint.words} in {source}"
        case UploadCheckpoint(ref):
            return f"would upload the checkpoint as the private data set {ref}"
        case Push(before):
            return "would push" + ("; there is no such kernel yet" if before is None else f" over version {before}")
        case Found(version):
            return f"would push nothing: version {version} on the target is this very bundle"
        case Done():
            return "would push nothing: this bundle has a verified result (--again pushes it nevertheless)"
        case Wait(reason):
            return f"would wait: {reason}"
        case GiveUp(error):
            return f"would refuse: {error.message}"
    return "would first find out whether the last push arrived"
