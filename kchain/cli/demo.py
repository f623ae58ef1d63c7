"""`kchain demo`."""

from __future__ import annotations

from pathlib import Path

import click

from kchain.cli.common import console, say


@click.command()
@click.argument(
    "folder", metavar="[DIR]", default="kchain-demo", type=click.Path(file_okay=False, path_type=Path), required=False
)
def demo(folder: Path) -> None:
    """Run a four-phase chain on this machine, in a few minutes.

    Makes a project in DIR (kchain-demo), publishes a tiny base model and sample data to the Kaggle-compatible server,
    and then does what `kchain run` does against Kaggle. Interrupted, it resumes.

    \b
    Afterwards, look at:
      kchain -C kchain-demo status --html chain.html     what each phase learned and forgot
      kchain -C kchain-demo logs phase2
      kchain-demo/build/local/phase2/notebook.ipynb      what was pushed
      kchain-demo/runs/local/phase4/                     what came back

    Needs: pip install "kchain[train]"
    """
    from kchain.cli.progress import Terminal
    from kchain.cli.show import print_finished, print_judged
    from kchain.client.target import LOCAL, Target
    from kchain.demo.project import check_packages, open_project, publish
    from kchain.orchestrator.journal.journal import Key, read_states
    from kchain.orchestrator.status import is_finished
    from kchain.orchestrator.watch import watch

    chain = open_project(folder)
    target = Target(LOCAL, chain.owner, chain.root)
    states = read_states(chain.root, Key(target.name, chain.owner, chain.name))
    if is_finished(chain, states):
        print_finished(console, chain, states)
        say("The chain is finished; nothing was pushed.")
        return
    check_packages()
    say(f"Project: {folder}; base model and sample data: {target.local_root}")
    publish(target.local_root)
    with Terminal(console) as terminal:
        finished = watch(chain, target, terminal, yes=True)
    print_finished(console, chain, finished)
    print_judged(console, chain, finished)
    say(f"\nLook into it: kchain -C {folder} status --html chain.html")
