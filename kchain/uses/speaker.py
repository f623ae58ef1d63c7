"""A model that answers: loaded once, prompted as the training prompted it, stopped where an answer ends.

`load_chain` loads the chain, merged as it is exported; `compare_probe` proves that it is the chain that was trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, TextStreamer

from kchain.errors import InputError
from kchain.runtime.chat import Chat, Refused
from kchain.runtime.contract import answer_ends
from kchain.runtime.model import load_base
from kchain.uses.companions import read_json
from kchain.uses.merged import merged_model
from kchain.uses.sampling import Sampling
from kchain.uses.subject import TrainedPhase, stops_told

# Share of the largest logit by which the probe may differ: another device, and weights rounded to fp16 once.
PROBE_TOLERANCE = 0.05
Turns = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
        tokens: generated, the one that ends the answer included.
        seconds: from the prompt's first token to the answer's last.
        ended: it ended by itself, not because max_tokens was reached.
    """

    text: str
    tokens: int
    seconds: float
    ended: bool


class Speaker:
    """A model's folder, ready to answer.

    Args:
        folder: a whole model with its tokenizer, as `merged.write_merged` writes it.
        tokenizer_folder: whose tokenizer and chat template are used; the model's own, or its successor's.
        pad: {"token", "id"} of the token that ends an answer.
        real: special tokens that count wherever they stand: the styles.
        precision: fp16, bf16, fp32, nf4, or auto: fp16 on a GPU and fp32 on a CPU.

    Raises:
        InputError: the tokenizer is another one, or the model cannot be loaded in this precision.
    """

    def __init__(
        self, folder: Path, tokenizer_folder: Path, pad: dict[str, Any], real: Sequence[str], precision: str
    ) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
        found = self.tokenizer.convert_tokens_to_ids(pad["token"])
        if found != pad["id"]:
            raise InputError(
                f"{folder}: {pad['token']} has id {found}, the chain says {pad['id']}", "give another base model"
            )
        self._chat = Chat(self.tokenizer, real)
        gpu = torch.cuda.is_available()
        number = {"auto": "fp16" if gpu else "fp32", "nf4": "fp16" if gpu else "fp32"}.get(precision, precision)
        with stops_told():
            self.model = load_base(folder, number, "nf4" if precision == "nf4" else "none").eval()
        if len(self.tokenizer) > self.model.get_input_embeddings().num_embeddings:
            self.model.resize_token_embeddings(len(self.tokenizer))
        generation = folder / "generation_config.json"
        told = read_json(generation).get("eos_token_id") if generation.is_file() else None
        self._ends = answer_ends(pad["id"], told)
        self._pad = pad["id"]
        # Nothing of the base model's own sampling may leak into what was asked for here.
        self.model.generation_config = _generation(eos_token_id=self._ends, pad_token_id=self._pad)

    def answer(self, turns: Turns, settings: Sampling, on_text: Callable[[str], None] | None = None) -> Reply:
        """The answer to a conversation that ends with a question.

        Args:
            turns: {"role", "content"}; without a chat template, the last content alone is continued.
            on_text: gets the answer piece by piece, as soon as whole words are known.

        Raises:
            InputError: the chat template does not take these turns.
        """
        ids = torch.tensor([self.encode(turns)], device=self.model.device)
        torch.manual_seed(settings.seed)
        streamer = _Streamer(self.tokenizer, on_text) if on_text is not None else None
        drawn = {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}
        how = _generation(
            max_new_tokens=settings.max_tokens,
            repetition_penalty=settings.repetition_penalty,
            eos_token_id=self._ends,
            pad_token_id=self._pad,
            use_cache=True,
            **(drawn if settings.temperature else {"do_sample": False}),
        )
        began = time.perf_counter()
        with torch.inference_mode():
            made = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=how,
                streamer=streamer,
            )
        new = made[0, ids.shape[1] :].tolist()
        seconds = time.perf_counter() - began  # tolist has waited for the GPU
        text = str(self.tokenizer.decode(new, skip_special_tokens=True))
        return Reply(text, len(new), seconds, bool(new) and new[-1] in self._ends)

    def encode(self, turns: Turns) -> list[int]:
        """Token ids of the prompt, as the training encoded prompts."""
        if not self.tokenizer.chat_template:
            return [*self._chat.begin, *self.tokenizer.encode(turns[-1]["content"], add_special_tokens=False)]
        try:
            with stops_told():
                return self._chat.encode(self._chat.render(list(turns), True))
        except Refused as error:
            raise InputError(f"the chat template refuses this conversation: {error}", "correct its roles") from None


class _Streamer(TextStreamer):
    """Hands on the text of an answer while it is made."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._on_text(text)


def _generation(**settings: Any) -> GenerationConfig:
    return GenerationConfig(**settings)  # type: ignore[no-untyped-call,unused-ignore]


@dataclass(frozen=True)
class Probe:
    """The largest difference between a logit that the session recorded of its trained model and this model's."""

    difference: float
    agrees: bool


def load_chain(subject: TrainedPhase, precision: str) -> Speaker:
    """The chain: every adapter merged into the base, root first, with the last adapter's tokenizer.

    Raises:
        InputError: see `merged_model` and `Speaker`.
    """
    with merged_model(subject) as folder:
        return Speaker(folder, folder, subject.pad, subject.tokens, precision)


def compare_probe(speaker: Speaker, result: Mapping[str, Any]) -> Probe | None:
    """Whether the loaded model says what the trained one said in its session; None where nothing was recorded."""
    told = result.get("probe")
    if not told:
        return None
    with torch.inference_mode():
        ids = torch.tensor([told["prompt_ids"]], device=speaker.model.device)
        logits = speaker.model(input_ids=ids).logits[0, -1].float().cpu()
    recorded = torch.tensor(told["logits"])
    difference = float((logits[: len(recorded)] - recorded).abs().max())
    return Probe(difference, difference <= PROBE_TOLERANCE * max(1.0, float(recorded.abs().max())))
