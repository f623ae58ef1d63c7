"""Where the family and the tokenizer of a base model come from, without asking anybody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kchain.errors import InputError
from kchain.phases import Chain, load_chain
from kchain.phases.init import make_project
from kchain.rehearse.model import find_base


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches of this test alone."""
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def chain(folder: Path, source: str = "qwen-lm/qwen2.5/transformers/0.5b-instruct/1") -> Chain:
    project = folder / "project"
    make_project(project, "qwen-t4", "someone")
    file = project / "kchain.toml"
    text = file.read_text(encoding="utf-8").replace("qwen-lm/qwen2.5/transformers/0.5b-instruct/1", source)
    file.write_text(text, encoding="utf-8")
    return load_chain(project)


def tokenizer(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    if config:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("source", "family"),
    [
        ("qwen-lm/qwen2.5/transformers/7b-instruct/1", "qwen2"),
        ("qwen-lm/qwen-3/transformers/0.6b/1", "qwen3"),
        ("metaresearch/llama-3.2/transformers/1b-instruct/1", "llama"),
        ("mistral-ai/mistral/transformers/7b-instruct-v0.1-hf/1", "mistral"),
        ("google/gemma/transformers/2b-it/3", "gemma"),
        ("google/gemma-3/transformers/gemma-3-4b-it/1", "gemma3"),
        ("qwen-lm/qwen2.5-vl/transformers/7b-instruct/1", "qwen2_5_vl"),
        ("qwen-lm/qwen-3-vl/transformers/8b-instruct/1", "qwen3_vl"),
        ("someone/qwen/transformers/3b/1", "qwen2"),
        ("google/gemma-2/transformers/gemma-2-2b-it/2", "gemma2"),
        ("google/gemma-3/transformers/gemma-3-1b-it/1", "gemma3_text"),
    ],
)
def test_the_name_tells_the_family(tmp_path: Path, source: str, family: str) -> None:
    base = find_base(chain(tmp_path, source), None)
    assert (base.family, base.tokenizer) == (family, None)


def test_a_known_model_has_its_own_vocabulary(tmp_path: Path) -> None:
    config = find_base(chain(tmp_path), None).config
    assert (config["vocab_size"], config["tie_word_embeddings"]) == (151936, True)


def test_an_unknown_family_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not know what family") as error:
        find_base(chain(tmp_path, "someone/novel/transformers/tiny/1"), None)
    assert "--tokenizer DIR" in error.value.hint


def test_a_named_folder_comes_first_and_tells_the_family(tmp_path: Path) -> None:
    folder = tokenizer(tmp_path / "mine", model_type="olmo2", vocab_size=100)
    base = find_base(chain(tmp_path, "someone/novel/transformers/tiny/1"), folder)
    assert (base.family, base.tokenizer, base.whence) == ("olmo2", folder, str(folder))


def test_a_named_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no tokenizer"):
        find_base(chain(tmp_path), tmp_path)


def test_what_kaggles_downloader_keeps_is_found(tmp_path: Path) -> None:
    folder = tokenizer(tmp_path / "kagglehub" / "models/qwen-lm/qwen2.5/transformers/0.5b-instruct/1")
    base = find_base(chain(tmp_path), None)
    assert base.tokenizer == folder and base.family == "qwen2"


def test_what_hugging_face_keeps_is_found_under_its_other_name(tmp_path: Path) -> None:
    tokenizer(tmp_path / "hub" / "models--Qwen--Qwen2.5-1.5B-Instruct" / "snapshots" / "1")
    folder = tokenizer(tmp_path / "hub" / "models--Qwen--Qwen2.5-0.5B-Instruct" / "snapshots" / "abc")
    base = find_base(chain(tmp_path), None)
    assert base.tokenizer == folder
    assert base.whence == "Qwen/Qwen2.5-0.5B-Instruct in the cache of Hugging Face"


def test_a_cached_model_without_a_tokenizer_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "hub" / "models--Qwen--Qwen2.5-0.5B-Instruct" / "snapshots" / "abc").mkdir(parents=True)
    assert find_base(chain(tmp_path), None).tokenizer is None


def test_what_was_published_to_the_projects_own_server_is_found(tmp_path: Path) -> None:
    project = chain(tmp_path)
    folder = tokenizer(project.root / ".kchain/local/models" / project.model.source, model_type="qwen3")
    base = find_base(project, None)
    assert base.tokenizer == folder and base.family == "qwen3"


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08", b"{", b"[]", b"{}"], ids=["gzip", "cut", "list", "no type"])
def test_a_damaged_config_is_told(tmp_path: Path, content: bytes) -> None:
    folder = tokenizer(tmp_path / "mine")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json: "):
        find_base(chain(tmp_path), folder)
