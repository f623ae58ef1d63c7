"""Files on their way to a store that breaks off: gone on with, begun anew where the store forgot, told on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from client_weather import Weather, reset

from kchain.client.transport import Transport
from kchain.client.upload import Begun, forget, upload
from kchain.errors import Unreachable

DATA = bytes(range(256)) * 400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def transport(weather: Weather, tmp_path: Path) -> Transport:
    weather.on("StartBlobUpload", {"token": "a-token", "createUrl": f"{weather.url}/put/here"})
    return weather.client(tmp_path).transport


def partly(count: int) -> tuple[int, bytes, dict[str, str]]:
    """The store's answer to who asks how far it got."""
    return 308, b"", {"Range": f"bytes=0-{count - 1}"} if count else {}


def ranges(weather: Weather) -> list[Any]:
    return [seen.headers.get("Content-Range") for seen in weather.calls("here")]


def test_an_upload_that_breaks_goes_on_where_the_store_is(weather: Weather, transport: Transport, file: Path) -> None:
    weather.on("here", (503, b"", {}), partly(1000), (201, b"", {}))
    told: list[int] = []
    assert upload(transport, file, "MODEL", reached=told.append) == "a-token"
    assert ranges(weather) == [None, f"bytes */{len(DATA)}", f"bytes 1000-{len(DATA) - 1}/{len(DATA)}"]
    assert weather.calls("here")[-1].headers["Content-Length"] == str(len(DATA) - 1000)
    assert (told[0], told[-1]) == (0, len(DATA)) and 1000 in told
    assert weather.calls("StartBlobUpload")[0].body["type"] == "MODEL"


def test_another_run_goes_on_with_what_was_begun(
    weather: Weather, transport: Transport, file: Path, tmp_path: Path
) -> None:
    begun = Begun(tmp_path / "uploads.json")
    weather.on("here", *[reset, partly(0)] * 9)
    with pytest.raises(Unreachable):
        upload(transport, file, "MODEL", begun)
    weather.on("here", partly(5000), (200, b"", {}))
    again = Begun(tmp_path / "uploads.json")
    assert upload(transport, file, "MODEL", again) == "a-token"
    assert len(weather.calls("StartBlobUpload")) == 1
    forget(transport, [file], "MODEL", again)
    weather.on("here", (200, b"", {}))
    upload(transport, file, "MODEL", again)
    assert len(weather.calls("StartBlobUpload")) == 2, "what became a version is not gone on with"


def test_what_the_store_forgot_is_begun_anew_and_what_it_has_is_not_sent(
    weather: Weather, transport: Transport, file: Path, tmp_path: Path
) -> None:
    begun = Begun(tmp_path / "uploads.json")
    weather.on("here", (200, b"", {}))
    upload(transport, file, "MODEL", begun)
    upload(transport, file, "MODEL", begun)
    assert ranges(weather) == [None, f"bytes */{len(DATA)}"]
    weather.on("here", (404, b"", {}), (200, b"", {}))
    upload(transport, file, "MODEL", begun)
    assert len(weather.calls("StartBlobUpload")) == 2
    file.write_bytes(DATA[1:])
    weather.on("here", (200, b"", {}))
    upload(transport, file, "MODEL", begun)
    assert len(weather.calls("StartBlobUpload")) == 3, "other bytes under the same name are another upload"


def test_a_damaged_note_of_what_was_begun_costs_bytes_and_nothing_else(
    weather: Weather, transport: Transport, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "uploads.json").write_text('{"x": 3}', encoding="utf-8")
    weather.on("here", (200, b"", {}))
    assert upload(transport, file, "MODEL", Begun(tmp_path / "uploads.json")) == "a-token"
