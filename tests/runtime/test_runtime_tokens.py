"""Style tokens: their rows alone are trained, stock PEFT loads them, later phases know and merge them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from runtime_tiny import (
    ROWS,
    ancestor,
    build_model,
    build_tokenizer,
    make_root,
    mount,
    parameters,
    read_result,
    rounded,
    run_session,
    source,
    write_jsonl,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from kchain.runtime import session, tokenizer
from kchain.runtime.adapters import Adapter
from kchain.runtime.contract import WEIGHTS
from kchain.runtime.failure import Stop
from kchain.runtime.merge import merge
from kchain.runtime.model import add_lora, load_base
from kchain.runtime.tokenizer import TokenRow

TERSE, VERBOSE = "<STYLE_TERSE>", "<STYLE_VERBOSE>"
STYLES = {"added": [TERSE, VERBOSE], "trained": []}
LORA = parameters()["lora"]
IDS = {TERSE: 151665, VERBOSE: 151666}
SHELL = [{"ask": f"list file {n}", "answer": f"ls {n}", "how": [TERSE, VERBOSE][n % 2]} for n in range(12)]


def styled(**changes: Any) -> dict[str, Any]:
    """PARAMETERS of a phase whose rows say their style in a column."""
    fields = {"prompt": "ask", "completion": "answer", "style": "how"}
    return parameters(**{"tokens": STYLES, "data__sources": [source(fields=fields)], **changes})


@pytest.fixture
def style_root(kaggle: Path) -> Path:
    write_jsonl(kaggle / "temp" / "project" / "train.jsonl", SHELL)
    return kaggle


@pytest.fixture(scope="module")
def first(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The root of a phase that learned two styles, and its session."""
    before = dict(os.environ)
    root = make_root(tmp_path_factory.mktemp("styles"), base)
    write_jsonl(root / "temp" / "project" / "train.jsonl", SHELL)
    os.environ["KCHAIN_KAGGLE_ROOT"] = str(root)
    run = run_session(styled(data__validation=0.4))
    os.environ.clear()
    os.environ.update(before)
    return root, run


def test_styles_are_trained_and_stock_peft_gives_the_sessions_logits_again(base: Path, first: tuple[Path, Any]) -> None:
    root, run = first
    result, folder = read_result(root), root / "working" / "adapter"
    assert result["tokens"] == IDS
    rows = {name: weight for name, weight in load_file(folder / WEIGHTS).items() if "lora" not in name}
    ((name, trained),) = rows.items()
    assert (name.split(".")[-3], tuple(trained.shape), trained.dtype) == ("embed_tokens", (2, 64), torch.float32)
    pieces = run.rows[0].begins_as
    start = load_file(base / "model.safetensors")["model.embed_tokens.weight"][list(pieces)].float().mean(dim=0)
    assert len(pieces) > 2
    assert 0 < (trained[0] - start).abs().max() < 0.2, "it begins as the mean of its name's pieces, and is trained"

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder).eval()
    with torch.no_grad():
        logits = model(torch.tensor([result["probe"]["prompt_ids"]])).logits[0, -1]
    assert torch.allclose(logits[:8], torch.tensor(result["probe"]["logits"]), rtol=0, atol=1e-5)
    assert model.get_input_embeddings().weight.shape[0] == ROWS, "nothing was resized"
    ids = AutoTokenizer.from_pretrained(folder).encode(f"{TERSE} list")
    assert ids[0] == IDS[TERSE]


def test_every_prompt_begins_with_its_style_and_the_validation_split_tells_it(first: tuple[Path, Any]) -> None:
    root, _ = first
    result = read_result(root)
    styles = result["evaluation"]["styles"]
    assert list(styles["by_style"]) == [TERSE, VERBOSE]
    lengths = [style["tokens"] for style in styles["by_style"].values()]
    assert result["metrics"]["style_separation"] == max(lengths) / min(lengths)
    lines = (root / "working" / "validation.jsonl").read_text().splitlines()
    for example in map(json.loads, lines):
        (user,) = [turn["content"] for turn in example["messages"] if turn["role"] == "user"]
        assert user.startswith(f"{example['style']} list file")
    assert lines and {json.loads(line)["style"] for line in lines} <= set(IDS)


def test_a_style_is_one_token_of_the_prompt_and_is_not_learned(style_root: Path) -> None:
    constant = source(style=VERBOSE)
    run = session.start(parameters(tokens=STYLES, data__sources=[constant]), "b" * 64)
    run.preflight()
    run.merge()
    run.load_data()
    for encoded in run.examples:
        (place,) = (encoded.ids == IDS[VERBOSE]).nonzero()[0]
        assert encoded.labels[place] == -100
        assert IDS[TERSE] not in encoded.ids


@pytest.mark.slow
def test_a_later_phase_merges_the_rows_and_knows_the_tokens_without_naming_them(
    base: Path, first: tuple[Path, Any], style_root: Path
) -> None:
    below = first[0] / "working"
    mount(style_root, "notebooks/me/one", below)
    run_session(styled(phase="phase2", lineage=[ancestor("phase1", "me/one")], tokens={"added": [], "trained": []}))
    result, folder = read_result(style_root), style_root / "working" / "adapter"
    assert not any("token" in name for name in load_file(folder / WEIGHTS)), "no rows of its own"
    assert AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(TERSE) == IDS[TERSE]

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = rounded(PeftModel.from_pretrained(model, below / "adapter").merge_and_unload())
    with torch.no_grad():
        logits = PeftModel.from_pretrained(merged, folder).eval()(torch.tensor([result["probe"]["prompt_ids"]])).logits
    assert torch.allclose(logits[0, -1, :8], torch.tensor(result["probe"]["logits"]), rtol=0, atol=1e-5)


def make_adapter(base: Path, folder: Path, seed: int, ids: list[int]) -> Adapter:
    """A LoRA adapter with random factors and random rows, as PEFT saves it."""
    rows = [TokenRow(f"<{number}>", number, (number,)) for number in ids]
    model = add_lora(load_base(base, "fp32", "none"), LORA, seed, rows)
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name or "trainable_tokens" in name:
            weight.data.normal_(std=0.05)
    model.save_pretrained(folder, save_embedding_layers=False)
    return Adapter(f"phase{seed}", "kernel", f"me/{seed}", folder, "", 0)


def exact(base: Path, adapters: list[Adapter], tied: bool) -> dict[str, torch.Tensor]:
    """The merge by the book: in fp64, rounded once to fp16."""
    weights = {name: value.double() for file in base.glob("*.safetensors") for name, value in load_file(file).items()}
    for adapter in adapters:
        tensors = {name: value.double() for name, value in load_file(adapter.folder / WEIGHTS).items()}
        config = json.loads((adapter.folder / "adapter_config.json").read_text())
        for name, value in tensors.items():
            plain = name.removeprefix("base_model.model.")
            if "lora_A" in plain:
                product = tensors[name.replace("lora_A", "lora_B")] @ value
                weights[plain.replace("lora_A.", "")] += product * LORA["alpha"] / LORA["r"]
            elif "trainable_tokens" in plain:
                module = plain.split(".token_adapter")[0]
                ids = next(ids for key, ids in config["trainable_token_indices"].items() if module.endswith(key))
                weights[f"{module}.weight"][ids] = value
                if tied and "lm_head.weight" in weights:
                    weights["lm_head.weight"][ids] = value
    return {name: value.half() for name, value in weights.items()}


@pytest.mark.parametrize("kind", ["tied", "untied", "tied bf16", "untied fp32 in shards", "tied with a stored head"])
def test_merged_rows_are_those_of_an_fp64_merge_rounded_once(kind: str, tmp_path: Path) -> None:
    dtype = "bfloat16" if "bf16" in kind else "float32" if "fp32" in kind else "float16"
    options = {"max_shard_size": "100KB"} if "shards" in kind else {}
    tied = not kind.startswith("untied")
    base = build_model(tmp_path / "base", dtype, tied=tied, rows=600, **options)
    if "stored" in kind:
        weights = load_file(base / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        save_file(weights, base / "model.safetensors", {"format": "pt"})
    adapters = [make_adapter(base, tmp_path / f"a{n}", n, ids) for n, ids in enumerate([[570, 580], [], [580, 590]])]
    folder = merge(base, adapters, LORA, tmp_path / "merged")
    found = {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}
    expected = exact(base, adapters, tied)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if "embed_tokens" in name or "lm_head" in name:
            assert torch.equal(found[name], value), name
        else:  # fp32 sums of the factors, one rounding: half a unit in the last place more than fp64's
            assert torch.allclose(found[name].float(), value.float(), rtol=1e-3, atol=1e-7), name
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight) is tied
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]


def test_the_merged_base_has_the_tokenizer_with_the_tokens(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "a", 1, [151665])
    knows = build_tokenizer()
    knows.add_tokens([TERSE])
    knows.save_pretrained(adapter.folder)
    other = make_adapter(base, tmp_path / "b", 2, [])  # an adopted one: no tokenizer beside it
    found = AutoTokenizer.from_pretrained(merge(base, [adapter, other], LORA, tmp_path / "merged"))
    assert found.convert_tokens_to_ids(TERSE) == 151665
    assert found.chat_template == build_tokenizer().chat_template


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        ({"added": ["<|im_start|>"], "trained": []}, "tokens.added: <|im_start|> exists already"),
        ({"added": [], "trained": ["<NO_SUCH>"]}, "tokens.trained: <NO_SUCH> is not a token of the tokenizer"),
        ({"added": [], "trained": ["<filler-700>"]}, "tokens.trained: <filler-700> is not a token of the tokenizer"),
    ],
)
def test_a_token_that_exists_already_or_not_at_all_ends_the_session_before_training(
    kaggle: Path, tokens: dict[str, list[str]], reason: str
) -> None:
    with pytest.raises(Stop, match=reason.replace("|", r"\|")):
        run_session(parameters(tokens=tokens))
    assert read_result(kaggle)["reason"].startswith("data: tokens.")


def test_a_style_that_is_no_token_ends_the_session_before_training(kaggle: Path) -> None:
    with pytest.raises(Stop, match="style <STYLE_TRESE>: no token of that name") as caught:
        run_session(parameters(tokens=STYLES, data__sources=[source(style="<STYLE_TRESE>")]))
    assert "tokens.added" in caught.value.cure


def test_a_model_without_spare_rows_is_refused_with_the_way_out(tmp_path: Path) -> None:
    base = build_model(tmp_path / "base", rows=151665)
    build_tokenizer().save_pretrained(base)
    loaded = tokenizer.load(base, {"token": "<|im_end|>", "id": 151645})
    with pytest.raises(Stop, match="would be token 151665, and the base model has 151665 rows") as caught:
        tokenizer.token_rows(loaded, STYLES, base)
    assert "tokens.trained" in caught.value.cure


@pytest.mark.long
def test_a_reserved_token_that_the_model_has_can_be_a_style(kaggle: Path) -> None:
    tokens = {"added": [], "trained": ["<|vision_pad|>"]}
    run = run_session(parameters(tokens=tokens, data__sources=[source(style="<|vision_pad|>")]))
    assert read_result(kaggle)["tokens"] == {"<|vision_pad|>": 151654}
    assert all((example.ids == 151654).sum() == 1 for example in run.examples)


def test_the_tokenizer_of_another_base_beside_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    other = build_tokenizer()
    state = json.loads(other.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary["<filler-500>"], vocabulary["<filler-501>"] = vocabulary["<filler-501>"], vocabulary["<filler-500>"]
    other.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    adapter = Adapter("phase1", "dataset", "me/one", tmp_path, "", 0)
    with pytest.raises(Stop, match="2 tokens have other ids"):
        tokenizer.load(base, {"token": "<|im_end|>", "id": 151645}, [adapter])


def test_rows_beyond_the_base_are_refused_at_preflight(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "a", 1, [151900])
    small = build_model(tmp_path / "small", rows=151665)
    with pytest.raises(Stop, match="phase1 trained token 151900; model.embed_tokens.weight .* has 151665 rows"):
        merge(small, [adapter], LORA, tmp_path / "merged")
