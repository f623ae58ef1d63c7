"""`kchain export`."""

from __future__ import annotations

from pathlib import Path

import click

from kchain.cli.common import (
    base_option,
    gguf_kind,
    json_option,
    load_project,
    print_json,
    say,
    target_of,
    target_option,
)


@click.command()
@click.argument("phase", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(("safetensors", "adapter", "gguf")),
    default="safetensors",
    show_default=True,
    help="The format, as above.",
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(("f16", "q8_0")),
    help="Number format of a GGUF file: 16 bits, or 8 with a scale per 32.  [default: f16]",
)
@base_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Output.  [default: exports/PHASE-model, PHASE-adapter or PHASE-TYPE.gguf]",
)
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@target_option
@json_option
def export(
    phase: str | None,
    form: str,
    kind: str | None,
    base: Path | None,
    out: Path | None,
    force: bool,
    target: str | None,
    as_json: bool,
) -> None:
    """Export PHASE (default: the last one) in a format that others can load.

    \b
    safetensors  the merged model in fp16 for transformers, with tokenizer and model card
    adapter      one exact LoRA adapter of all phases, for the original base model
    gguf         one file for llama.cpp (Qwen2, Qwen3, Llama and Mistral with a byte-level BPE tokenizer)

    Needs the base model on this machine; without it: docs/use-the-model.md.

    Needs: pip install "kchain[export]"
    """
    kind = gguf_kind(form, kind)
    chain = load_project()
    from kchain.orchestrator.finished import choose_phase
    from kchain.publish.content import read_subject
    from kchain.units import size
    from kchain.uses.export import export as write
    from kchain.uses.export import export_name

    subject = read_subject(chain, choose_phase(chain, phase), target_of(chain, target), base)
    made = write(subject, form, kind, out or chain.root / "exports" / export_name(subject.phase, form, kind), force)
    if as_json:
        print_json(made.as_dict())
        return
    say(", then ".join([chain.model.source, *(part.phase for part in subject.parts)]))
    for name, file in made.manifest["files"].items():
        say(f"{size(file['bytes']):>10}  {file['sha256'][:10]}  {name}")
    say(f"exported to {made.path} ({size(made.bytes)})")
