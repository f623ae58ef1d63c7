"""An adapter counts only after this: what it is must be what its phase should have made.

Every check that fails says what was found, what was due, and what to do. Nothing is unpickled, ever.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain.errors import AdapterRefused
from kchain.orchestrator.judging.weights import ALL_LINEAR, check_weights
from kchain.phases import Lora
from kchain.runtime.contract import (
    ADAPTER,
    CONFIG,
    FORMAT,
    RESULT,
    TOKENIZER_CONFIG,
    WEIGHTS,
    other_maths,
)
from kchain.runtime.files import hash_file

# JSON files that came with an adapter.


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        AdapterRefused: there is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefused(
            f"{path}: cannot be read as JSON: {error!s:.100}", "pull it again, or train it again"
        ) from None
    if not isinstance(found, dict):
        raise AdapterRefused(f"{path}: holds no JSON object", "pull it again, or train it again")
    return found


# What a saved tokenizer says: its pad token, and the ids of its added tokens.


def saved_pad(path: Path) -> tuple[str | None, int | None]:
    """Pad token and its id in a saved tokenizer; None for what it does not say."""
    file = path / TOKENIZER_CONFIG
    if not file.is_file():
        return None, None
    config = read_object(file)
    token = config.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    if not isinstance(token, str):
        return None, None
    return token, added_id(path, token)


def added_id(path: Path, token: str) -> int | None:
    """The id of an added token: in tokenizer_config.json (transformers 4) or in tokenizer.json; None without one."""
    file = path / TOKENIZER_CONFIG
    config = read_object(file) if file.is_file() else {}
    table = config.get("added_tokens_decoder")
    entries: list[tuple[Any, Any]] = list(table.items()) if isinstance(table, dict) else []
    if not entries and (path / "tokenizer.json").is_file():
        added = read_object(path / "tokenizer.json").get("added_tokens")
        entries = (
            [(entry.get("id"), entry) for entry in added if isinstance(entry, dict)] if isinstance(added, list) else []
        )
    for key, entry in entries:
        if isinstance(entry, dict) and entry.get("content") == token and str(key).isdigit():
            return int(key)
    return None


_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"})
# The warning about an adapter whose maker left neither a result file nor a tokenizer.
UNKNOWN_PAD = "nothing says which pad token it was trained with"
_AGAIN = "run the phase again: kchain push PHASE --again"


@dataclass(frozen=True)
class Expected:
    """What an adapter must be.

    Attributes:
        lora: the chain's LoRA configuration.
        base_model: the chain's base model source.
        pad_id: id of the pad token.
        pad_token: the pad token itself; "" where it is not compared.
        bundle_hash: the hash the result file must carry; None: not compared.
        sha256: the hash adapter_model.safetensors must have; None: not compared.
        needs_result: False for an adopted adapter, which may have no kchain-result.json.
        folder: where the adapter lies in the outputs; "" for the folder itself.
        tokens: the tokens whose rows it trains, in order.
        lineage: (phase, sha256) of every adapter it must have been built on, root first; None: not compared.
    """

    lora: Lora
    base_model: str
    pad_id: int
    pad_token: str = ""
    bundle_hash: str | None = None
    sha256: str | None = None
    needs_result: bool = True
    folder: str = ADAPTER
    tokens: tuple[str, ...] = ()
    lineage: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True)
class Adapter:
    """A verified adapter.

    Attributes:
        path: its folder.
        sha256: hash of adapter_model.safetensors.
        bytes: size of that file.
        tensors: number of tensors in it.
        result: its kchain-result.json, {} without one.
        warnings: what looks odd, or could not be checked for want of a result file.
    """

    path: Path
    sha256: str
    bytes: int
    tensors: int
    result: dict[str, Any]
    warnings: tuple[str, ...] = ()


def verify(folder: Path, expected: Expected) -> Adapter:
    """Check the adapter that a session left in `folder`, or that is adopted from it.

    Raises:
        AdapterRefused: with what was found and what to do.
    """
    path = folder / expected.folder
    _check_files(path)
    warnings: list[str] = []
    result = _result(folder, expected)
    config = read_object(path / CONFIG)
    _check_config(path / CONFIG, config, expected, bool(result), warnings)
    _check_tokens(path, config, expected, result)
    tensors = check_weights(path / WEIGHTS, expected.lora, len(expected.tokens), warnings)
    sha256 = hash_file(path / WEIGHTS)
    size = (path / WEIGHTS).stat().st_size
    _check_hash(path / WEIGHTS, sha256, expected)
    if result:
        _check_result(folder / RESULT, result, expected)
        _check_against_result(path / WEIGHTS, sha256, size, tensors, result)
    _check_tokenizer(path, expected, bool(result), warnings)
    return Adapter(path, sha256, size, tensors, result, tuple(warnings))


def _check_files(path: Path) -> None:
    if not path.is_dir():
        raise AdapterRefused(f"{path}: there is no adapter", "the session ended before it saved one; kchain logs PHASE")
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() in _PICKLES:
            raise AdapterRefused(
                f"{file}: may be a pickle, which runs code when it is read",
                f"only {WEIGHTS} is taken: save with safe_serialization=True, and leave {file.name} out",
            )
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise AdapterRefused(f"{path}: {name} is missing", "the adapter was not saved whole; kchain logs PHASE")


def _result(folder: Path, expected: Expected) -> dict[str, Any]:
    path = folder / RESULT
    if path.is_file():
        return read_object(path)
    if expected.needs_result:
        raise AdapterRefused(f"{path}: is missing", "the session ended before its end; kchain logs PHASE says why")
    return {}


def _check_config(path: Path, config: dict[str, Any], expected: Expected, own: bool, warnings: list[str]) -> None:
    lora = expected.lora
    due = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "bias": lora.bias,
        "target_modules": sorted(lora.targets),
    }
    targets = config.get("target_modules")
    found = config | {"target_modules": sorted(map(str, targets)) if isinstance(targets, list) else targets}
    if lora.targets == ALL_LINEAR and isinstance(targets, list) and targets:  # the names that the session found
        due["target_modules"] = found["target_modules"]
    wrong = [f"{key} is {found.get(key)!r}, due is {value!r}" for key, value in due.items() if found.get(key) != value]
    wrong += [f"it has {option}, which a merge would lose" for option in other_maths(config)]
    if wrong:
        cure = "one chain has one LoRA configuration: put it right in [lora] of kchain.toml, or train this one again"
        raise AdapterRefused(f"{path}: another LoRA than the chain's: {'; '.join(wrong)}", cure)
    base = config.get("base_model_name_or_path")
    if base == expected.base_model:
        return
    if own:
        raise AdapterRefused(f"{path}: its base model is {base!r}, due is {expected.base_model!r}", _AGAIN)
    warnings.append(f"its base model is called {base!r} here; taken to be {expected.base_model}")


def _check_tokens(path: Path, config: dict[str, Any], expected: Expected, result: dict[str, Any]) -> None:
    """The tokens whose rows were trained: those of the phase, by the ids that the saved tokenizer gives them."""
    told = config.get("trainable_token_indices") or {}
    lists = list(told.values()) if isinstance(told, dict) else [told]
    ids = lists[0] if lists else []
    if any(each != ids for each in lists) or not isinstance(ids, list) or len(ids) != len(expected.tokens):
        due = ", ".join(expected.tokens) or "none"
        raise AdapterRefused(
            f"{path / CONFIG}: it trained rows of the tokens {told!r}, due is {due}",
            "put [tokens] of the phase right, or train it again",
        )
    for token, number in zip(expected.tokens, ids, strict=True):
        known = [added_id(path, token), (result.get("tokens") or {}).get(token)]
        if other := [each for each in known if each not in (None, number)]:
            raise AdapterRefused(f"{path}: {token} has id {other[0]!r}, its row was trained as {number!r}", _AGAIN)


def _check_hash(path: Path, sha256: str, expected: Expected) -> None:
    if expected.sha256 is not None and sha256 != expected.sha256:
        raise AdapterRefused(
            f"{path}: sha256 is {sha256}, recorded was {expected.sha256}",
            "it changed since it was verified: pull it again, or adopt it anew if that was meant",
        )


def _check_result(path: Path, result: dict[str, Any], expected: Expected) -> None:
    """The result file itself: its format, whose it is, and what it says about pad token, LoRA, base and lineage."""
    lora = expected.lora.model_dump() | {"targets": sorted(expected.lora.targets)}
    said = result.get("lora")
    said = dict(said) if isinstance(said, dict) else {}
    if isinstance(said.get("targets"), list):
        said["targets"] = sorted(map(str, said["targets"]))
    pairs: list[tuple[str, Any, Any]] = [
        ("format", result.get("format"), FORMAT),
        ("pad_id", result.get("pad_id"), expected.pad_id),
        ("base_model", result.get("base_model"), expected.base_model),
        *((f"lora.{key}", said.get(key), value) for key, value in lora.items()),
    ]
    if expected.bundle_hash is not None:
        pairs.append(("bundle", result.get("bundle"), expected.bundle_hash))
    if expected.lineage is not None:
        pairs.append(("lineage", _lineage(result), list(expected.lineage)))
    for key, found, due in pairs:
        if found != due or type(found) is bool:
            raise AdapterRefused(f"{path}: {key} is {found!r}, due is {due!r}", _cure(key))


def _lineage(result: dict[str, Any]) -> list[tuple[Any, Any]]:
    entries = result.get("lineage")
    entries = entries if isinstance(entries, list) else []
    return [(entry.get("phase"), entry.get("sha256")) for entry in entries if isinstance(entry, dict)]


def _cure(key: str) -> str:
    cures = {
        "pad_id": "it was trained with another pad token and would answer gibberish: train it again",
        "bundle": "another bundle made this result: someone edited the kernel, or an older version was pulled",
        "lineage": "it was built on other adapters than this chain's: train it again on the verified ones",
        "format": "another kchain wrote this file: use the same kchain that rendered the notebook",
    }
    return cures.get(key, _AGAIN)


def _check_against_result(path: Path, sha256: str, size: int, tensors: int, result: dict[str, Any]) -> None:
    said = result.get("adapter")
    if not isinstance(said, dict):
        raise AdapterRefused(f"{path.parent}: the result file records no adapter", "kchain logs PHASE says why")
    for key, found in (("sha256", sha256), ("bytes", size), ("tensors", tensors)):
        if said.get(key) != found:
            raise AdapterRefused(
                f"{path}: {key} is {found!r}, the session recorded {said.get(key)!r}",
                "it was damaged on the way: remove the folder and pull again",
            )


def _check_tokenizer(path: Path, expected: Expected, own: bool, warnings: list[str]) -> None:
    """The pad token that was saved with the adapter, where a tokenizer was."""
    token, number = saved_pad(path)
    wrong_token = token is not None and expected.pad_token and token != expected.pad_token
    if wrong_token or (number is not None and number != expected.pad_id):
        raise AdapterRefused(
            f"{path}: its tokenizer pads with {token!r} (id {number}), "
            f"due is {expected.pad_token!r} ({expected.pad_id})",
            _cure("pad_id"),
        )
    if token is None and not own:
        warnings.append(UNKNOWN_PAD)
