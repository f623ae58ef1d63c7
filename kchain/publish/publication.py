"""What publishing a phase would do on the target, and the metadata it is described with. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slugify import slugify

from kchain.client.models import Model
from kchain.errors import InputError, PushRefused
from kchain.orchestrator.finished import Link
from kchain.phases import Chain
from kchain.publish.content import ExportContent

# Hugging Face's word for a licence -> Kaggle's name for the same text (docs/models_metadata.md of Kaggle's client).
_LICENCES = {
    "apache-2.0": "Apache 2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc0-1.0": "CC0: Public Domain",
    "cc-by-4.0": "Attribution 4.0 International (CC BY 4.0)",
    "cc-by-sa-4.0": "CC BY-SA 4.0",
    "cc-by-nc-4.0": "Attribution-NonCommercial 4.0 International (CC BY-NC 4.0)",
    "cc-by-nc-sa-4.0": "CC BY-NC-SA 4.0",
    "gpl-3.0": "GPL 3",
    "agpl-3.0": "GNU Affero General Public License 3.0",
}
# Format -> (the enum's name, how a handle spells it).
_FRAMEWORKS = {
    "safetensors": ("MODEL_FRAMEWORK_TRANSFORMERS", "transformers"),
    "adapter": ("MODEL_FRAMEWORK_TRANSFORMERS", "transformers"),
    "gguf": ("MODEL_FRAMEWORK_GGUF", "gguf"),
}
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Name:
    """Where on the target a phase is published.

    Attributes:
        model: "owner/slug".
        framework: the enum's name; `word` is how a handle spells it.
        variation: slug.
    """

    model: str
    framework: str
    word: str
    variation: str

    def handle(self, version: int) -> str:
        """What `[model] source` takes."""
        return f"{self.model}/{self.word}/{self.variation}/{version}"


def name_of(chain: Chain, phase: str, form: str, kind: str, model: str | None) -> Name:
    """The model is the chain's, the variation the phase's: `phase4`, `phase4-adapter`, `phase4-q8-0`.

    Args:
        model: another slug for the model.

    Raises:
        InputError: Kaggle does not take this slug.
    """
    slug = model if model is not None else slugify(chain.name)
    if not _SLUG.fullmatch(slug):
        raise InputError(
            f"--model {slug}: not a name for a model", "lower-case letters and digits, with single '-' between"
        )
    endings = {"safetensors": "", "adapter": "-adapter", "gguf": f"-{slugify(kind)}"}
    return Name(f"{chain.owner}/{slug}", *_FRAMEWORKS[form], slugify(phase) + endings[form])


@dataclass(frozen=True)
class Decision:
    """What is to be made.

    Attributes:
        found: version that holds these very files already; nothing is to be made then.
        new_model, new_variation: whether these must be made first; else a new version of the variation is.
        before: the variation's newest version; 0 for none.
        public: whether everybody can see the model.
        status: of the variation's newest version, on its way to READY; "" where the target does not tell.
    """

    found: int | None
    new_model: bool
    new_variation: bool
    before: int
    public: bool
    status: str = ""

    @property
    def is_processed(self) -> bool:
        """Whether what was found can be mounted, as far as the target tells."""
        return self.found != self.before or self.status in ("", "READY")


def decide(name: Name, model: Model | None, form: str, sha256: str | None) -> Decision:
    """What is to be made, given what the target has.

    Args:
        sha256: of the files; None while they are not made.

    Raises:
        PushRefused: the variation's name holds something that kchain did not make in this format.
    """
    if model is None:
        return Decision(None, True, True, 0, False)
    same = (each for each in model.variations if (each.framework, each.slug) == (name.framework, name.variation))
    there = next(same, None)
    if there is None:
        return Decision(None, False, True, 0, not model.private)
    if not there.overview.startswith(_mark(form)):
        raise PushRefused(
            f"{name.handle(there.version)} exists, and is not a {form} that kchain published",
            "publish under another name: --model SLUG; or rename or delete that variation on its page",
        )
    # The newest version names its hash in its notes, the first one in the variation's overview.
    found = None
    if sha256 is not None:
        found = there.version if sha256 in there.notes else 1 if sha256 in there.overview else None
    return Decision(found, False, False, there.version, not model.private, there.status.upper())


def notes_of(sha256: str) -> str:
    """The notes of a version; kchain finds it by them again."""
    return f"kchain: sha256 of all files {sha256}"


def _mark(form: str) -> str:
    return f"kchain {form}: "


def model_metadata(chain: Chain, name: Name) -> dict[str, Any]:
    """model-metadata.json."""
    owner, slug = name.model.split("/")
    return {
        "ownerSlug": owner,
        "slug": slug,
        "title": chain.name if slug == slugify(chain.name) else slug,
        "isPrivate": True,
        "description": f"Fine-tuned in a chain of phases from {chain.model.source} with kchain; each variation is "
        "one phase, and its card says what it was made of.",
    }


def variation_metadata(
    chain: Chain, links: Sequence[Link], name: Name, content: ExportContent, form: str
) -> dict[str, Any]:
    """model-instance-metadata.json. Without a licence in the card it has none: none is invented."""
    owner, slug = name.model.split("/")
    licence = licence_of(content)
    trained = [link for link in links if not link.recorded.adopted]
    sources = [source for link in trained for source in chain.phase(link.phase).data.sources]
    data = {source.place for source in sources if not source.kind.travels}
    return {
        "ownerSlug": owner,
        "modelSlug": slug,
        "instanceSlug": name.variation,
        "framework": name.word,
        "overview": f"{_mark(form)}{chain.name}, {' then '.join(link.phase for link in links)}. "
        f"Version 1: {notes_of(content.sha256)}",
        "usage": content.card,
        **({"licenseName": licence} if licence else {}),
        "fineTunable": form == "safetensors",
        "trainingData": sorted(data),
        "modelInstanceType": "KaggleVariant",
        "baseModelInstance": chain.model.source.rpartition("/")[0],
    }


def licence_of(content: ExportContent) -> str:
    """Kaggle's name for the licence that the card tells; "" where it tells none that Kaggle has."""
    return _LICENCES.get(content.licence.lower(), "")
