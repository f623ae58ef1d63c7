"""An adapter counts only after this: what it is must be what its phase should have made.

Every check that fails says what was found, what was expected, and what to do. Nothing is unpickled, ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain.errors import AdapterRefused
from kchain.orchestrator.journal.state import Ancestor, rows
from kchain.orchestrator.judging.result import ResultFile, read_object, read_result
from kchain.orchestrator.judging.weights import ALL_LINEAR, check_weights
from kchain.phases import Chain, Lora
from kchain.runtime.contract import ADAPTER, CONFIG, FORMAT, RESULT, TOKENIZER_CONFIG, WEIGHTS, other_maths
from kchain.runtime.files import hash_file

_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"})
# The warning about an adapter whose maker left neither a result file nor a tokenizer.
UNKNOWN_PAD = "nothing says which pad token it was trained with"
_AGAIN = "run the phase again: kchain push PHASE --again"
_OTHER_PAD = "it was trained with another pad token and would answer gibberish: train it again"
# What to do about a result file that says something else than was expected, by its field.
_CURES = {
    "pad_id": _OTHER_PAD,
    "bundle": "another bundle made this result: someone edited the kernel, or an older version was pulled",
    "lineage": "it was built on other adapters than this chain's: train it again on the verified ones",
    "format": "another kchain wrote this file: use the same kchain that rendered the notebook",
}


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
        lineage: the adapters that it must have been built on, root first; None: not compared.
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
    lineage: tuple[Ancestor, ...] | None = None


def expect(chain: Chain, phase: str, **more: Any) -> Expected:
    """What the adapter of a phase must be by its files; `more`: what else of `Expected` is compared."""
    return Expected(
        lora=chain.phase(phase).lora,
        base_model=chain.model.source,
        pad_id=chain.model.eos_id,
        pad_token=chain.model.eos_token,
        tokens=chain.phase(phase).tokens.all,
        **more,
    )


@dataclass(frozen=True)
class VerifiedAdapter:
    """An adapter that is what was expected.

    Attributes:
        path: its folder.
        sha256: hash of adapter_model.safetensors.
        bytes: size of that file.
        tensors: number of tensors in it.
        result: its kchain-result.json; None where it has none.
        warnings: what looks odd, or could not be checked for want of a result file.
    """

    path: Path
    sha256: str
    bytes: int
    tensors: int
    result: ResultFile | None
    warnings: tuple[str, ...] = ()


def verify(folder: Path, expected: Expected) -> VerifiedAdapter:
    """Check the adapter that a session left in `folder`, or that is adopted from it.

    Raises:
        AdapterRefused: with what was found and what to do.
    """
    path, warnings = folder / expected.folder, list[str]()
    weights = path / WEIGHTS
    _check_files(path)
    result = read_result(folder)
    if result is None and expected.needs_result:
        told = f"{folder / RESULT} is missing"
        raise AdapterRefused(told, "the session ended before its end; kchain logs PHASE says why")
    config = read_object(path / CONFIG)
    _check_lora(path / CONFIG, config, expected.lora)
    base = config.get("base_model_name_or_path")
    if base != expected.base_model and result is not None:
        raise AdapterRefused(f"{path / CONFIG}: its base model is {base!r}, not {expected.base_model!r}", _AGAIN)
    if base != expected.base_model:
        warnings.append(f"its base model is called {base!r} here; taken to be {expected.base_model}")
    _check_tokens(path, config, expected, result)
    tensors = check_weights(weights, expected.lora, len(expected.tokens), warnings)
    sha256, size = hash_file(weights), weights.stat().st_size
    if expected.sha256 not in (None, sha256):
        raise AdapterRefused(
            f"{weights}: sha256 is {sha256}, recorded was {expected.sha256}",
            "it changed since it was verified: pull it again, or adopt it again if that was intended",
        )
    if result is not None:
        _check_result(folder / RESULT, result, expected)
        _check_recorded(weights, {"sha256": sha256, "bytes": size, "tensors": tensors}, result)
    if _check_tokenizer(path, expected) is None and result is None:
        warnings.append(UNKNOWN_PAD)
    return VerifiedAdapter(path, sha256, size, tensors, result, tuple(warnings))


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


def _check_lora(path: Path, config: dict[str, Any], lora: Lora) -> None:
    """The configuration is the chain's, and has no option that a merge would lose."""
    wanted = {
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
        wanted["target_modules"] = found["target_modules"]
    wrong = [f"{key} is {found.get(key)!r}, not {value!r}" for key, value in wanted.items() if found.get(key) != value]
    wrong += [f"it has {option}, which a merge would lose" for option in other_maths(config)]
    if wrong:
        cure = "one chain has one LoRA configuration: put it right in [lora] of kchain.toml, or train this one again"
        raise AdapterRefused(f"{path}: another LoRA than the chain's: {'; '.join(wrong)}", cure)


def _check_tokens(path: Path, config: dict[str, Any], expected: Expected, result: ResultFile | None) -> None:
    """The tokens whose rows were trained: those of the phase, by the ids that the saved tokenizer gives them."""
    told = config.get("trainable_token_indices") or {}
    lists = list(told.values()) if isinstance(told, dict) else [told]
    ids = lists[0] if lists else []
    if any(each != ids for each in lists) or not isinstance(ids, list) or len(ids) != len(expected.tokens):
        wanted = f"those of {', '.join(expected.tokens)}" if expected.tokens else "none"
        raise AdapterRefused(
            f"{path / CONFIG}: it trained rows of the tokens {told!r}, the phase trains {wanted}",
            "put [tokens] of the phase right, or train it again",
        )
    for token, number in zip(expected.tokens, ids, strict=True):
        known = [_added_id(path, token), result.tokens.get(token) if result is not None else None]
        if other := [each for each in known if each not in (None, number)]:
            raise AdapterRefused(f"{path}: {token} has id {other[0]!r}, its row was trained as {number!r}", _AGAIN)


def _check_result(path: Path, result: ResultFile, expected: Expected) -> None:
    """The result file itself: its format, whose it is, and what it says about pad token, LoRA, base and lineage."""
    lora = expected.lora.model_dump() | {"targets": sorted(expected.lora.targets)}
    targets = result.lora.get("targets")
    told = result.lora | {"targets": sorted(map(str, targets)) if isinstance(targets, list) else targets}
    fields: list[tuple[str, Any, Any]] = [
        ("format", result.format, FORMAT),
        ("pad_id", result.pad_id, expected.pad_id),
        ("base_model", result.base_model, expected.base_model),
        *((f"lora.{key}", told.get(key), value) for key, value in lora.items()),
    ]
    if expected.bundle_hash is not None:
        fields.append(("bundle", result.bundle, expected.bundle_hash))
    if expected.lineage is not None:
        fields.append(("lineage", rows(result.lineage or ()), rows(expected.lineage)))
    for key, found, wanted in fields:
        if found != wanted:
            raise AdapterRefused(f"{path}: {key} is {found!r}, not {wanted!r}", _CURES.get(key, _AGAIN))


def _check_recorded(path: Path, found: dict[str, Any], result: ResultFile) -> None:
    """The weights are those that the session recorded."""
    if result.adapter is None:
        raise AdapterRefused(f"{path.parent}: the result file records no adapter", "kchain logs PHASE says why")
    recorded = result.adapter.model_dump()
    for key, value in found.items():
        if recorded[key] != value:
            raise AdapterRefused(
                f"{path}: {key} is {value!r}, the session recorded {recorded[key]!r}",
                "it was damaged on the way: remove the folder and pull again",
            )


def _check_tokenizer(path: Path, expected: Expected) -> str | None:
    """The pad token of the tokenizer that was saved with the adapter; None where none was, or it names none."""
    file = path / TOKENIZER_CONFIG
    token = read_object(file).get("pad_token") if file.is_file() else None
    token = token.get("content") if isinstance(token, dict) else token
    if not isinstance(token, str):
        return None
    number = _added_id(path, token)
    if (expected.pad_token and token != expected.pad_token) or number not in (None, expected.pad_id):
        raise AdapterRefused(
            f"{path}: its tokenizer pads with {token!r} (id {number}), "
            f"not with {expected.pad_token!r} ({expected.pad_id})",
            _OTHER_PAD,
        )
    return token


def _added_id(path: Path, token: str) -> int | None:
    """The id of an added token: in tokenizer_config.json (transformers 4) or in tokenizer.json; None without one."""
    file = path / TOKENIZER_CONFIG
    table = read_object(file).get("added_tokens_decoder") if file.is_file() else None
    entries = list(table.items()) if isinstance(table, dict) else []
    if not entries and (path / "tokenizer.json").is_file():
        added = read_object(path / "tokenizer.json").get("added_tokens")
        listed = added if isinstance(added, list) else []
        entries = [(entry.get("id"), entry) for entry in listed if isinstance(entry, dict)]
    for key, entry in entries:
        if isinstance(entry, dict) and entry.get("content") == token and str(key).isdigit():
            return int(key)
    return None
