"""Downloads over a bad line, and names that would leave their folder."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from client_weather import FAST, Weather, cut_after, failing, html, reset, send, silent
from hypothesis import given
from hypothesis import strategies as st

from kchain.client.fetch import download, place_of
from kchain.client.refusals import Declined
from kchain.client.transport import Patience
from kchain.errors import InputError, KchainError, Unreachable

DATA = bytes(range(256)) * 4000
TAG = '"tag-of-one-file"'


def ranged(data: bytes, tag: str | None = TAG, most: int | None = None) -> Any:
    """A store that gives ranges, and breaks off after `most` bytes of each answer."""

    def answer(handler: Any) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        valid = match is not None and handler.headers.get("If-Range") in (None, tag)
        start = int(match[1]) if match is not None and valid else 0
        if start > len(data):
            return send(handler, 416, b"")
        handler.send_response(206 if match is not None and valid else 200)
        if match is not None and valid:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if tag is not None:
            handler.send_header("ETag", tag)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        end = len(data) if most is None else start + most
        handler.wfile.write(data[start:end])
        handler.close_connection = True
        return None

    return answer


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_under_its_name_and_nothing_else_stays(weather: Weather, tmp_path: Path) -> None:
    weather.on("a.bin", ranged(DATA))
    to = tmp_path / "out" / "a.bin"
    assert download(f"{weather.url}/a.bin?sig=x", to, len(DATA), FAST).read_bytes() == DATA
    assert left(to.parent) == ["a.bin"]
    assert "Authorization" not in weather.seen[0].headers


def test_a_line_that_breaks_again_and_again_still_brings_every_byte(weather: Weather, tmp_path: Path) -> None:
    """More breaks than tries: as long as bytes come, it goes on."""
    weather.on("a.bin", ranged(DATA, most=100_000))
    to = tmp_path / "out" / "a.bin"
    download(f"{weather.url}/a.bin", to, len(DATA), FAST)
    assert to.read_bytes() == DATA
    assert len(weather.seen) > 10
    assert weather.seen[-1].headers["Range"].startswith("bytes=")


def test_a_store_without_ranges_is_started_over(weather: Weather, tmp_path: Path) -> None:
    weather.on("a.bin", cut_after(1000, DATA, ETag=TAG), (200, DATA, {"ETag": TAG}))
    to = tmp_path / "out" / "a.bin"
    download(f"{weather.url}/a.bin", to, len(DATA), FAST)
    assert to.read_bytes() == DATA


def test_a_file_that_changed_in_the_middle_is_never_patched_together(weather: Weather, tmp_path: Path) -> None:
    other = bytes(reversed(DATA))
    weather.on("a.bin", ranged(DATA, most=1000), ranged(other, tag='"another"'))
    to = tmp_path / "out" / "a.bin"
    download(f"{weather.url}/a.bin", to, len(DATA), FAST)
    assert to.read_bytes() == other


def test_bytes_without_a_proof_of_origin_are_not_gone_on_from(weather: Weather, tmp_path: Path) -> None:
    weather.on("a.bin", ranged(DATA, tag=None, most=1000), ranged(DATA, tag=None))
    to = tmp_path / "out" / "a.bin"
    download(f"{weather.url}/a.bin", to, len(DATA), FAST)
    assert to.read_bytes() == DATA
    assert all("Range" not in seen.headers for seen in weather.seen)


def test_a_part_from_the_wrong_place_is_not_used(weather: Weather, tmp_path: Path) -> None:
    def shifted(handler: Any) -> None:
        data = DATA[500:]
        send(handler, 206, data, {"Content-Range": f"bytes 500-{len(DATA) - 1}/{len(DATA)}", "ETag": TAG})

    weather.on("a.bin", ranged(DATA, most=1000), shifted, ranged(DATA))
    to = tmp_path / "out" / "a.bin"
    download(f"{weather.url}/a.bin", to, len(DATA), FAST)
    assert to.read_bytes() == DATA


def test_fewer_bytes_than_before_means_another_file(weather: Weather, tmp_path: Path) -> None:
    weather.on("a.bin", ranged(DATA, most=1000), (416, b"", {}), ranged(DATA))
    to = tmp_path / "out" / "a.bin"
    download(f"{weather.url}/a.bin", to, len(DATA), FAST)
    assert to.read_bytes() == DATA


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_a_wrong_size_is_refused_and_leaves_no_file(weather: Weather, tmp_path: Path, size: int) -> None:
    weather.on("a.bin", ranged(DATA))
    to = tmp_path / "out" / "a.bin"
    with pytest.raises(Unreachable, match=f"expected {size}"):
        download(f"{weather.url}/a.bin", to, size, FAST)
    assert not to.exists()


@pytest.mark.parametrize(
    "answer", [failing(403, "expired"), failing(404, "gone"), failing(401, "no"), failing(410, "x")]
)
def test_a_refused_address_is_told_at_once_and_its_page_is_not_saved(
    weather: Weather, tmp_path: Path, answer: Any
) -> None:
    weather.on("a.bin", answer)
    to = tmp_path / "out" / "a.bin"
    with pytest.raises(Declined):
        download(f"{weather.url}/a.bin?Signature=very-secret", to, None, FAST)
    assert len(weather.seen) == 1
    assert not to.exists()


@pytest.mark.parametrize("answer", [html(500), html(503), reset])
def test_a_store_that_fails_is_tried_again_and_then_told_without_its_signature(
    weather: Weather, tmp_path: Path, answer: Any
) -> None:
    weather.on("a.bin", answer)
    with pytest.raises(Unreachable) as caught:
        download(f"{weather.url}/a.bin?Signature=very-secret", tmp_path / "a.bin", None, FAST)
    assert "very-secret" not in str(caught.value)
    assert len(weather.seen) == FAST.attempts


def test_a_silent_store_does_not_hang(weather: Weather, tmp_path: Path) -> None:
    weather.on("a.bin", silent(weather))
    with pytest.raises(Unreachable, match="silent"):
        download(f"{weather.url}/a.bin", tmp_path / "a.bin", None, Patience(silence=0.2, attempts=2, first=0.01))


def test_an_empty_file_is_a_file(weather: Weather, tmp_path: Path) -> None:
    weather.on("empty", (200, b"", {}))
    assert download(f"{weather.url}/empty", tmp_path / "empty", None, FAST).read_bytes() == b""


def test_a_folder_that_cannot_be_written_is_a_sentence(weather: Weather, tmp_path: Path) -> None:
    weather.on("a.bin", ranged(DATA))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        download(f"{weather.url}/a.bin", tmp_path / "file" / "a.bin", None, FAST)


PROGRAM = """
import sys
from pathlib import Path
from kchain.client.fetch import download
download(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
"""


def test_a_kill_in_the_middle_loses_nothing(weather: Weather, tmp_path: Path) -> None:
    """The second process goes on from the bytes of the killed one."""

    def slow(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("ETag", TAG)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        handler.wfile.write(DATA[:600_000])
        handler.wfile.flush()
        weather.over.wait(20)
        handler.close_connection = True

    weather.on("a.bin", slow, ranged(DATA))
    to = tmp_path / "out" / "a.bin"
    words = [sys.executable, "-c", PROGRAM, f"{weather.url}/a.bin", str(to), str(len(DATA))]
    process = subprocess.Popen(words)
    part = to.with_name(".a.bin.part")
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (part.exists() and part.stat().st_size >= 500_000):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not to.exists()
    kept = part.stat().st_size
    download(f"{weather.url}/a.bin", to, len(DATA), FAST)
    assert hashlib.sha256(to.read_bytes()).digest() == hashlib.sha256(DATA).digest()
    assert weather.seen[-1].headers["Range"] == f"bytes={kept}-"
    assert left(to.parent) == ["a.bin"]


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a\\..\\x",
        "..",
        ".",
        "",
        "a/",
        "a\x00b",
        "a\nb",
        "con",
        "a/NUL.txt",
        "./../x",
    ],
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unreachable, match="not accepted"):
        place_of(name, tmp_path)


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.symlink(tmp_path, tmp_path / "folder" / "up")
    with pytest.raises(Unreachable):
        place_of("up/x", tmp_path / "folder")


@pytest.mark.parametrize("name", ["a", "adapter/adapter_model.safetensors", "größe 日本.txt", "..a", "a..b", ".hidden"])
def test_ordinary_names_are_taken(tmp_path: Path, name: str) -> None:
    assert place_of(name, tmp_path) == tmp_path / name


@given(st.text(max_size=30))
def test_no_name_ever_leads_out(name: str) -> None:
    folder = Path("/some/folder")
    try:
        path = place_of(name, folder)
    except KchainError:
        return
    assert path != folder
    assert path.resolve().is_relative_to(folder)
