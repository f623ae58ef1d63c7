"""What has to be right before anything can work, looked at one by one: found, and what to do where it is wrong."""

from __future__ import annotations

import email.utils
import importlib.metadata
import os
import shutil
import stat
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kchain.client import sdk
from kchain.client.answers import Quota
from kchain.client.client import Client
from kchain.client.login import Surroundings
from kchain.client.target import Target
from kchain.client.transport import Patience, Transport
from kchain.errors import CredentialsError, InputError, KchainError, QuotaUsedUp, Unreachable
from kchain.phases import Chain

State = Literal["ok", "warn", "fail"]

# A quick look: two tries, and no long silence.
_QUICK = Patience(connect=5.0, silence=20.0, answer=60.0, attempts=2, first=0.5, longest=5.0, total=30.0)
# Signed addresses and tokens are judged by the clock; the Date header itself is exact to a second.
_SKEW_WARN_SECONDS, _SKEW_FAIL_SECONDS = 30.0, 300.0
# Adapters have tens of megabytes, a session's whole output up to 20 GB.
_DISK_WARN_BYTES, _DISK_FAIL_BYTES = 2 * 10**9, 2 * 10**8
_QUOTA_WARN_SECONDS = 3 * 3600
# Who asks where no project says it; a kchain server takes any name that has its key.
_NOBODY = "nobody"


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: what.
        state: "ok", "warn" or "fail".
        found: what was found, for a person.
        cure: what to do; "" where nothing is.
        code: exit code of a failure, 0 otherwise.
    """

    name: str
    state: State
    found: str
    cure: str = ""
    code: int = 0


def _fail(name: str, error: KchainError) -> Check:
    return Check(name, "fail", error.message, error.hint, error.exit_code)


def examine(chain: Chain | None, target_name: str, folder: Path, around: Surroundings | None = None) -> list[Check]:
    """Look at everything, in the order in which it is needed; what cannot be looked at after a failure is left out.

    Args:
        chain: the project; None outside of one.
        target_name: "kaggle", "local" or a URL.
        folder: where the project is, or where kchain was started.
        around: the variables and the home folder; this process's own by default.
    """
    around = around or Surroundings.here()
    checks = [_client_version(), _disk(folder)]
    checks += _variables(around) if target_name == "kaggle" else []
    try:
        target = Target(target_name, chain.owner if chain is not None else _NOBODY, folder)
        if target.name == "local" and chain is None:
            raise InputError("target local belongs to a project, and there is none here", "kchain init my-chain")
    except InputError as error:
        return [*checks, _fail("target", error)]
    return [*checks, *_online(target, around)]


def worst(checks: list[Check]) -> int:
    """The exit code of all checks together."""
    return max((check.code for check in checks), default=0)


def _online(target: Target, around: Surroundings) -> Iterator[Check]:
    """Credentials first; then one question to the target tells whether it answers, its clock and the quota."""
    opened = yield from _credentials(target, around)
    if opened is None:
        return
    client = Client(target, opened)
    try:
        quota = client.quota()
    except CredentialsError as error:
        yield _fail("credentials", error)
        return
    except KchainError as error:
        yield _fail("target", error)
        return
    yield Check("target", "ok", f"{opened.who} answers")
    yield _clock(opened.door.date)
    yield _quota(quota)


def _credentials(target: Target, around: Surroundings) -> Generator[Check, None, Transport | None]:
    from kchain.client.connect import find_kaggle_login, kaggle_transport, open_transport

    try:
        if not target.is_kaggle:
            transport = open_transport(target, _QUICK)
            where = transport.credentials.where if transport.credentials else ""
            yield Check("credentials", "ok", f"{target.owner}, {where}")
            return transport
        login = find_kaggle_login(_QUICK, around)
    except KchainError as error:
        yield _fail("target" if isinstance(error, Unreachable) else "credentials", error)
        return None
    found = f"{login.credentials.username}, {login.credentials.where}"
    if login.notes:
        yield Check("credentials", "warn", f"{found}; passed over: {'; '.join(login.notes)}", "remove what is not used")
    else:
        yield Check("credentials", "ok", found)
    yield _owner(target.owner, login.credentials.username)
    return kaggle_transport(login.credentials, _QUICK)


def _owner(owner: str, username: str) -> Check:
    if owner == _NOBODY:
        return Check("owner", "warn", f"no project here; the credentials are {username}'s", "kchain init my-chain")
    if owner.lower() == username.lower():
        return Check("owner", "ok", owner)
    found = f"kchain.toml says {owner}, the credentials are {username}'s"
    return Check("owner", "fail", found, f'owner = "{username}" in [chain] of kchain.toml', CredentialsError.exit_code)


def _client_version() -> Check:
    """The traps of the client's packaging: a version kchain was not tried with, and six, which it does not ask for."""
    try:
        kaggle, kagglesdk = (importlib.metadata.version(name) for name in ("kaggle", "kagglesdk"))
        importlib.metadata.version("six")
    except importlib.metadata.PackageNotFoundError as error:
        found = f"the package {error.name} is missing"
        return Check("client", "fail", found, f"pip install {error.name}", InputError.exit_code)
    try:
        sdk.check()
    except InputError as error:
        return _fail("client", error)
    found = f"kaggle {kaggle}, kagglesdk {kagglesdk}"
    first, here, after = (
        tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
        for version in (sdk.KNOWN["kaggle"][0], kaggle, sdk.KNOWN["kaggle"][1])
    )
    if first <= here < after:
        return Check("client", "ok", found)
    return Check("client", "warn", f"{found}: kchain was not tried with it", f'pip install "{sdk.EXPECTED["kaggle"]}"')


def _variables(around: Surroundings) -> Iterator[Check]:
    """What leads Kaggle's own command astray, though not kchain; and a key that others can read."""
    moved = around.environ.get("KAGGLE_API_ENVIRONMENT", "PROD")
    if moved != "PROD":
        found = f"KAGGLE_API_ENVIRONMENT={moved} sends Kaggle's own command elsewhere; kchain does not follow it"
        yield Check("variables", "warn", found, "unset KAGGLE_API_ENVIRONMENT")
    if "KAGGLE_TOKEN" in around.environ:
        found = "KAGGLE_TOKEN is sent by Kaggle's own command without being looked at; kchain does not use it"
        yield Check("variables", "warn", found, "use KAGGLE_API_TOKEN instead")
    for path in (around.config_folder / "kaggle.json", around.home / ".kaggle" / "access_token"):
        if os.name == "posix" and path.exists() and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            yield Check("key file", "warn", f"{path} can be read by others on this machine", f"chmod 600 {path}")


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {folder}"
    if free < _DISK_FAIL_BYTES:
        return Check("disk", "fail", found, "free disk space: adapters could not be stored", InputError.exit_code)
    if free < _DISK_WARN_BYTES:
        return Check("disk", "warn", found, "free some disk space: a session's outputs may need more")
    return Check("disk", "ok", found)


def _clock(date: str | None) -> Check:
    try:
        theirs = email.utils.parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError):
        return Check("clock", "warn", "the target does not say what time it is", "")
    skew = time.time() - theirs
    found = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the target's"
    if abs(skew) >= _SKEW_FAIL_SECONDS:
        return Check("clock", "fail", found, "set the clock: tokens and signed addresses fail", InputError.exit_code)
    if abs(skew) >= _SKEW_WARN_SECONDS:
        return Check("clock", "warn", found, "set the clock")
    return Check("clock", "ok", found)


def _quota(quota: Quota | None) -> Check:
    if quota is None:
        return Check("quota", "ok", "the target meters no GPU hours")
    found = (
        f"{quota.gpu_free / 3600:.1f} of {quota.gpu_total / 3600:.1f} GPU hours left "
        f"({quota.gpu_reserved / 3600:.1f} held by running sessions)"
    )
    refresh = f"more at {quota.refresh}" if quota.refresh else "they come back weekly"
    if quota.gpu_free <= 0:
        return Check("quota", "fail", found, refresh, QuotaUsedUp.exit_code)
    if quota.gpu_free < _QUOTA_WARN_SECONDS:
        return Check("quota", "warn", f"{found}: less than a phase may need", refresh)
    return Check("quota", "ok", found)
