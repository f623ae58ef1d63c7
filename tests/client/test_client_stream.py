"""Following a log: whole lines, live, over cuts and replays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from client_weather import Weather, cut_after, failing, reset
from hypothesis import given
from hypothesis import strategies as st

from kchain.client.answers import LogLine
from kchain.client.log import Lines, lines_of
from kchain.client.stream import follow
from kchain.client.transport import Transport

SSE = {"Content-Type": "text/event-stream"}


def event(data: str, time: float = 1.0, stream: str = "stdout") -> dict[str, Any]:
    return {"stream_name": stream, "time": time, "data": data}


def sse(*events: dict[str, Any], end: bool = True) -> bytes:
    parts = [f"data: {json.dumps(item, ensure_ascii=False)}\n\n" for item in events]
    return ("".join(parts) + ("data: END_OF_LOG\n\n" if end else "")).encode()


def lines(weather: Weather, tmp_path: Path) -> list[LogLine]:
    transport: Transport = weather.client(tmp_path).transport
    doing = "the log of ada/first-phase"
    path = "/v1/kernels/logs/stream/ada/first-phase"
    return list(follow(lambda: transport.stream(doing, path, {}), transport.call_for(doing), pause=0.01))


def test_a_live_log_comes_line_by_line_and_ends(weather: Weather, tmp_path: Path) -> None:
    body = b": a comment\n\n" + sse(event("one\n"), event("two\n", 2.5, "stderr"))
    weather.on("first-phase", (200, body, SSE))
    assert lines(weather, tmp_path) == [LogLine("stdout", 1.0, "one"), LogLine("stderr", 2.5, "two")]


def test_the_version_is_in_the_address(weather: Weather, tmp_path: Path) -> None:
    weather.on("first-phase", (200, sse(), SSE))
    assert list(weather.client(tmp_path).follow("ada/first-phase", 4)) == []
    assert weather.seen[0].path == "/api/v1/kernels/logs/stream/ada/first-phase?versionLabel=v4"
    assert weather.seen[0].headers["Accept"].startswith("text/event-stream")


def test_a_cut_stream_is_taken_up_again_without_loss_or_repetition(weather: Weather, tmp_path: Path) -> None:
    all_events = [event(f"line {number}\n", float(number)) for number in range(6)]
    weather.on(
        "first-phase",
        (200, sse(*all_events[:3], end=False), SSE),
        reset,
        (200, sse(*all_events), SSE),
    )
    assert [line.text for line in lines(weather, tmp_path)] == [f"line {number}" for number in range(6)]


def test_a_replay_that_is_trimmed_or_reordered_loses_nothing(weather: Weather, tmp_path: Path) -> None:
    first = [event("a\n"), event("b\n"), event("c\n")]
    weather.on(
        "first-phase",
        (200, sse(*first, end=False), SSE),
        (200, sse(event("c\n"), event("d\n"), event("a\n"), event("e\n")), SSE),
    )
    assert [line.text for line in lines(weather, tmp_path)] == ["a", "b", "c", "d", "e"]


def test_lines_that_are_truly_printed_twice_come_twice(weather: Weather, tmp_path: Path) -> None:
    twice = [event("same\n"), event("same\n")]
    weather.on("first-phase", (200, sse(*twice, end=False), SSE), (200, sse(*twice, event("same\n")), SSE))
    assert [line.text for line in lines(weather, tmp_path)] == ["same"] * 3


def test_a_stream_broken_inside_a_line_repeats_that_line_once(weather: Weather, tmp_path: Path) -> None:
    whole = sse(event("one\n"), event("two\n"))
    weather.on("first-phase", cut_after(len(whole) - 40, whole, **SSE), (200, whole, SSE))
    assert [line.text for line in lines(weather, tmp_path)] == ["one", "two"]


def test_a_silent_stream_is_opened_again(weather: Weather, tmp_path: Path) -> None:
    def stuck(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(sse(event("before\n"), end=False))
        handler.wfile.flush()
        weather.over.wait(5)
        handler.close_connection = True

    weather.on("first-phase", stuck, (200, sse(event("before\n"), event("after\n")), SSE))
    assert [line.text for line in lines(weather, tmp_path)] == ["before", "after"]


@pytest.mark.parametrize("answer", [failing(404, "no such log"), failing(403, "denied"), failing(500, "x"), reset])
def test_a_log_that_is_not_to_be_had_ends_quietly(weather: Weather, tmp_path: Path, answer: Any) -> None:
    weather.on("first-phase", answer)
    assert lines(weather, tmp_path) == []


def test_a_stream_that_closes_again_and_again_is_given_up(weather: Weather, tmp_path: Path) -> None:
    weather.on("first-phase", (200, sse(event("one\n"), end=False), SSE))
    assert [line.text for line in lines(weather, tmp_path)] == ["one"]


def test_a_finished_log_is_read_whole(weather: Weather, tmp_path: Path) -> None:
    weather.on("first-phase", (200, [event("one\ntw"), event("o\n"), event("three")], {}))
    assert [line.text for line in lines(weather, tmp_path)] == ["one", "two", "three"]


def test_a_finished_log_in_a_store_elsewhere_is_fetched_without_the_key(weather: Weather, tmp_path: Path) -> None:
    store = Weather()
    store.on("log.json", (200, [event("stored\n")], {}))
    weather.on("first-phase", (302, b"", {"Location": f"{store.url}/log.json?sig=x"}))
    try:
        assert [line.text for line in lines(weather, tmp_path)] == ["stored"]
        assert "Authorization" not in store.seen[0].headers
    finally:
        store.close()


def test_text_is_utf_8_whatever_the_header_says_and_odd_separators_are_text(weather: Weather, tmp_path: Path) -> None:
    text = "größe \u2028 still the same line \x85 日本"
    weather.on("first-phase", (200, sse(event(text + "\n")), {"Content-Type": "text/event-stream; charset=latin-1"}))
    assert [line.text for line in lines(weather, tmp_path)] == [text]


def test_payloads_that_are_no_events_are_shown_as_they_are(weather: Weather, tmp_path: Path) -> None:
    weather.on("first-phase", (200, b'data: not json\n\ndata: {"other": 1}\n\ndata: END_OF_LOG\n\n', SSE))
    assert [line.text for line in lines(weather, tmp_path)] == ["not json"]


def test_an_event_of_the_notebook_never_sticks_to_what_stands_before_it() -> None:
    log = json.dumps([event("10%|███"), event('kchain: {"event": "step"}\n'), event("done")])
    assert [line.text for line in lines_of(log)] == ["10%|███", 'kchain: {"event": "step"}', "done"]


def test_plain_text_is_a_log_too() -> None:
    assert [line.text for line in lines_of("one\ntwo\n")] == ["one", "two"]
    assert lines_of("") == []


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=12)), max_size=30))
def test_no_character_is_lost_however_the_events_are_cut(pieces: list[tuple[str, str]]) -> None:
    lines = Lines()
    found = [line for stream, data in pieces for line in lines.add(event(data, stream=stream))] + list(lines.end())
    for stream in ("stdout", "stderr"):
        printed = "".join(data for name, data in pieces if name == stream).replace("\r\n", "\n")
        shown = "\n".join(line.text for line in found if line.stream == stream)
        assert shown.replace("\n", "").replace("\r", "") == printed.replace("\n", "").replace("\r", "")


def test_reading_finished_logs_needs_no_network_library() -> None:
    program = (
        "import sys, kchain.orchestrator.judging.advice, kchain.client.client; sys.exit('requests' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=300, check=False).returncode == 0
