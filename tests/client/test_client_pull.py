"""Pulling the outputs of a version: all or nothing, again and again, whatever happens in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from client_weather import Weather, failing, html, reset

from kchain.client.pull import pull
from kchain.errors import InputError, Unreachable

LIST, SIZES = "ListKernelSessionOutput", "ListKernelFiles"
FILES = {"adapter/a.bin": b"a" * 5000, "kchain-result.json": b"{}", "größe.txt": "ß".encode()}
LOG = json.dumps([{"stream_name": "stdout", "time": 1, "data": "größe\nkchain: {}\n"}])


def serve(weather: Weather, files: dict[str, bytes] = FILES, log: str = LOG) -> None:
    def address(name: str) -> str:
        return f"{weather.url}/out/{abs(hash(name))}"

    listing = {"files": [{"fileName": name, "url": address(name)} for name in files], "log": log}
    weather.on(LIST, listing)
    weather.on(SIZES, {"files": [{"name": name, "size": len(data)} for name, data in files.items()]})
    for name, data in files.items():
        weather.on(address(name).rpartition("/")[2], (200, data, {"ETag": '"1"'}))


def downloads(weather: Weather) -> list[str]:
    return [seen.path for seen in weather.seen if seen.path.startswith("/out/")]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_arrives_with_the_log_as_plain_text(weather: Weather, tmp_path: Path) -> None:
    serve(weather)
    to = tmp_path / "runs" / "v3"
    assert pull(weather.client(tmp_path), "ada/first-phase", 3, to) == to
    assert contents(to) == FILES | {"session.log": "größe\nkchain: {}\n".encode()}
    assert [path.name for path in to.parent.iterdir()] == ["v3"]
    assert weather.calls(LIST)[0].body["versionLabel"] == "v3"


def test_a_second_pull_asks_nobody_anything(weather: Weather, tmp_path: Path) -> None:
    serve(weather)
    client = weather.client(tmp_path)
    pull(client, "ada/first-phase", 3, tmp_path / "v3")
    before = len(weather.seen)
    pull(client, "ada/first-phase", 3, tmp_path / "v3")
    assert len(weather.seen) == before


def test_a_pull_that_failed_goes_on_where_it_was(weather: Weather, tmp_path: Path) -> None:
    serve(weather)
    last = f"{abs(hash('größe.txt'))}"
    weather.on(last, reset)
    client = weather.client(tmp_path)
    with pytest.raises(Unreachable):
        pull(client, "ada/first-phase", 3, tmp_path / "v3")
    assert not (tmp_path / "v3").exists()
    weather.on(last, (200, FILES["größe.txt"], {}))
    pull(client, "ada/first-phase", 3, tmp_path / "v3")
    first = f"/out/{abs(hash('adapter/a.bin'))}"
    assert downloads(weather).count(first) == 1
    assert contents(tmp_path / "v3").keys() == FILES.keys() | {"session.log"}


def test_addresses_that_ended_are_asked_for_again(weather: Weather, tmp_path: Path) -> None:
    serve(weather)
    weather.on(f"{abs(hash('adapter/a.bin'))}", failing(403, "expired"), (200, FILES["adapter/a.bin"], {}))
    pull(weather.client(tmp_path), "ada/first-phase", 3, tmp_path / "v3")
    assert len(weather.calls(LIST)) == 2
    assert contents(tmp_path / "v3")["adapter/a.bin"] == FILES["adapter/a.bin"]


def test_a_half_pulled_folder_of_another_run_is_not_mixed_in(weather: Weather, tmp_path: Path) -> None:
    """The same version number can mean another run: a server may have been set up anew."""
    serve(weather)
    weather.on(f"{abs(hash('größe.txt'))}", html(503))
    with pytest.raises(Unreachable):
        pull(weather.client(tmp_path), "ada/first-phase", 3, tmp_path / "v3")
    other = {name: bytes(len(data)) for name, data in FILES.items()}
    serve(weather, other, log="[]")
    pull(weather.client(tmp_path), "ada/first-phase", 3, tmp_path / "v3")
    assert contents(tmp_path / "v3") == other | {"session.log": b""}


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../escaped"])
def test_a_name_that_would_leave_the_folder_stops_the_pull_before_any_file(
    weather: Weather, tmp_path: Path, name: str
) -> None:
    serve(weather, FILES | {name: b"x"})
    with pytest.raises(Unreachable, match="escaped"):
        pull(weather.client(tmp_path), "ada/first-phase", 3, tmp_path / "runs" / "v3")
    assert downloads(weather) == []
    assert not list(tmp_path.rglob("escaped"))


def test_an_output_called_like_the_log_is_kept_beside_it(weather: Weather, tmp_path: Path) -> None:
    serve(weather, {"session.log": b"of the notebook"})
    pull(weather.client(tmp_path), "ada/first-phase", 3, tmp_path / "v3")
    found = contents(tmp_path / "v3")
    assert found["session.log.output"] == b"of the notebook"
    assert found["session.log"].startswith("größe".encode())


def test_a_wrong_size_keeps_the_version_from_counting(weather: Weather, tmp_path: Path) -> None:
    serve(weather)
    weather.on(SIZES, {"files": [{"name": "adapter/a.bin", "size": 4999}]})
    with pytest.raises(Unreachable, match="expected 4999"):
        pull(weather.client(tmp_path), "ada/first-phase", 3, tmp_path / "v3")
    assert not (tmp_path / "v3").exists()


def test_outputs_that_cannot_fit_are_told_before_any_byte_comes(weather: Weather, tmp_path: Path) -> None:
    serve(weather)
    weather.on(SIZES, {"files": [{"name": "adapter/a.bin", "size": 10**18}]})
    with pytest.raises(InputError, match="bytes, .* are free"):
        pull(weather.client(tmp_path), "ada/first-phase", 3, tmp_path / "v3")
    assert downloads(weather) == []


def test_a_session_without_outputs_leaves_its_log(weather: Weather, tmp_path: Path) -> None:
    serve(weather, {}, log="plain words\n")
    weather.on(SIZES, failing(404, "none"))
    pull(weather.client(tmp_path), "ada/first-phase", 3, tmp_path / "v3")
    assert contents(tmp_path / "v3") == {"session.log": b"plain words\n"}


def test_a_place_that_cannot_be_written_is_a_sentence(weather: Weather, tmp_path: Path) -> None:
    serve(weather)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError) as caught:
        pull(weather.client(tmp_path), "ada/first-phase", 3, tmp_path / "file" / "v3")
    assert "cannot be written" in caught.value.message


def test_nothing_listed_at_all_is_passed_on(weather: Weather, tmp_path: Path) -> None:
    answer: Any = failing(403, "denied")
    weather.on(LIST, answer)
    with pytest.raises(Unreachable):
        pull(weather.client(tmp_path), "ada/first-phase", 3, tmp_path / "v3")
    assert not (tmp_path / "v3").exists()


def test_many_files_over_many_pages_all_arrive(weather: Weather, tmp_path: Path) -> None:
    names = [f"folder{number % 3}/file{number}" for number in range(30)]
    pages = [
        {
            "files": [{"fileName": name, "url": f"{weather.url}/out/same"} for name in names[start : start + 10]],
            "nextPageToken": str(start + 10) if start < 20 else "",
            "log": LOG if start == 0 else "",
        }
        for start in (0, 10, 20)
    ]
    weather.on(LIST, *pages)
    weather.on(SIZES, {"files": [{"name": name, "size": 4} for name in names]})
    weather.on("same", (200, b"same", {}))
    pull(weather.client(tmp_path), "ada/first-phase", 3, tmp_path / "v3")
    assert contents(tmp_path / "v3").keys() == {*names, "session.log"}
