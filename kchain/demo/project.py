"""Get a project ready for a demonstration: the project itself, the packages it needs, the data and model it names."""

from __future__ import annotations

import tempfile
from pathlib import Path

from kchain.demo.tokenizer import MODEL, SAMPLES
from kchain.errors import InputError, need
from kchain.phases import CHAIN_FILE, Chain, load_chain
from kchain.phases.init import make_project
from kchain.server import launch

OWNER = "demo"
EXAMPLE = "tiny"
# What the server and the notebooks import here, and the core install lacks.
NEEDED = (*launch.NEEDED, "accelerate", "peft", "safetensors", "tokenizers", "torch", "transformers")


def open_project(folder: Path) -> Chain:
    """The chain of the project in `folder`; the tiny example is written there first when there is none.

    Raises:
        InputError: the folder holds other files, or its project has problems, or another model than the demo's.
    """
    if not (folder / CHAIN_FILE).exists():
        make_project(folder, EXAMPLE, OWNER)
    chain = load_chain(folder.resolve())
    if chain.model.source != MODEL:
        raise InputError(
            f"{folder} is another project: its base model is {chain.model.source}, not the demo's {MODEL}",
            "choose another folder: kchain demo DIR",
        )
    return chain


def check_packages() -> None:
    """Look for the packages of the `train` extra without importing them.

    Raises:
        InputError: some are missing; says which.
    """
    need("train", *NEEDED)


def publish(server_root: Path) -> None:
    """Put the base model and the sample data sets into a server's folder; the same files again change nothing.

    Args:
        server_root: `.kchain/local` of the project; the server may run or not.

    Raises:
        InputError: other files are there under the model's name.
    """
    from kchain.demo.model import write_model
    from kchain.server.publish import publish_dataset, publish_model

    with tempfile.TemporaryDirectory(prefix="kchain-demo-") as staging:
        model = Path(staging) / "model"
        model.mkdir()
        write_model(model)
        publish_model(server_root, MODEL, model)
        for sample in SAMPLES:
            folder = Path(staging) / sample.ref.replace("/", "-")
            folder.mkdir()
            sample.write(folder)
            publish_dataset(server_root, sample.ref, folder)
