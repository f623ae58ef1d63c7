"""The memory of a training step: each term against arithmetic by hand, autograd itself, or a published figure."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kchain.errors import InputError
from kchain.phases.memory import CHUNK, POOL, Loss, Memory, layer_bytes, memory
from kchain.phases.models import Shape, known, shape_of
from kchain.units import GIB

QWEN25 = known("qwen2.5")
STOCK = Loss(whole=3 * 4)  # as transformers computes it: an fp32 result, and two gradients of that size beside it

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LLAMA3_8B = Shape(4096, 32, 32, 8, 14336, 128256, False, biases=())
QWEN3_4B = Shape(2560, 36, 32, 8, 9728, 151936, True, head=128, biases=(), qk_norm=True)
USUAL: dict[str, Any] = {
    "shape": QWEN25["7b"], "precision": "fp16", "quantization": "nf4", "batch": 2, "length": 1024, "rank": 16,
    "targets": ALL, "optimizer": "paged_adamw_8bit", "checkpointing": True,
}  # fmt: skip


def of(**changes: Any) -> Memory:
    return memory(**(USUAL | changes))


@pytest.mark.parametrize(
    "shape, quantization, published",
    [(QWEN25["7b"], "nf4", 5.764), (LLAMA3_8B, "nf4", 5.594), (QWEN3_4B, "none", 8.547)],
    ids=["Qwen2.5-7B nf4", "Llama-3-8B nf4", "Qwen3-4B fp16"],
)
def test_the_load_is_near_the_published_load(shape: Shape, quantization: str, published: float) -> None:
    """GiB as CUDA's allocator reported them on a T4 (published Unsloth notebooks)."""
    load = of(shape=shape, quantization=quantization).load / GIB
    assert published - 0.8 <= load <= published + 0.3


def test_nf4_weights_are_the_published_sum() -> None:
    shape = QWEN25["7b"]
    linear = 28 * (2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944)
    rest = 2 * 152064 * 3584 + 28 * (3584 + 2 * 512 + 2 * 3584) + 3584
    assert of().weights == math.ceil(linear * 0.5159) + 2 * rest
    assert of(quantization="none").weights == 2 * shape.parameters
    assert of(quantization="none", precision="fp32").weights == 4 * shape.parameters


def test_nf4_takes_as_many_bytes_as_bitsandbytes_stores() -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(1024, 4096)
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    constants = state.absmax.nbytes + state.state2.absmax.nbytes
    assert (packed.nbytes + constants) / weight.numel() == pytest.approx(0.5159, abs=1e-4)


def test_adapter_and_optimizer_follow_from_the_trainable_weights() -> None:
    trainable = 28 * 16 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    assert of().adapter == 4 * trainable
    assert of(optimizer="adamw_torch").optimizer == trainable * (4 + 8)
    assert of(optimizer="adamw_8bit").optimizer == math.ceil(trainable * (4 + 2 + 8 / 256))


def test_the_notebook_s_loss_holds_one_chunk_of_scores_and_the_states() -> None:
    found = of(batch=2, length=2048)
    states = 2 * 2048 * 3584 * (4 + 2)
    assert found.logits == (2**25 // 152064) * 152064 * (4 + 2) + states
    assert of(precision="fp32").logits == (2**25 // 152064) * 152064 * 4 + 2 * 1024 * 3584 * 8
    assert of(batch=1, length=64).logits == 64 * (152064 * 6 + 3584 * 6), "no more positions than there are"


def test_a_chunk_is_as_large_as_the_notebook_s_own() -> None:
    loss = pytest.importorskip("kchain.runtime.loss")
    assert loss.CHUNK == CHUNK


def test_a_stock_loss_holds_three_fp32_copies_of_every_position() -> None:
    assert of(batch=2, length=2048, loss=STOCK).logits == 3 * 2 * 2048 * 152064 * 4


def test_capped_scores_are_all_kept() -> None:
    capped = of(shape=dataclasses.replace(LLAMA3_8B, softcap=True))
    assert capped.logits > 2048 * 128256 * 3 * 2


def test_trained_rows_of_the_embedding_cost_a_copy_of_it_while_nothing_else_is_kept() -> None:
    """The adapter has them in fp32, of the embedding and of a head that is another."""
    assert of(rows=2).adapter - of().adapter == 2 * 2 * 3584 * 4
    short, whole = of(rows=2, batch=1, length=64), of(batch=1, length=64)
    assert short.activations + short.logits == 152064 * 3584 * 2
    assert whole.activations + whole.logits < 152064 * 3584 * 2
    assert of(rows=2, checkpointing=False).activations == pytest.approx(of(checkpointing=False).activations, rel=1e-3)


def test_a_layer_works_in_the_room_that_the_logits_leave() -> None:
    checkpoints = 28 * 2048 * 3584 * 2 + of(loss=STOCK).adapter // 2
    assert of(loss=STOCK).activations == checkpoints
    assert of().activations > checkpoints
    # A stock loss makes the total grow by no more than its logits do.
    assert of().activations + of().logits < of(loss=STOCK).activations + of(loss=STOCK).logits


def test_several_examples_in_a_row_need_a_mask_as_long_as_the_row() -> None:
    one, four = of(batch=1, length=4096, checkpointing=False), of(batch=4, length=1024, checkpointing=False)
    assert four.activations - one.activations == 28 * 4096 * 4096 * 2
    padded = of(batch=4, length=1024, checkpointing=False, packed=False)
    assert padded.activations - one.activations == 28 * 4096 * 1024 * 2


def test_the_margin_is_half_a_gib_and_a_share_of_what_moves() -> None:
    found = of()
    assert found.margin == GIB // 2 + math.ceil(0.05 * (found.optimizer + found.activations + found.logits))
    assert found.load == found.weights + found.adapter + POOL


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["Qwen2", "Qwen3", "Llama", "Mistral", "Gemma", "Gemma2", "Gemma3Text"])
@pytest.mark.parametrize("targets", [ALL[:4], ALL], ids=["attention", "all"])
def test_autograd_keeps_what_a_layer_is_planned_to_keep(name: str, targets: tuple[str, ...]) -> None:
    """The oracle: storages that autograd saves of a real layer under peft and autocast, two layers less one."""
    pytest.importorskip("peft")
    batch, length, rank = 2, 64, 16
    shape, three = saved_bytes(name, targets, 3, batch, length, rank)
    _, two = saved_bytes(name, targets, 2, batch, length, rank)
    # Outside of the plan's count of a layer: autocast's copy of its adapter, counted once for all layers.
    copies = (shape.adapter_bytes(rank, targets) or 0) // shape.layers // 2
    # Dropout on a CPU keeps its mask in fp32; on a GPU it is one byte a value.
    cpu_masks = batch * length * sum(3 * shape.linear[module][0] for module in targets)
    planned = layer_bytes(shape, 2, batch, length, rank, frozenset(targets), packed=False)
    assert three - two - copies - cpu_masks == pytest.approx(planned, rel=0.03)


def saved_bytes(name: str, targets: tuple[str, ...], layers: int, *sizes: int) -> tuple[Shape, int]:
    """Bytes of the storages saved for the backward pass, but for the model's own weights."""
    import peft
    import torch
    import transformers

    batch, length, rank = sizes
    config = getattr(transformers, f"{name}Config")(
        hidden_size=256, num_hidden_layers=layers, num_attention_heads=8, num_key_value_heads=2, head_dim=32,
        intermediate_size=704, vocab_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    base = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    lora = peft.LoraConfig(r=rank, target_modules=list(targets), lora_dropout=0.05, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, lora).train()
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)  # holds it, so that no address is used twice
        return tensor

    ids = torch.randint(0, 64, (batch, length))
    mask = torch.ones_like(ids)
    mask[1, -3:] = 0  # without padding there is no mask to keep
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        output = model(input_ids=ids, attention_mask=mask, labels=ids)
    assert output.loss.requires_grad
    total = sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in own)
    return shape_of(config.to_dict()), total


SETTINGS = st.fixed_dictionaries(
    {
        "shape": st.sampled_from([*QWEN25.values(), LLAMA3_8B, QWEN3_4B, dataclasses.replace(LLAMA3_8B, softcap=True)]),
        "precision": st.sampled_from(["fp16", "bf16", "fp32"]),
        "quantization": st.sampled_from(["none", "nf4"]),
        "batch": st.integers(1, 64),
        "length": st.integers(8, 8192),
        # Far above it autocast's copies of the adapter outweigh what half precision saves.
        "rank": st.integers(1, 64),
        "targets": st.sets(st.sampled_from(ALL), min_size=1),
        "optimizer": st.sampled_from(["paged_adamw_8bit", "adamw_8bit", "adamw_torch"]),
        "checkpointing": st.booleans(),
    }
)


@given(SETTINGS, st.sampled_from(["batch", "length", "rank"]))
def test_more_of_anything_never_takes_less(setting: dict[str, Any], key: str) -> None:
    more = setting | {key: setting[key] + 1}
    assert memory(**more).total >= memory(**setting).total


@given(SETTINGS)
def test_what_saves_memory_never_takes_more(setting: dict[str, Any]) -> None:
    found = memory(**setting).total
    assert memory(**setting | {"optimizer": "adamw_8bit"}).total <= found
    # Autocast's copies of the adapter come on top: of a few short examples they are all that is left of the difference.
    assert memory(**setting | {"precision": "fp16"}).total <= 1.005 * found
    if setting["shape"].layers > 1:
        assert memory(**setting | {"checkpointing": True}).total <= memory(**setting | {"checkpointing": False}).total


@given(SETTINGS)
def test_the_total_is_the_sum_of_its_terms_and_none_is_negative(setting: dict[str, Any]) -> None:
    terms = memory(**setting).as_dict()
    total = terms.pop("total")
    assert total == sum(terms.values())
    assert min(terms.values()) >= 0
    assert list(terms) == ["weights", "adapter", "optimizer", "activations", "logits", "margin"]


def test_all_linear_means_every_linear_module() -> None:
    assert of(targets=("all-linear",)) == of(targets=ALL)


def test_a_target_that_the_model_has_not_is_told() -> None:
    with pytest.raises(InputError, match="no module c_attn, wte") as told:
        of(targets=("q_proj", "wte", "c_attn"))
    assert "gate_proj" in told.value.hint
