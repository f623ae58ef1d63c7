"""`kchain logs` and `kchain pull`: read what a version left on the target, and change nothing but files in `runs/`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from kchain.client.answers import LIVE, LogLine
from kchain.client.client import Client
from kchain.client.target import Target
from kchain.errors import InputError, StillRunning
from kchain.orchestrator.driving.drive import Ports
from kchain.orchestrator.journal.journal import Key, read_states
from kchain.orchestrator.judging.judge import check_outputs
from kchain.orchestrator.judging.result import read_result
from kchain.phases import Chain
from kchain.runtime.files import hash_file


def read_log(
    chain: Chain, phase: str, target: Target, *, follow: bool, ports: Ports | None = None
) -> Iterator[LogLine]:
    """The log of the last version; with `follow`, live until its end.

    Raises:
        StillRunning: it runs and `follow` is off.
        InputError: the phase has never run there.
        Unreachable: the target does not answer.
    """
    client, ref, version = _open(chain, phase, target, ports)
    # Asked with `follow`, too: a log that cannot be had ends quietly, a target that is away does not.
    if client.status(ref, version).word in LIVE and not follow:
        raise StillRunning(f"{phase} version {version} is still running", f"follow it: kchain logs {phase} -f")
    yield from client.follow(ref, version)


def fetch_outputs(
    chain: Chain, phase: str, target: Target, *, everything: bool = False, ports: Ports | None = None
) -> Path:
    """Fetch the outputs of the last version.

    Args:
        everything: the models of an export, too.

    Returns:
        The folder that they are in.

    Raises:
        StillRunning: they exist only when the session is over.
        AdapterRefused: with `everything`, a file is not the one that the session recorded.
        InputError, Unreachable: as `read_log`.
    """
    ports = ports or Ports()
    client, ref, version = _open(chain, phase, target, ports)
    if client.status(ref, version).word in LIVE:
        raise StillRunning(f"{phase} version {version} is still running", "outputs appear when it has ended")
    place = chain.root / "runs" / target.folder / phase / f"v{version}"
    # The old copy goes only when the new one is whole.
    fresh = place.with_name(f"{place.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    if everything:
        from kchain.client.pull import pull

        pull(client, ref, version, fresh, everything=True)
        check_outputs(fresh)
    else:
        ports.pull(client, ref, version, fresh)
        _keep_models(place, fresh)
    shutil.rmtree(place, ignore_errors=True)
    fresh.rename(place)
    return place


def _keep_models(old: Path, fresh: Path) -> None:
    """Move models that were fetched with `everything` to the new copy: they are gigabytes, and still the version's."""
    from kchain.client.fetch import place_of

    result = read_result(fresh)
    for name, told in (result.outputs if result is not None else {}).items():
        kept, place = place_of(name, old), place_of(name, fresh)
        if not place.exists() and kept.is_file() and hash_file(kept) == told.sha256:
            place.parent.mkdir(parents=True, exist_ok=True)
            kept.rename(place)


def _open(chain: Chain, phase: str, target: Target, ports: Ports | None) -> tuple[Client, str, int]:
    """The connection, the kernel, and the version the journal knows, else the one that is there."""
    ref = chain.kernel(phase)
    state = read_states(chain.root, Key(target.name, chain.owner, chain.name)).get(phase)
    client = (ports or Ports()).connect(target)
    if state is not None and state.version is not None:
        return client, ref, state.version.number
    kernel = client.kernel(ref)
    if kernel is None:
        raise InputError(f"{phase} has never run on {target.name}", f"kchain push {phase}")
    return client, ref, kernel.version
