"""`kchain status`: reads the journal and nothing else."""

from __future__ import annotations

from dataclasses import asdict

import click

from kchain.cli.common import as_typed, console, json_option, load_project, print_json, target_option


@click.command()
@target_option
@json_option
def status(target: str | None, as_json: bool) -> None:
    """Where every phase stands, from the journal alone: nothing is asked and nothing changes.

    States: new, reviewed, pushing, queued, running, ended, paused (between two sessions), done, adopted, failed, stale
    (trained on an adapter that has been replaced since).
    """
    chain = load_project()
    from kchain.cli.tables import print_status
    from kchain.orchestrator.journal import Key, read_states
    from kchain.orchestrator.report import table

    name = target or chain.target
    states = read_states(chain.root, Key(name, chain.owner, chain.name))
    rows = table(chain, states)
    if as_json:
        print_json({"chain": chain.name, "owner": chain.owner, "target": name, "phases": [asdict(row) for row in rows]})
        return
    console.print(f"{chain.name} of {chain.owner} on {name}", markup=False)
    print_status(console, rows)
    for row in rows:
        state = states.get(row.phase)
        if state is not None and state.failure is not None:
            console.print(f"\n{row.phase} failed: {state.failure.reason}", markup=False, soft_wrap=True)
            if state.failure.hint:
                console.print(f"  try: {as_typed(state.failure.hint)}", markup=False, soft_wrap=True)
