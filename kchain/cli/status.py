"""`kchain status`: reads the journal and the results on this machine, and nothing else."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from kchain.cli.common import console, json_option, load_project, print_json, say, target_option


@click.command()
@target_option
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page: lineage, figures, gates, answers.",
)
@json_option
def status(target: str | None, html: Path | None, as_json: bool) -> None:
    """Show where every phase stands, what it learned and what was forgotten, from what was recorded here.

    States: new, reviewed, pushing, queued, running, ended, paused (between two sessions), done, adopted, failed, stale
    (trained on an adapter that has been replaced since). Losses are nats per token on the validation sets.
    """
    chain = load_project()
    from kchain.cli.show import print_judged, print_status
    from kchain.orchestrator.journal.journal import Key, read_states
    from kchain.orchestrator.status import read_results, table

    name = target or chain.target
    states = read_states(chain.root, Key(name, chain.owner, chain.name))
    rows, results = table(chain, states), read_results(chain, states)
    if html is not None:
        from kchain.orchestrator.status import write_page

        write_page(html, chain, name, states)
    if as_json:
        # What a session found; null where there is no result here, or it says nothing.
        told = {phase: result.told for phase, result in results.items()}
        phases = [
            {**asdict(row), **{key: told.get(row.phase, {}).get(key) for key in ("metrics", "evaluation")}}
            for row in rows
        ]
        print_json({"chain": chain.name, "owner": chain.owner, "target": name, "phases": phases})
        return
    say(f"{chain.name} of {chain.owner} on {name}")
    print_status(console, rows)
    print_judged(console, chain, states)
    for row in rows:
        state = states.get(row.phase)
        if state is not None and state.failure is not None:
            say(f"\n{row.phase} failed: {state.failure.reason}")
            if state.failure.hint:
                say(f"  try: {state.failure.hint}")
    if html is not None:
        say(f"everything about it: {html}")
