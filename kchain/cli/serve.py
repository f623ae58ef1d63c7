"""`kchain serve`: the Kaggle-compatible server in the foreground."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kchain.errors import InputError, need
from kchain.phases import find_root

if TYPE_CHECKING:
    from kchain.server.context import Context

PORT = 8765


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: any free one.")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for kernels, data sets and models.  [default: .kchain/local of the project, or of this folder]",
)
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File with the key that clients must send; created if missing.  [default: key in the root]",
)
@click.option(
    "--profile",
    type=click.Choice(["machine", "like-kaggle"]),
    help="machine: no caps. like-kaggle: Kaggle's caps, quota and quirks.  "
    "[default: that of profile.json in the root, else machine]",
)
@click.option(
    "--publish-dataset",
    "datasets",
    multiple=True,
    metavar="OWNER/SLUG=DIR",
    help="First publish DIR as this data set. Repeatable.",
)
@click.option(
    "--publish-model",
    "models",
    multiple=True,
    metavar="OWNER/MODEL/FRAMEWORK/VARIATION/VERSION=DIR",
    help="First publish DIR as this model version. Repeatable.",
)
@click.option("--publish-only", is_flag=True, help="Publish and exit. A running server sees it at once.")
@click.option("--stop", is_flag=True, help="Stop the server of this root, also one started on demand.")
def serve(
    port: int,
    root: Path | None,
    key_file: Path | None,
    profile: str | None,
    datasets: tuple[str, ...],
    models: tuple[str, ...],
    publish_only: bool,
    stop: bool,
) -> None:
    """Run the Kaggle-compatible server on this machine, until Ctrl-C.

    The plain `kaggle` command works against it. It listens on 127.0.0.1 only and demands a key, with which any user
    name is accepted. --target local starts one by itself; use this command to watch one, to choose its profile, or to
    use it from other programs.

    Publish data sets and models of other owners into it under their names on Kaggle:

    \b
      kchain serve --publish-model qwen-lm/qwen2.5/transformers/0.5b-instruct/1=~/models/qwen \\
                   --publish-dataset someone/bash-commands=./bash-commands

    \b
    From another terminal, with the lines it prints pasted:
      kaggle kernels push -p build/local/phase1
      kaggle kernels logs -f you/my-kernel

    When it stops, running sessions end as ERROR; queued ones wait. A kernel runs as you, with access to your files:
    push only what you would run yourself.
    """
    root = (root or default_root()).expanduser()
    if stop:
        from kchain.server.launch import stop as end

        click.echo(f"The server of {root} has ended." if end(root) else f"No server is running in {root}.")
        return None
    _publish(root, datasets, models)
    if publish_only:
        return None
    from kchain.server.launch import NEEDED

    need("server", *NEEDED)
    from kchain.server.serve import serve as run

    return run(root, port, key_file or root / "key", profile, None, _announce)


def default_root() -> Path:
    """`.kchain/local` of the project around the current folder, or of the current folder where there is none."""
    try:
        project = find_root(Path.cwd())
    except InputError:
        project = Path.cwd()
    return project / ".kchain" / "local"


def _publish(root: Path, datasets: tuple[str, ...], models: tuple[str, ...]) -> None:
    from kchain.server.publish import publish_dataset, publish_model

    for entry in datasets:
        ref, folder = _parted(entry, "--publish-dataset")
        click.echo(f"data set {ref}: version {publish_dataset(root, ref, folder)}")
    for entry in models:
        ref, folder = _parted(entry, "--publish-model")
        publish_model(root, ref, folder)
        click.echo(f"model {ref}")


def _parted(entry: str, option: str) -> tuple[str, Path]:
    ref, separator, folder = entry.partition("=")
    if not separator or not folder:
        raise InputError(f"{option} {entry}: names no folder", "write it as NAME=DIR")
    return ref, Path(folder).expanduser()


def _announce(context: Context) -> None:
    """Say where the server answers, and the lines that point the plain kaggle command at it.

    They give the key as an access token: Kaggle's client takes a token in ~/.kaggle/access_token before any user name
    and key, and a token in KAGGLE_API_TOKEN before that one.
    """
    key_file = shlex.quote(str(context.key_file))
    click.echo(f"""\
Serving {context.root} as {context.profile.name} at {context.address} (Ctrl-C ends it).

To use the plain kaggle command against it, paste this into another terminal:

  export KAGGLE_API_ENVIRONMENT=LOCALHOST HTTP_PROXY={context.address}
  export KAGGLE_API_TOKEN={context.user}:"$(cat {key_file})"
  unset NO_PROXY no_proxy http_proxy

{context.user} is the user name; any other will do as well, and what it pushes is its own. KAGGLE_USERNAME with the key
in KAGGLE_KEY works too, where there is no access token. To point kchain itself here:

  export KCHAIN_KEY_FILE={key_file}
  kchain doctor --target {context.address}
""")
