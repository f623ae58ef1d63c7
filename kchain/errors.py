"""Every error that kchain shows a person, and `need`, which says the one about a missing package.

KchainError                  exit code  when
├── InputError               2          a file, key, option or credential that is wrong; only a change of it helps
│   └── CredentialsError     2          no credentials, or the target does not accept them
├── NotNow                   3          right command, wrong moment; repeat it later
│   ├── NotReviewed          3          what would be pushed or uploaded was never approved by a person
│   ├── StillRunning         3          a version of this kernel is queued or running
│   ├── SessionCap           3          the account's sessions are all in use
│   ├── QuotaUsedUp          3          the weekly accelerator hours are used up
│   ├── RateLimited          3          429: asked too often
│   └── DriverLocked         3          another kchain drives this chain
├── Unreachable              4          the other side does not answer, or not with sense
│   └── Ambiguous            4          an effect may or may not have happened: look before acting again
└── PhaseFailed              1          a phase failed, a gate was missed, an adapter was refused
    ├── PushRefused          1          the target refused the push for good (bad source, bad metadata, a foreign slug)
    ├── GateMissed           1          a run ended well, but its result is not what the gates ask for
    ├── AdapterRefused       1          a downloaded adapter is not what it should be
    └── EditedOutside        1          the kernel has a version that kchain did not push

Each error is one sentence of what is wrong and, in `hint`, the next thing to try. `cli.main` prints both and exits with
`exit_code`; no traceback reaches a user.
"""

from __future__ import annotations

from importlib.util import find_spec


class KchainError(Exception):
    """What is wrong, in one sentence; `hint` says what to do about it.

    Args:
        message: what is wrong, for a person.
        hint: the next thing to try; empty where the message says it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InputError(KchainError):
    """A file, key or option that only its author can put right."""

    exit_code = 2


class CredentialsError(InputError):
    """No credentials, or credentials that the target does not accept."""


class NotNow(KchainError):
    """The right command at the wrong moment."""

    exit_code = 3


class NotReviewed(NotNow):
    """What would be pushed or uploaded was never approved by a person."""


class StillRunning(NotNow):
    """A version of this kernel is queued or running."""


class SessionCap(NotNow):
    """All sessions of the account are in use."""


class QuotaUsedUp(NotNow):
    """The weekly accelerator hours are used up."""


class RateLimited(NotNow):
    """HTTP 429."""


class DriverLocked(NotNow):
    """Another kchain process drives this chain."""


class Unreachable(KchainError):
    """The other side does not answer, or its answer makes no sense."""

    exit_code = 4


class Ambiguous(Unreachable):
    """A request with an effect went out and its answer never came: the effect may have happened."""


class PhaseFailed(KchainError):
    """A phase failed, or missed a gate."""


class PushRefused(PhaseFailed):
    """The target refused the push for a reason that waiting does not cure."""


class GateMissed(PhaseFailed):
    """The run ended well, but its result is not what the gates ask for."""


class AdapterRefused(PhaseFailed):
    """An adapter that is not what its phase should have made."""


class EditedOutside(PhaseFailed):
    """The kernel has a version that kchain did not push."""


def need(extra: str, *packages: str) -> None:
    """Look for packages without importing them.

    Raises:
        InputError: some are missing; says which extra of kchain brings them.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(f"this needs {', '.join(missing)}", f'pip install "kchain[{extra}]"')
