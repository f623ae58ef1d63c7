"""The command line: parse, call one library function, print. A command's module is imported when it is asked for."""

from __future__ import annotations

import importlib
import io
import os
import sys

import click

from kchain import __version__
from kchain.cli.common import change_folder, fail
from kchain.errors import InputError, KchainError

# Command -> (where it lives, what it does). The help text stands here so that `kchain --help` imports no command.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("kchain.cli.init:init", "Make a project: kchain.toml and one file per phase."),
    "adopt": ("kchain.cli.adopt:adopt", "Use an adapter that was trained elsewhere as a phase's result."),
    "data": ("kchain.cli.data:data", "Check examples before training; prepare collected interactions."),
    "plan": ("kchain.cli.plan:plan", "Show what each phase will do and what it will cost."),
    "render": ("kchain.cli.render:render", "Write the notebooks and their metadata into build/."),
    "review": ("kchain.cli.review:review", "Show what would be pushed, and approve it."),
    "lint": ("kchain.cli.lint:lint", "Check any notebook folder for what fails on Kaggle."),
    "rehearse": ("kchain.cli.rehearse:rehearse", "Run phases here in minutes, before they cost quota."),
    "push": ("kchain.cli.push:push", "Push one reviewed phase."),
    "watch": ("kchain.cli.push:watch", "Drive the chain: wait, pull, verify, push the next phase."),
    "run": ("kchain.cli.push:run", "Approve what renders now, and drive the chain."),
    "inbox": ("kchain.cli.inbox:inbox", "Train on every file that is dropped into a folder."),
    "status": ("kchain.cli.status:status", "Show where every phase stands and what it learned."),
    "logs": ("kchain.cli.logs:logs", "Show a phase's log; -f follows a running session."),
    "pull": ("kchain.cli.logs:pull", "Download a phase's outputs again."),
    "export": ("kchain.cli.export:export", "Export a finished phase as a model, an adapter or a GGUF file."),
    "publish": ("kchain.cli.publish:publish", "Publish a finished phase as a private Kaggle Model."),
    "chat": ("kchain.cli.chat:chat", "Chat with a finished phase, or ask it one question."),
    "evaluate": ("kchain.cli.evaluate:evaluate", "Compare base model and chain on held-out questions."),
    "doctor": ("kchain.cli.doctor:doctor", "Check credentials, client, clock, disk, target and quota."),
    "serve": ("kchain.cli.serve:serve", "Run the Kaggle-compatible server."),
    "demo": ("kchain.cli.demo:demo", "Run a four-phase chain on this machine."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used or its own help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kchain")
@click.option(
    "-C",
    "folder",
    type=click.Path(exists=True, file_okay=False),
    default=".",
    metavar="DIR",
    help="Work as if started in DIR.",
)
def group(folder: str) -> None:
    """Fine-tune a small language model in a chain of Kaggle notebooks.

    You write one file per phase. kchain renders the notebooks, pushes what you reviewed, watches the runs, verifies
    every adapter and builds the next phase on it.

    \b
    First steps:
      kchain init my-chain && cd my-chain
      kchain plan                what will happen
      kchain rehearse            try it here, in minutes
      kchain review              read it
      kchain watch               push it, phase by phase
    """
    change_folder(folder)


def main() -> None:
    """Run the command line; every kchain error becomes one text on stderr and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that knows only ASCII shows a question mark, not a traceback.
            stream.reconfigure(errors="replace")
    try:
        code = group.main(standalone_mode=False)
    except KchainError as error:
        fail(error.message, error.hint)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted; progress is saved", "run the same command again to continue")
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has seen enough (`| head`); nothing may be flushed into the closed pipe at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        place = f"{error.filename}: " if error.filename is not None else ""
        fail(f"{place}{error.strerror or error}", "check the disk and who may write there, then repeat the command")
        sys.exit(InputError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
