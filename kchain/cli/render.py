"""`kchain render`."""

from __future__ import annotations

import click

from kchain.cli.common import (
    console,
    json_option,
    load_project,
    new_table,
    phase_names,
    print_json,
    print_table,
    target_of,
    target_option,
)


@click.command()
@click.argument("phase", required=False)
@target_option
@json_option
def render(phase: str | None, target: str | None, as_json: bool) -> None:
    """Write the notebook and kernel-metadata.json of PHASE (default: every phase) into build/TARGET/PHASE/.

    Nothing is pushed. The same files always give the same bytes.
    """
    chain = load_project()
    from kchain.bundle import build, source_bytes, write
    from kchain.orchestrator.driving.folders import adopted

    place = target_of(chain, target)
    sources = adopted(chain.root, place.name)
    bundles = [build(chain, name, place.name, sources) for name in phase_names(chain, phase)]
    rows: list[dict[str, str | int]] = [
        {
            "phase": bundle.phase,
            "folder": write(bundle, chain.root).relative_to(chain.root).as_posix(),
            "hash": bundle.hash,
            "code_hash": bundle.code_hash,
            "bytes": source_bytes(bundle.notebook),
        }
        for bundle in bundles
    ]
    if as_json:
        print_json(rows)
        return
    table = new_table("phase", "written to", "bundle", ">size")
    for row in rows:
        size = f"{int(row['bytes']) / 1024:.0f} KiB"
        table.add_row(str(row["phase"]), str(row["folder"]), str(row["hash"])[:12], size)
    print_table(console, table)
