"""The safetensors reader: equal to the reference where the file is sound, a refusal everywhere else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_adapters import tensor_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kchain.errors import AdapterRefused
from kchain.orchestrator.judging.weights import read_header, scan

RELAXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def header_file(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@RELAXED
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_never_a_crash(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    try:
        tensors = read_header(path)
    except AdapterRefused:
        return
    assert all(scan(path, tensor) for tensor in tensors.values())


numbers = st.integers(-3, 40) | st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=3)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I8", "", 3, None]),
        "shape": st.lists(numbers, max_size=3) | numbers,
        "data_offsets": st.lists(numbers, max_size=3) | numbers,
    },
)


@RELAXED
@given(st.dictionaries(st.text(max_size=5), entries | numbers, max_size=3) | st.lists(numbers), st.binary(max_size=64))
def test_random_headers_are_refused_or_read_within_the_file(tmp_path: Path, header: Any, data: bytes) -> None:
    path = header_file(tmp_path / "x.safetensors", header, data)
    try:
        tensors = read_header(path)
    except AdapterRefused:
        return
    size = path.stat().st_size
    assert all(0 <= tensor.start <= tensor.end <= size for tensor in tensors.values())
    assert all(scan(path, tensor) for tensor in tensors.values())


@RELAXED
@given(st.integers(0, 100), st.integers(0, 255))
def test_a_flipped_byte_is_read_within_the_file_or_refused(tmp_path: Path, position: int, value: int) -> None:
    data = bytearray(tensor_bytes({"a": np.ones((2, 3), "<f4"), "b": np.ones(4, "<f2")}))
    data[position % len(data)] = value
    path = tmp_path / "x.safetensors"
    path.write_bytes(bytes(data))
    try:
        tensors = read_header(path)
    except AdapterRefused:
        return
    assert sum(tensor.end - tensor.start for tensor in tensors.values()) <= len(data)


@pytest.mark.parametrize(
    ("header", "data", "word"),
    [
        (b"{x", b"", "not JSON"),
        (b"[]", b"", "not a JSON object"),
        (b'{"a": 1}', b"", "no entry"),
        (b"[" * 100_000, b"", "not JSON"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"x" * 7, "cut short"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, b"x" * 12, "gap"),
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"x" * 8, "number of bytes"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}}, b"x" * 8, "shape or place"),
        ({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, b"x" * 8, "of type 'I64'"),
        (b'{"a": {"dtype":"F32","shape":[0],"data_offsets":[0,0]}, "a": {}}', b"", "twice"),
    ],
)
def test_each_kind_of_damage_is_named(tmp_path: Path, header: Any, data: bytes, word: str) -> None:
    with pytest.raises(AdapterRefused, match=word) as caught:
        read_header(header_file(tmp_path / "x.safetensors", header, data))
    assert caught.value.hint


@pytest.mark.parametrize("length", [0, 1, 2**40, 2**64 - 1])
def test_a_header_length_that_cannot_be_is_refused_without_reading_it(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(AdapterRefused, match="header would have"):
        read_header(path)


def test_a_file_that_is_not_there_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match="cannot be read"):
        read_header(tmp_path / "gone.safetensors")


def test_the_reference_implementation_agrees(tmp_path: Path) -> None:
    reference = pytest.importorskip("safetensors.numpy")
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones((4,), np.float16)}
    path = tmp_path / "x.safetensors"
    reference.save_file(arrays, path, metadata={"format": "pt"})
    tensors = read_header(path)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"a": (4,), "b": (2, 3)}
    data = path.read_bytes()
    for name, tensor in tensors.items():
        assert data[tensor.start : tensor.end] == arrays[name].tobytes()


PROGRAM = """
import resource, sys
from pathlib import Path
from kchain.orchestrator.judging.weights import read_header, scan
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tensor = read_header(Path(sys.argv[1]))["a"]
found = scan(Path(sys.argv[1]), tensor)
print(found.finite, found.zero, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in other units elsewhere")
def test_a_large_tensor_is_read_in_pieces(tmp_path: Path) -> None:
    """400 MB of values (a sparse file) within a few tens of megabytes."""
    count = 100_000_000
    header = {"a": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}
    path = header_file(tmp_path / "x.safetensors", header)
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + 4 * count)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=True)
    finite, zero, grown = done.stdout.split()
    assert (finite, zero) == ("True", "True")
    assert int(grown) < 100
