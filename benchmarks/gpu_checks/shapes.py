"""Random models in the shapes of published ones, made on the card and written as a download would be."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARD = 4 * 10**9  # bytes of one file
QWEN = "Qwen2Config"


@dataclass(frozen=True)
class Model:
    """A model to be made.

    Attributes:
        config: class of transformers, and what its config says.
        spoilt: weights that are not random: a part of their name -> what is done to them.
    """

    title: str
    config: str
    sizes: dict[str, Any]
    spoilt: tuple[str, str] | None = None


def _qwen(hidden: int, layers: int, heads: int, kv: int, inner: int, vocab: int, tied: bool) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": inner,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
    }


NARROW = _qwen(896, 2, 14, 2, 4864, 8192, tied=False)
GEMMA = {
    "hidden_size": 2304,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "intermediate_size": 9216,
    "vocab_size": 256000,
}
BAD_WORD = 777
MODELS = {
    "half": Model("Qwen2.5-0.5B", QWEN, _qwen(896, 24, 14, 2, 4864, 151936, tied=True)),
    "small": Model("two layers of Qwen2.5-0.5B", QWEN, NARROW),
    "no-number": Model("the same, the embedding of one word NaN", QWEN, NARROW, ("embed_tokens", "nan")),
    "too-large": Model("the same, activations beyond 65,504", QWEN, NARROW, ("0.mlp.down_proj", "large")),
    "wide": Model("two layers of Qwen2.5-7B", QWEN, _qwen(3584, 2, 28, 4, 18944, 8192, tied=False)),
    "middle": Model("Qwen2.5-1.5B", QWEN, _qwen(1536, 28, 12, 2, 8960, 151936, tied=True)),
    "gemma": Model("Gemma-2-2B", "Gemma2Config", GEMMA),
    "seven": Model("Qwen2.5-7B", QWEN, _qwen(3584, 28, 28, 4, 18944, 152064, tied=False)),
}
# What is made beside each other, by three processes: first what the first checks wait for.
BATCHES = (("half", "small", "no-number", "too-large", "wide"), ("middle", "gemma"), ("seven",))
TINY = _qwen(64, 2, 4, 2, 128, 1024, tied=True) | {"head_dim": 16}
TINY_UNTIED = TINY | {"tie_word_embeddings": False}


def sizes(name: str, tiny: bool) -> dict[str, Any]:
    """What the config of a model says."""
    model = MODELS[name]
    if not tiny:
        return model.sizes
    return TINY if model.sizes.get("tie_word_embeddings", True) else TINY_UNTIED


def words(name: str, tiny: bool) -> int:
    """Rows of a model's embedding."""
    return int(sizes(name, tiny)["vocab_size"])


def shape(name: str) -> Any:
    """The same as `kchain plan` sees it."""
    from kchain.phases.model_config import shape_of

    kind = "gemma2" if MODELS[name].config.startswith("Gemma2") else "qwen2"
    capped = {"attn_logit_softcapping": 50.0} if kind == "gemma2" else {}
    return shape_of({"model_type": kind, **capped, **MODELS[name].sizes})


def make(folder: Path, names: tuple[str, ...], tiny: bool) -> None:
    """Makes models one after the other, and says so after each."""
    for name in names:
        write(folder / name, MODELS[name], sizes(name, tiny), tiny)
        print(f"made {name}", flush=True)


def write(folder: Path, model: Model, told: dict[str, Any], tiny: bool) -> None:
    """Config and shards of fp16 weights, tensor by tensor."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    config = getattr(transformers, model.config)(**told, max_position_embeddings=32768, eos_token_id=2, bos_token_id=1)
    with torch.device("meta"):
        skeleton = transformers.AutoModelForCausalLM.from_config(config)
    config.architectures, config.dtype = [type(skeleton).__name__], "float16"
    config.save_pretrained(folder)
    transformers.GenerationConfig(eos_token_id=2).save_pretrained(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(7)
    tied = config.tie_word_embeddings
    gemma, shards = model.config.startswith("Gemma"), _Shards(folder)
    for name, weight in skeleton.named_parameters():
        if tied and name.startswith("lm_head"):
            continue
        shards.add(name, _spoil(name, _random(name, weight.shape, generator, gemma, device), model.spoilt))
    shards.close()


def _random(name: str, shape: Any, generator: Any, gemma: bool, device: str) -> Any:
    """A weight: norms do nothing, biases are small, the rest as models are initialized."""
    import torch

    if "norm" in name:
        # Logits of a random model are close together; a larger last norm gives training something to move.
        scale = 4.0 if name.endswith("model.norm.weight") else 1.0
        return torch.full(tuple(shape), scale - gemma, dtype=torch.float16, device=device)
    made = torch.empty(tuple(shape), dtype=torch.float16, device=device)
    return made.normal_(std=0.02, generator=generator)


def _spoil(name: str, weight: Any, spoilt: tuple[str, str] | None) -> Any:
    if spoilt and spoilt[0] in name:
        if spoilt[1] == "nan":
            weight[BAD_WORD] = float("nan")
        else:
            weight *= 2e5
    return weight


class _Shards:
    """Files of weights of a model, and their index."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.held, self.size, self.places, self.total = folder, {}, 0, {}, 0

    def add(self, name: str, weight: Any) -> None:
        if self.size + weight.nbytes > SHARD and self.held:
            self._write()
        self.held[name] = weight.cpu()
        self.size += weight.nbytes

    def close(self) -> None:
        self._write()
        files = sorted(set(self.places.values()))
        if len(files) == 1:
            (self.folder / files[0]).rename(self.folder / "model.safetensors")
            return
        index = {"metadata": {"total_size": self.total}, "weight_map": self.places}
        (self.folder / "model.safetensors.index.json").write_text(json.dumps(index))

    def _write(self) -> None:
        from safetensors.torch import save_file

        file = f"model-{len(set(self.places.values())) + 1:05}.safetensors"
        save_file(self.held, self.folder / file, metadata={"format": "pt"})
        self.places |= dict.fromkeys(self.held, file)
        self.total += self.size
        self.held, self.size = {}, 0


def main(folder: str, batch: str, tiny: str) -> None:
    """The part "make" of the script."""
    make(Path(folder) / "models", BATCHES[int(batch)], tiny == "tiny")
    sys.stdout.flush()
