"""The base model's own folder: named by the user, or what the server on this machine mounts into its sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kchain.errors import InputError
from kchain.orchestrator.finished import Link
from kchain.orchestrator.target import LOCAL, Target
from kchain.phases import Chain


def base_folder(chain: Chain, target: Target, given: Path | None, links: Sequence[Link]) -> Path:
    """The folder of the original base model.

    Args:
        given: the folder the user names; None: looked for.
        links: the adapters that will be put on it; their sessions recorded the size of its weights.

    Raises:
        InputError: it is not here, is no model, or is another one than the sessions had.
    """
    folder = given if given is not None else _published(chain, target)
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: is no model's folder: {name} is missing", _how_to_get(chain))
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if not size:
        raise InputError(f"{folder}: holds no *.safetensors; other weights are not opened", _how_to_get(chain))
    for link in links:
        had = link.recorded.moved.get("base_bytes")
        if had is not None and had != size:
            raise InputError(
                f"{folder}: another base model: its weights have {size} bytes, those {link.phase} trained on had {had}",
                f"give the folder of {chain.model.source}: --base DIR",
            )
    return folder


def _published(chain: Chain, target: Target) -> Path:
    from kchain.server.publish import model_folder

    folder = model_folder(target.local_root, *chain.model.source.lower().split("/"))
    if target.name == LOCAL and folder.is_dir():
        return folder
    raise InputError(f"the base model {chain.model.source} is not on this machine", _how_to_get(chain))


def _how_to_get(chain: Chain) -> str:
    return (
        f"get it once with Kaggle's client: kaggle models instances versions download {chain.model.source} "
        "-p base-model --untar; then add: --base base-model"
    )
