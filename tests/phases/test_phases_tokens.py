"""Style tokens and adapter modes in the phase files: what is legal, and what a phase is then built on."""

from __future__ import annotations

from pathlib import Path

import pytest

from kchain.errors import InputError
from kchain.kernel_metadata import AdapterSource, adapter_sources
from kchain.orchestrator.journal.state import PhaseState, expected_lineage, is_stale
from kchain.phases import Chain, load_chain
from kchain.templates.parameters import parameters_of_phase

SOURCE = 'sources = [{ name = "a", dataset = "a/b", fields = { prompt = "p", completion = "c"%s } }]'


def project(root: Path, **phases: str) -> Path:
    """A project; each phase by the lines at the top of its file, with [tokens] last."""
    (root / "phases").mkdir()
    (root / "kchain.toml").write_text(
        '[chain]\nname = "demo"\nowner = "someone"\n[model]\nsource = "a/b/transformers/c/1"\n'
    )
    for name, lines in phases.items():
        top, _, tokens = lines.partition("[tokens]")
        text = f'title = "A phase {name}"\ndescription = "x"\n{top}\n[data]\n'
        (root / "phases" / f"{name}.toml").write_text(text + SOURCE % "" + (f"\n[tokens]{tokens}" if tokens else ""))
    return root


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return load_chain(
        project(
            tmp_path,
            one='[tokens]\nadded = ["<A>", "<B>"]',
            two='after = "one"\nadapter = "continue"',
            three='after = "two"\nadapter = "continue"',
            four='after = "three"\n[tokens]\ntrained = ["<A>"]',
            five='after = "four"\nadapter = "continue"',
            side='after = "two"',
        )
    )


def names(phases: tuple) -> list[str]:
    return [phase.name for phase in phases]


def test_only_the_last_of_a_continued_run_is_merged_below_its_descendants(chain: Chain) -> None:
    merged = {phase.name: names(chain.merged(phase.name)) for phase in chain.phases}
    assert merged == {
        "one": [],
        "two": [],
        "three": [],
        "four": ["three"],
        "five": ["three"],
        "side": ["two"],
    }
    built_on = {phase.name: names(chain.lineage(phase.name)) for phase in chain.phases}
    assert built_on["three"] == ["two"], "the adapter it trains on, and not the one that adapter came from"
    assert built_on["five"] == ["three", "four"]


def test_a_continued_adapter_keeps_the_tokens_it_came_with(chain: Chain) -> None:
    assert chain.phase("three").tokens.trained == ("<A>", "<B>")
    assert chain.phase("five").tokens.trained == ("<A>",)
    assert chain.phase("side").tokens.all == ()


def test_the_notebook_is_told_what_to_merge_and_what_to_train_on(chain: Chain) -> None:
    adopted = {"four": AdapterSource("four", "dataset", "someone/mine", "", "ab" * 32)}
    told = parameters_of_phase(chain, "five", "kaggle", adapter_sources(chain, "five", adopted))
    assert told["adapter_mode"] == "continue"
    assert [(entry["phase"], entry["ref"], entry["use"]) for entry in told["lineage"]] == [
        ("three", "someone/a-phase-three", "merge"),
        ("four", "someone/mine", "continue"),
    ]
    assert told["tokens"] == {"added": [], "trained": ["<A>"]}


def result(sha256: str, *lineage: tuple[str, str]) -> PhaseState:
    from kchain.orchestrator.journal.state import Ancestor, Result

    return PhaseState(
        result=Result(
            version=1, kind="kernel", ref="x/y", source_folder="adapter", adopted=False, sha256=sha256, bytes=1,
            lineage=tuple(Ancestor(*entry) for entry in lineage), pad_id=1, metrics={}, moved={}, seconds=1.0,
            folder="x", time=1.0,
        )
    )  # fmt: skip


def test_a_retrained_parent_makes_the_phase_that_continues_it_stale(chain: Chain) -> None:
    states = {"one": result("1"), "two": result("2", ("one", "1")), "side": result("s", ("two", "2"))}
    assert not is_stale(chain, states, "two")
    assert [entry.phase for entry in expected_lineage(chain, states, "side") or ()] == ["two"]
    states["one"] = result("1 again")
    assert is_stale(chain, states, "two")
    states["two"] = result("2 again", ("one", "1 again"))
    assert is_stale(chain, states, "side"), "what it stands on was trained again"


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ({"one": 'adapter = "continue"'}, "phases/one.toml: adapter: .*name one, or leave adapter out"),
        (
            {"one": "", "two": 'after = "one"\nadapter = "continue"\n[tokens]\nadded = ["<A>"]'},
            "phases/two.toml: tokens: with adapter = .continue. the tokens are those",
        ),
        ({"one": 'adapter = "replace"'}, "phases/one.toml: adapter: "),
        (
            {
                "one": '[tokens]\nadded = ["<A>"]',
                "two": 'after = "one"',
                "tri": 'after = "two"\n[tokens]\nadded = ["<A>"]',
            },
            "tri.toml: tokens.added: one adds '<A>' already",
        ),
        ({"one": '[tokens]\nadded = ["<A>"]\ntrained = ["<A>"]'}, "a token is named once"),
        ({"one": '[tokens]\nadded = ["two words"]'}, "tokens.added"),
    ],
)
def test_what_is_not_legal_is_told_with_its_file_and_key(tmp_path: Path, phases: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_chain(project(tmp_path, **phases))


def test_a_source_has_one_style_or_a_column_of_them(tmp_path: Path) -> None:
    root = project(tmp_path, one="")
    file = root / "phases" / "one.toml"
    plain = file.read_text()
    file.write_text(plain.replace('completion = "c" }', 'completion = "c", style = "how" }'))
    assert load_chain(root).phase("one").data.sources[0].fields["style"] == "how"
    file.write_text(plain.replace('completion = "c" }', 'completion = "c" }, style = "<A>"'))
    assert load_chain(root).phase("one").data.sources[0].style == "<A>"
    file.write_text(plain.replace('completion = "c" }', 'completion = "c", style = "how" }, style = "<A>"'))
    with pytest.raises(InputError, match="give style .* or fields.style .*, not both"):
        load_chain(root)
