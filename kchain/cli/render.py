"""`kchain render`."""

from __future__ import annotations

import click
from rich.table import Table

from kchain.cli.common import console, json_option, load_project, print_json, target_option


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
    from kchain.client.target import Target
    from kchain.orchestrator.driving.folders import adopted

    place = Target(target or chain.target, chain.owner, chain.root)
    sources = adopted(chain.root, place.name)
    names = [chain.phase(phase).name] if phase else [each.name for each in chain.phases]
    bundles = [build(chain, name, place.name, sources) for name in names]
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
    else:
        _print(rows)


def _print(rows: list[dict[str, str | int]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for heading in ("phase", "written to", "bundle", "size"):
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=True)
    for row in rows:
        size = f"{int(row['bytes']) / 1024:.0f} KiB"
        table.add_row(str(row["phase"]), str(row["folder"]), str(row["hash"])[:12], size)
    console.print(table)
