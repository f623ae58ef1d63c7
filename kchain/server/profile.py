"""How the server behaves: as Kaggle does (`like-kaggle`), or as one's own machine (`machine`).

Every field is a switch. Where reports about the live service disagree, the default is the one better attested and the
other behaviour can be chosen, so that a client can be tested against both. Figures are those of Kaggle's free tier.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from kchain.errors import InputError

FILE = "profile.json"
HOUR = 3600


_Seconds = Annotated[float, Field(strict=True, ge=0)]
_Count = Annotated[int, Field(strict=True, ge=0)]
_Flag = Annotated[bool, Field(strict=True)]


class Profile(BaseModel):
    """The server's switches. Seconds are wall-clock seconds; None means unlimited.

    Attributes:
        name: "like-kaggle" or "machine".
        user: who the key alone stands for, as an access token without a user name.
        gpu_sessions: GPU (and TPU) sessions one user may have queued or running at once.
        cpu_sessions: the same for sessions without an accelerator.
        gpu_hours: GPU hours a user has per week; a week begins on Saturday, 00:00 UTC.
        tpu_hours: TPU hours a user has per week.
        run_limit_seconds: longest run of any session, whatever it asked for.
        outputs_after_run_limit: whether outputs survive a stop by `run_limit_seconds`; its own keeps them.
        queue_seconds: how long a session stays QUEUED at least.
        visible_seconds: a new kernel answers 403 this long after its first push.
        ghost_seconds: a stopped session counts against the caps this long after its end.
        on_running: what a push does while an earlier version runs.
        title_rule: whether a kernel is created under the slug of its title, and a title that does not match is a 409.
        source_bytes: largest source SaveKernel takes, bytes of UTF-8.
        unready_dataset: what a push answers when a source's first version is still being processed.
        dataset_seconds: how long a new data set version is processed before it is READY.
        mounts: which layout below /kaggle/input a session finds.
        own_output: what a kernel finds that names itself as a source: its last output, nothing, or it is no source.
            Nobody has reported what Kaggle does; like-kaggle gives nothing, so that a client must do without.
        unknown_kernel: HTTP status for a kernel that does not exist or may not be read.
        log_cut_seconds: a live log stream without news is cut after this long.
        refuse_authorized_output: whether an Authorization header on a signed output URL is refused.
        export_noise: whether the log ends in the lines of Kaggle's HTML export.
        gpus: GPUs to share out between sessions; None leaves them to whoever comes.
        cpu_slots: sessions without a GPU that run at once; None for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    user: Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9][a-z0-9_-]*$")] = "local"
    gpu_sessions: _Count | None = None
    cpu_sessions: _Count | None = None
    gpu_hours: _Seconds | None = None
    tpu_hours: _Seconds | None = None
    run_limit_seconds: _Seconds | None = None
    outputs_after_run_limit: _Flag = True
    queue_seconds: _Seconds = 0.0
    visible_seconds: _Seconds = 0.0
    ghost_seconds: _Seconds = 0.0
    on_running: Literal["parallel", "supersede", "conflict"] = "parallel"
    title_rule: _Flag = False
    source_bytes: _Count | None = None
    unready_dataset: Literal["conflict", "invalid"] = "conflict"
    dataset_seconds: _Seconds = 0.0
    mounts: Literal["new", "old", "both"] = "both"
    own_output: Literal["mounted", "empty", "invalid"] = "mounted"
    unknown_kernel: Literal[403, 404] = 403
    log_cut_seconds: _Seconds | None = None
    refuse_authorized_output: _Flag = False
    export_noise: _Flag = False
    gpus: _Count | None = None
    cpu_slots: _Count | None = None


LIKE_KAGGLE = Profile(
    name="like-kaggle",
    gpu_sessions=2,
    cpu_sessions=5,
    gpu_hours=30.0,
    tpu_hours=20.0,
    run_limit_seconds=12 * HOUR,
    outputs_after_run_limit=False,
    queue_seconds=1.0,
    title_rule=True,
    source_bytes=2**20,
    dataset_seconds=2.0,
    mounts="new",
    own_output="empty",
    log_cut_seconds=180.0,
    refuse_authorized_output=True,
    export_noise=True,
)


def count_gpus() -> int:
    """GPUs of this machine as nvidia-smi lists them; 0 where there is no nvidia-smi or it fails."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def machine() -> Profile:
    """This machine: its GPUs, and as many sessions without one as leaves each about four cores."""
    return Profile(name="machine", gpus=count_gpus(), cpu_slots=max(2, (os.cpu_count() or 1) // 4))


def named(name: str, **changes: Any) -> Profile:
    """The profile called `name` with some switches changed.

    Raises:
        InputError: no such profile, no such switch, or a value of the wrong kind.
    """
    if name not in ("like-kaggle", "machine"):
        raise InputError(f"there is no server profile {name!r}", "use like-kaggle or machine")
    base = LIKE_KAGGLE if name == "like-kaggle" else machine()
    try:
        return Profile.model_validate({**base.model_dump(), **changes, "name": name})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        switch = first["loc"][0]
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(Profile.model_fields.keys() - {"name"}))
            raise InputError(f"there is no server switch {switch}", f"the switches are: {known}") from None
        raise InputError(f"server switch {switch}: {first['input']!r} does not fit: {first['msg']}") from None


def load(root: Path, name: str | None = None) -> Profile:
    """The profile of the server in `root`: profile.json there ({"name": …, switch: value}), or `machine`.

    Args:
        root: the server's folder.
        name: overrides the file; its switches hold only where it names the same profile.

    Raises:
        InputError: the file is not a JSON object, or names an unknown profile or switch.
    """
    path = root / FILE
    if not path.exists():
        return named(name or "machine")
    try:
        values = TypeAdapter(dict[str, Any]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path} is not a JSON object", "repair the file or delete it") from error
    found = values.pop("name", "machine")
    return named(found, **values) if name in (None, found) else named(name)
