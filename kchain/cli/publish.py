"""`kchain publish`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kchain.cli.common import base_option, console, gguf_kind, load_project, say, target_of, target_option

if TYPE_CHECKING:
    from rich.progress import TaskID

    from kchain.publish.publish import Draft, Published


@click.command()
@click.argument("phase", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(("safetensors", "adapter", "gguf")),
    default="safetensors",
    show_default=True,
    help="As in kchain export.",
)
@click.option("--type", "kind", type=click.Choice(("f16", "q8_0")), help="As in kchain export.  [default: f16]")
@click.option("--model", metavar="SLUG", help="Name of the model.  [default: the chain's]")
@click.option("--trained-on", metavar="TARGET", help="Target that trained it.  [default: TARGET]")
@base_option
@click.option("--yes", is_flag=True, help="Upload without asking.")
@click.option("--public", is_flag=True, help="Allow a new version of a model that is public.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")
@target_option
def publish(
    phase: str | None,
    form: str,
    kind: str | None,
    model: str | None,
    trained_on: str | None,
    base: Path | None,
    yes: bool,
    public: bool,
    dry_run: bool,
    target: str | None,
) -> None:
    """Publish PHASE (default: the last one) as a private Kaggle Model.

    Tested against kchain's own server, never against kaggle.com.

    Uses the export in exports/, or makes it. It shows what it will upload and asks first. Names, versions, licence, and
    building on the result: docs/use-the-model.md.

    \b
    Exit codes: 0 published, or there already · 1 refused · 2 bad input · 3 not now · 4 target unreachable
    """
    kind = gguf_kind(form, kind)
    chain = load_project()
    from kchain.errors import NotReviewed
    from kchain.orchestrator.finished import choose_phase
    from kchain.publish import publish as library

    place = target_of(chain, target)
    what = (chain, choose_phase(chain, phase), place, target_of(chain, trained_on or place.name), form, kind, model)
    draft = library.draft(*what)
    if draft.content is None and not dry_run:
        say(f"making the export {os.path.relpath(draft.folder)} …")
        library.make(draft, base)
        draft = library.draft(*what)
    _show(draft)
    if draft.decision.found is not None:
        say(f"nothing to publish: version {draft.decision.found} holds these files")
        return _tell_use(draft, library.Published(draft.decision.found, "", draft.decision.is_processed))
    if draft.decision.public and not public and not dry_run:
        raise NotReviewed(
            f"model {draft.name.model} is public: everybody would see the new version at once",
            "make it private on its page, add --public, or take another name: --model SLUG",
        )
    if dry_run:
        return None
    if not yes:
        if not sys.stdin.isatty():
            raise NotReviewed("there is no terminal to ask on", "look with --dry-run, then add --yes")
        if not click.confirm(f"Upload it to {place.name}?"):
            raise click.Abort
    with _Sent() as sent:
        published = library.publish(draft, sent)
    return _tell_use(draft, published)


class _Sent:
    """Tells of the files on their way: a bar each on a terminal, else a line each."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Sent:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, name: str, reached: int, size: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=size)
            if not console.is_terminal:
                from kchain.units import size as words

                resumed = f"resuming {name} at {words(reached)} of {words(size)}"
                say(resumed if reached else f"sending {name}, {words(size)}")
        self._bars.update(self._tasks[name], completed=reached)


def _show(draft: Draft) -> None:
    from kchain.publish.publication import licence_of
    from kchain.units import size

    decision, name, content = draft.decision, draft.name, draft.content
    seen = "new, private" if decision.new_model else "PUBLIC" if decision.public else "private"
    version = "new" if decision.new_variation else f"has version {decision.before}"
    say(f"model      {name.model} ({seen})")
    say(f"variation  {name.word}/{name.variation} ({version})")
    if content is None:
        return say(f"files      {os.path.relpath(draft.folder)} is not made yet")
    for file, (count, digest) in sorted(content.files.items()):
        say(f"{size(count):>10}  {digest[:10]}  {file}")
    say(f"{size(content.bytes):>10}  in all, from {os.path.relpath(content.folder)}")
    licence = licence_of(content)
    if not licence and content.licence:
        licence = f"none: Kaggle has none that kchain knows as {content.licence!r}; choose one on the model's page"
    elif not licence:
        licence = "none: the card (README.md) names none; Kaggle wants one before the model is made public"
    return say(f"licence    {licence}")


def _tell_use(draft: Draft, published: Published) -> None:
    number = published.version
    if number is None:
        say("published; the target does not list the version yet. The same command tells its number later")
        return
    handle = draft.name.handle(number)
    say(f"published  {handle}" + (f"  {published.url}" if published.url else ""))
    if not published.is_processed:
        say("the target still processes it: it can be mounted when its page says that it is ready")
    if draft.form == "safetensors":
        model = draft.chain.model
        say("the base of another chain, in its kchain.toml:")
        say(f'[model]\nsource = "{handle}"\neos_token = "{model.eos_token}"\neos_id = {model.eos_id}')
