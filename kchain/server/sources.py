"""What a kernel version asks to be mounted: data sets, outputs of other kernels, models; and what of it is missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kchain.server import runner
from kchain.server.context import Context
from kchain.server.things import DATASET, MODEL, ready_version, word
from kchain.server.wire import ApiError, Request, Texts

KINDS = ("Dataset", "Competition", "Kernel", "Model")


class SourceLists(Request):
    """The references of a push, by kind."""

    dataset_data_sources: Texts = []
    kernel_data_sources: Texts = []
    model_data_sources: Texts = []
    competition_data_sources: Texts = []


@dataclass
class Sources:
    """The sources of one push.

    Attributes:
        mounts: {"source": folder, "new": path, "old": path}, the paths below /kaggle/input in either layout.
        invalid: by response field, the references that are no source this user can read.
    """

    mounts: list[dict[str, str]] = field(default_factory=list)
    invalid: dict[str, list[str]] = field(default_factory=dict)

    def refuse(self, kind: str, ref: str) -> None:
        """Note a reference that cannot be mounted; `kind` is one of KINDS."""
        self.invalid.setdefault(f"invalid{kind}Sources", []).append(ref)

    def mount(self, source: Path, new: str, old: str) -> None:
        """Note a folder to mount."""
        self.mounts.append({"source": str(source), "new": new, "old": old})


def resolve(context: Context, user: str, kernel: str, asked: SourceLists) -> Sources:
    """Find the sources of a SaveKernel request as they are at this moment.

    Args:
        kernel: `owner/slug` of the kernel that is pushed; what it finds of itself is a switch of the profile.

    Raises:
        ApiError: 409, when a data set's first version is still being processed (where the profile says so).
    """
    found = Sources()
    for ref in asked.dataset_data_sources:
        _dataset(context, user, ref, found)
    for ref in asked.kernel_data_sources:
        if ref.lower() != kernel or context.profile.own_output == "mounted":
            _kernel(context, user, ref, found)
        elif context.profile.own_output == "invalid":
            found.refuse("Kernel", ref)
    for ref in asked.model_data_sources:
        _model(context, user, ref, found)
    for ref in asked.competition_data_sources:
        found.refuse("Competition", ref)  # no competition is ever hosted here
    return found


def _dataset(context: Context, user: str, ref: str, found: Sources) -> None:
    parts = ref.lower().split("/")[:2]  # a version after the slug is ignored: the latest READY one is mounted
    row = context.db.one("SELECT * FROM datasets WHERE owner = ? AND slug = ?", *parts) if len(parts) == 2 else None
    if row is None or (row["private"] and row["owner"] != user):
        return found.refuse("Dataset", ref)
    version = ready_version(context, row["id"])
    if version is None:
        if context.profile.unready_dataset == "conflict":
            raise ApiError(409, f"Dataset {ref} is still being processed.")
        return found.refuse("Dataset", ref)
    owner, slug = row["owner"], row["slug"]
    folder = DATASET.folder(context.root, owner, slug, version["number"])
    return found.mount(folder, f"datasets/{owner}/{slug}", slug)


def _kernel(context: Context, user: str, ref: str, found: Sources) -> None:
    parts = ref.lower().split("/")
    row = context.db.one("SELECT * FROM kernels WHERE owner = ? AND slug = ?", *parts) if len(parts) == 2 else None
    if row is None or (row["owner"] != user and not is_public(context, row["id"])):
        return found.refuse("Kernel", ref)
    session = context.db.one(
        "SELECT sessions.id FROM sessions JOIN versions ON versions.id = sessions.version"
        " WHERE versions.kernel = ? AND sessions.status = 'COMPLETE' ORDER BY versions.number DESC",
        row["id"],
    )
    if session is not None:  # a kernel without a finished version is a valid source with nothing in it
        working = runner.kaggle_root(context.sessions.folder(session["id"])) / "working"
        found.mount(working, f"notebooks/{row['owner']}/{row['slug']}", row["slug"])
    return None


def is_public(context: Context, kernel: int) -> bool:
    """Whether a kernel's latest version was pushed as public."""
    row = context.db.one(
        "SELECT json_extract(settings, '$.isPrivate') AS private FROM versions WHERE kernel = ? ORDER BY number DESC",
        kernel,
    )
    return row is not None and not row["private"]


def _model(context: Context, user: str, ref: str, found: Sources) -> None:
    parts = ref.lower().split("/")
    version = (
        "SELECT model_versions.*, owner, private FROM model_versions JOIN models ON models.id = model_versions.model"
        " WHERE owner = ? AND slug = ? AND framework = ? AND variation = ? AND number = ?"
    )
    row = context.db.one(version, *parts) if len(parts) == 5 else None
    if row is None or (row["private"] and row["owner"] != user) or word(row) != "READY":
        return found.refuse("Model", ref)  # what Kaggle says of a version that is still processed, nobody has told
    folder = MODEL.folder(context.root, *parts)
    return found.mount(folder, "models/" + "/".join(parts), "/".join(parts[1:]))
