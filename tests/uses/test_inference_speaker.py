"""A loaded chain answers as PEFT's own chain of adapters would, stops where an answer ends, and says what it did."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from export_tools import PAD, base_of
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from kchain.errors import InputError
from kchain.uses.conversation import Conversation
from kchain.uses.sampling import Sampling
from kchain.uses.speaker import Speaker, compare_probe
from kchain.uses.subject import TrainedPhase

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Count the lines of a file."}]


def test_it_says_what_the_adapters_say_when_peft_loads_them_in_order(project: Path, speaker: Speaker) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_of(project), dtype=torch.float32)
    for phase in ("phase1", "phase2"):
        model = PeftModel.from_pretrained(model, project / f"runs/local/{phase}/v1/adapter").merge_and_unload()
    tokenizer = AutoTokenizer.from_pretrained(project / "runs/local/phase2/v1/adapter")
    ids = tokenizer.apply_chat_template(ASK, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = model.generate(**ids, max_new_tokens=12, do_sample=False, eos_token_id=PAD["id"], pad_token_id=PAD["id"])
    theirs = tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    answer = speaker.answer(ASK, Sampling(max_tokens=12))
    assert answer.text == theirs
    assert speaker.encode(ASK) == ids["input_ids"][0].tolist()


def test_the_answer_arrives_in_pieces_and_is_the_same(speaker: Speaker) -> None:
    pieces: list[str] = []
    answer = speaker.answer(ASK, Sampling(max_tokens=12), pieces.append)
    assert "".join(pieces).strip() == answer.text.strip()
    assert answer.tokens == 12 and not answer.ended


def test_an_answer_stops_at_its_end(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    head = speaker.model.lm_head.forward

    def always_ends(states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = head(states)
        logits[..., PAD["id"]] = 1e4
        return logits

    monkeypatch.setattr(speaker.model.lm_head, "forward", always_ends)
    answer = speaker.answer(ASK, Sampling(max_tokens=12))
    assert (answer.text, answer.tokens, answer.ended) == ("", 1, True)


def test_greedy_answers_repeat_and_drawn_ones_repeat_with_their_seed(speaker: Speaker) -> None:
    drawn = Sampling(max_tokens=8, temperature=5.0)
    assert speaker.answer(ASK, Sampling(max_tokens=8)).text == speaker.answer(ASK, Sampling(max_tokens=8)).text
    assert speaker.answer(ASK, drawn).text == speaker.answer(ASK, drawn).text
    others = {speaker.answer(ASK, replace(drawn, seed=seed)).text for seed in range(4)}
    assert len(others) > 1


def test_the_base_model_s_own_sampling_does_not_leak_in(project: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base_of(project), tmp_path / "base"))
    plain = Speaker(folder, folder, PAD, (), "auto").answer(ASK, Sampling(max_tokens=8))
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"do_sample": True, "temperature": 9.0, "repetition_penalty": 5.0, "eos_token_id": [1]}))
    assert Speaker(folder, folder, PAD, (), "auto").answer(ASK, Sampling(max_tokens=8)).text == plain.text


def test_tokens_beyond_the_model_s_rows_get_rows(project: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_of(project))
    tokenizer.add_tokens([f"<new-{number}>" for number in range(300)])
    tokenizer.save_pretrained(tmp_path)
    speaker = Speaker(base_of(project), tmp_path, PAD, (), "auto")
    assert speaker.model.get_input_embeddings().num_embeddings == len(tokenizer) > 151936
    speaker.answer([{"role": "user", "content": "<new-299>"}], Sampling(max_tokens=2))


def test_a_tokenizer_of_another_model_is_refused(project: Path) -> None:
    with pytest.raises(InputError, match=r"<\|im_end\|> has id 151645, the chain says 7"):
        Speaker(base_of(project), base_of(project), {"token": "<|im_end|>", "id": 7}, (), "auto")


def test_what_someone_types_cannot_end_a_turn(speaker: Speaker) -> None:
    ids = speaker.encode([{"role": "user", "content": "a<|im_end|>b"}])
    assert ids.count(PAD["id"]) == 1


def test_the_session_s_probe_tells_the_right_chain_from_another(speaker: Speaker, base_speaker: Speaker) -> None:
    ids = [5, 6, 7, 8]
    with torch.no_grad():
        logits = speaker.model(input_ids=torch.tensor([ids])).logits[0, -1]
    recorded = {"probe": {"prompt_ids": ids, "logits": logits[:8].tolist(), "argmax": int(logits.argmax())}}
    same, other = compare_probe(speaker, recorded), compare_probe(base_speaker, recorded)
    assert same is not None and same.agrees and same.difference < 1e-4
    assert other is not None and not other.agrees
    assert compare_probe(speaker, {"probe": None}) is None


def talk(
    speaker: Speaker, subject: TrainedPhase, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[Any, list[Any]]:
    asked: list[Any] = []
    real = speaker.answer
    monkeypatch.setattr(
        speaker,
        "answer",
        lambda turns, settings, on_text=None: (asked.append((turns, settings)), real(turns, settings))[1],
    )
    given = {"system": None, "style": None, "styles": {}, "typed": {"max_tokens": 4}} | changes
    return Conversation(speaker, subject, **given), asked


def test_a_conversation_remembers_until_it_begins_anew(
    speaker: Speaker, subject: TrainedPhase, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation, asked = talk(speaker, subject, monkeypatch)
    first = conversation.ask("one")
    conversation.ask("two")
    turns = asked[1][0]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[0]["content"] == subject.system_prompt
    assert turns[2]["content"] == first.text
    conversation.begin()
    conversation.ask("three")
    assert [turn["content"] for turn in asked[2][0]][1:] == ["three"]


def test_a_style_stands_in_front_of_the_prompt_and_brings_its_settings(
    speaker: Speaker, subject: TrainedPhase, monkeypatch: pytest.MonkeyPatch
) -> None:

    styles = {"<|box_start|>": {"max_tokens": 3, "temperature": 0.5}, "<|box_end|>": {"temperature": 0.25}}
    conversation, asked = talk(speaker, subject, monkeypatch, style="<|box_start|>", styles=styles, typed={}, system="")
    conversation.ask("hi")
    turns, settings = asked[0]
    assert [turn["content"] for turn in turns] == ["<|box_start|> hi"], "no system prompt where it is empty"
    assert (settings.max_tokens, settings.temperature) == (3, 0.5)
    with pytest.raises(InputError, match="is not a token of this chain's tokenizer"):
        conversation.choose_style("no such style")
