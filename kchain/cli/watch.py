"""`kchain watch` and `kchain run`."""

from __future__ import annotations

import click

from kchain.cli.common import console, load_project, say, target_of, target_option


@click.command()
@target_option
@click.option("--yes", is_flag=True, help="Approve every unfinished phase as it renders now.")
@click.option("--once", is_flag=True, help="Do what is possible now, then return: for cron.")
def watch(target: str | None, yes: bool, once: bool) -> None:
    """Drive the chain from wherever it is until all phases are done.

    Follows the running version, pulls and verifies its adapter, checks the gates, pushes the next reviewed phase.
    It can be stopped or killed at any moment and started again.

    \b
    Exit codes: 0 done · 1 a phase failed or missed a gate · 2 bad input · 3 not now · 4 target unreachable · 130 Ctrl-C
    """
    _drive(target, yes, once)


@click.command()
@target_option
def run(target: str | None) -> None:
    """Run the whole chain, approving what renders now: `kchain watch --yes`."""
    _drive(target, yes=True, once=False)


def _drive(target: str | None, yes: bool, once: bool) -> None:
    chain = load_project()
    from kchain.cli.progress import Terminal
    from kchain.cli.show import print_finished, print_judged, print_status
    from kchain.orchestrator.journal.journal import Key, read_states
    from kchain.orchestrator.status import is_finished, table
    from kchain.orchestrator.watch import watch as drive

    place = target_of(chain, target)
    finished_before = is_finished(chain, read_states(chain.root, Key(place.name, chain.owner, chain.name)))
    with Terminal(console) as terminal:
        states = drive(chain, place, terminal, yes=yes, once=once)
    if not is_finished(chain, states):
        print_status(console, table(chain, states))
        return
    print_finished(console, chain, states)
    print_judged(console, chain, states)
    if finished_before:
        say("The chain is finished; nothing was pushed.")
