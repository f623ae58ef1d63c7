"""`kchain push`: one phase, reviewed, at the right moment, once."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kchain.client.target import Target
from kchain.kernel_metadata import Continuation
from kchain.orchestrator.driving.actions import Action, Done, Found, Push, Reporter, Stop, Upload, Wait, Wish
from kchain.orchestrator.driving.decide import decide
from kchain.orchestrator.driving.drive import Driver, Ports, driving
from kchain.orchestrator.driving.folders import (
    BundleFolders,
    adopted_sources,
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
    """What a push came to.

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
        command: Kaggle's own command for the same push; empty for a later session, which is no folder.
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
        prepare(driver, phase, approve=yes)
        if again or _is_news(driver.folders, phase, driver.states().get(phase, PhaseState())):
            tell_unrehearsed(chain, target, driver.folders, reporter, [phase])
        action = driver.drive(phase, Wish.AGAIN if again else Wish.PUSH, until_pushed=True, wait=wait)
        if isinstance(action, Wait):
            raise action.error
        version = driver.states().get(phase, PhaseState()).version
        return PushReport(isinstance(action, Push), version.number if version else None, version.url if version else "")


def _is_news(folders: BundleFolders, phase: str, state: PhaseState) -> bool:
    """Whether what renders now has no result yet."""
    changed = state.version is not None and state.version.hash != folders.rendered(phase).hash
    return changed or state.result is None


def prepare(driver: Driver, phase: str, *, approve: bool) -> None:
    """Have the bundle folder there; with `approve`, render it anew and count it as reviewed, unless linting refuses it.

    What is approved stays so when the target refuses it: nothing about the bundle is in doubt then.
    """
    if approve:
        driver.folders.write(phase)
        bundle_hash = driver.folders.rendered(phase).hash
        known = driver.states().get(phase, PhaseState()).reviewed
        if bundle_hash not in known and not driver.folders.lint(phase):
            driver.journal.append(phase, "reviewed", hash=bundle_hash)
    elif not driver.folders.folder(phase).is_dir():
        driver.folders.write(phase)


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
    with tempfile.TemporaryDirectory() as empty:
        key = Key(target.name, chain.owner, chain.name)
        place = chain.root if (chain.root / JOURNAL).exists() else Path(empty)
        with Journal(place, key) as journal:
            states, wish = journal.states(), Wish.AGAIN if again else Wish.PUSH
            folders = BundleFolders(chain, target, adopted_sources(chain, states))
            observer = Observer(chain, journal, folders, target.settle_seconds)
            seen = observer.at_hand(phase, states, wish, ports.clock.now())
            seen = observer.look(lambda: ports.connect(target), phase, states, wish, seen)
            state = states.get(phase, PhaseState())
            if yes:
                state = replace(state, reviewed=state.reviewed | {folders.rendered(phase).hash})
            if yes or not folders.folder(phase).is_dir():
                # `push` would write the folder first.
                seen = replace(seen, disk=folders.rendered(phase).hash, lint=folders.lint_rendered(phase))
            action = decide(phase, state, seen, wish)
            bundle = _to_send(journal, folders, phase, state, action)
    folder = folders.folder(phase)
    shown = folder.relative_to(chain.root).as_posix()
    first = bundle is folders.rendered(phase)
    command = f"kaggle kernels push -p {shown} -t {bundle.timeout}" if first else ""
    news = unrehearsed(chain, target, folders, [phase]) if again or _is_news(folders, phase, state) else {}
    return Preview(
        *(chain.kernel(phase), folder, bundle.hash, bundle.metadata, bundle.timeout),
        *(_verdict(action, state), command, news.get(phase, "")),
    )


def _to_send(journal: Journal, folders: BundleFolders, phase: str, state: PhaseState, action: Action) -> Bundle:
    """The bundle that a push would send: what renders now, or a later session of a run."""
    rendered = folders.rendered(phase)
    if not isinstance(action, Push) or action.continuation is None:
        return rendered
    kept = journal.kept(state.version.hash) if action.base and state.version is not None else keep(rendered)
    assert kept is not None, "every bundle that is pushed or found is kept"
    return session_of(kept, action.continuation)


def _verdict(action: Action, state: PhaseState) -> str:
    match action:
        case Push(continuation=Continuation(session, source=source)) if state.checkpoint is not None:
            return f"would push session {session}, from {state.checkpoint.words} in {source}"
        case Upload(ref):
            return f"would upload the checkpoint as the private data set {ref}"
        case Push(before):
            return "would push" + ("; there is no such kernel yet" if before is None else f" over version {before}")
        case Found(version):
            return f"would push nothing: version {version} on the target is this very bundle"
        case Done():
            return "would push nothing: this bundle has a verified result (--again pushes it nevertheless)"
        case Wait(reason):
            return f"would wait: {reason}"
        case Stop(error):
            return f"would refuse: {error.message}"
    return "would first settle what the last push came to"
