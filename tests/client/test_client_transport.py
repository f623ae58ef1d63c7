"""The transport: what the installed kagglesdk is asked, addresses that redirect, data sets over a bad line."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from client_weather import MakeBundle, Weather, failing, html, reset

from kchain.client.save import save_kernel
from kchain.client.sdk import build_request
from kchain.errors import Ambiguous, InputError, PushRefused, Unreachable

REF = "ada/my-adapter"


@pytest.mark.parametrize(
    "method", ["GetKernel", "GetKernelSessionStatus", "ListKernelSessionOutput", "ListKernelFiles"]
)
def test_the_installed_client_can_name_a_version_in_every_read(method: str) -> None:
    request = build_request("kernels", method, {"user_name": "ada", "kernel_slug": "first-phase", "version": 3})
    assert type(request).to_dict(request)["versionLabel"] == "v3"


def test_fields_that_are_none_are_left_out() -> None:
    request = build_request("kernels", "GetKernel", {"user_name": "ada", "kernel_slug": "x", "version": None})
    assert type(request).to_dict(request) == {"userName": "ada", "kernelSlug": "x"}


def serve_file(weather: Weather, answer: Any) -> None:
    weather.on("ListDatasetFiles", {"datasetFiles": [{"name": "a.bin", "totalBytes": 3}]})
    weather.on("DownloadDataset", answer)


def test_a_file_of_a_data_set_is_fetched_from_where_the_answer_points_without_the_key(
    weather: Weather, tmp_path: Path
) -> None:
    serve_file(weather, (302, b"", {"Location": "/store/a.bin?sig=x"}))
    weather.on("a.bin", (200, b"abc", {}))
    to = weather.client(tmp_path).dataset_download(REF, "a.bin", tmp_path / "a.bin")
    assert to.read_bytes() == b"abc"
    asked = weather.calls("DownloadDataset")[0]
    assert asked.body == {"ownerSlug": "ada", "datasetSlug": "my-adapter", "fileName": "a.bin", "raw": True}
    assert "Authorization" not in weather.calls("a.bin")[0].headers


@pytest.mark.parametrize("answer", [{}, (302, b"", {}), html(), failing(500, "x"), {"url": "http://x"}])
def test_no_address_is_an_error(weather: Weather, tmp_path: Path, answer: Any) -> None:
    serve_file(weather, answer)
    with pytest.raises(Unreachable):
        weather.client(tmp_path).dataset_download(REF, "a.bin", tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()


def test_a_compressed_or_cut_file_of_a_data_set_is_not_taken_for_the_file(weather: Weather, tmp_path: Path) -> None:
    serve_file(weather, (302, b"", {"Location": "/store/a.bin"}))
    weather.on("a.bin", (200, b"PK\x03\x04 not three bytes", {}))
    with pytest.raises(Unreachable, match="expected 3"):
        weather.client(tmp_path).dataset_download(REF, "a.bin", tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("answer", "due"),
    [
        ({"status": "READY"}, "READY"),
        ({"status": "ready"}, "READY"),
        ({"status": "SOMETHING_NEW"}, "SOMETHING_NEW"),
        ({}, "NOT_YET_PERSISTED"),
        (failing(403, "denied"), None),
        (failing(404, "gone"), None),
    ],
)
def test_the_state_of_a_data_set(weather: Weather, tmp_path: Path, answer: Any, due: str | None) -> None:
    weather.on("GetDatasetStatus", answer)
    assert weather.client(tmp_path).dataset_status(REF) == due


@pytest.mark.parametrize("answer", [html(403), failing(500, "x"), {"status": None}, {"status": 4}, reset])
def test_no_clear_state_is_never_taken_for_a_free_name(weather: Weather, tmp_path: Path, answer: Any) -> None:
    """Kaggle's client takes every error for "free"."""
    weather.on("GetDatasetStatus", answer)
    with pytest.raises(Unreachable):
        weather.client(tmp_path).dataset_status(REF)


@pytest.mark.parametrize("answer", [{}, {"currentVersionNumber": 0}, {"currentVersionNumber": "1"}])
def test_a_data_set_without_a_version_is_an_error(weather: Weather, tmp_path: Path, answer: Any) -> None:
    weather.on("GetDataset", answer)
    with pytest.raises(Unreachable):
        weather.client(tmp_path).dataset_version(REF)


def test_files_of_a_data_set_come_in_pages(weather: Weather, tmp_path: Path) -> None:
    first = {"datasetFiles": [{"name": "a", "totalBytes": 1}], "nextPageToken": "t"}
    weather.on("ListDatasetFiles", first, {"datasetFiles": [{"name": "b"}], "nextPageToken": ""})
    files = weather.client(tmp_path).dataset_files(REF)
    assert [(file.name, file.bytes) for file in files] == [("a", 1), ("b", 0)]


@pytest.fixture
def adapter(tmp_path: Path, weather: Weather) -> Path:
    """A folder to upload, to a target that takes it."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"abc")
    (folder / "empty").write_bytes(b"")
    weather.on("GetDatasetStatus", failing(403, "no such"), {"status": "READY"})
    weather.on("StartBlobUpload", {"token": "one-token", "createUrl": f"{weather.url}/put/here"})
    weather.on("here", (200, b"", {}))
    weather.on("CreateDataset", {"ref": REF, "status": "Ok", "error": ""})
    return folder


def create(weather: Weather, tmp_path: Path, folder: Path) -> None:
    weather.client(tmp_path).dataset_create(folder, REF, "My adapter")


def test_a_private_data_set_is_made_of_a_folder(weather: Weather, tmp_path: Path, adapter: Path) -> None:
    create(weather, tmp_path, adapter)
    sent = weather.calls("CreateDataset")[0].body
    assert sent["isPrivate"] is True
    assert (sent["ownerSlug"], sent["slug"], sent["title"]) == ("ada", "my-adapter", "My adapter")
    assert sent["files"] == [{"token": "one-token"}] * 2
    puts = weather.calls("here")
    assert [seen.headers["Content-Length"] for seen in puts] == ["3", "0"]
    assert all("Authorization" not in seen.headers for seen in puts)
    assert [seen.body["name"] for seen in weather.calls("StartBlobUpload")] == ["a.bin", "empty"]


def test_an_upload_that_breaks_is_sent_again(weather: Weather, tmp_path: Path, adapter: Path) -> None:
    weather.on("here", (503, b"", {}), reset, (201, b"", {}))
    create(weather, tmp_path, adapter)
    assert len(weather.calls("CreateDataset")) == 1


def test_a_file_that_cannot_be_uploaded_keeps_the_data_set_from_being_made(
    weather: Weather, tmp_path: Path, adapter: Path
) -> None:
    """Kaggle's client drops the file and makes the data set without it."""
    weather.on("here", (400, b"", {}))
    with pytest.raises(Unreachable, match="400"):
        create(weather, tmp_path, adapter)
    assert weather.calls("CreateDataset") == []


@pytest.mark.parametrize("answer", [failing(500, "x"), html(), reset])
def test_a_data_set_that_may_have_been_made_is_ambiguous_and_not_made_twice(
    weather: Weather, tmp_path: Path, adapter: Path, answer: Any
) -> None:
    weather.on("CreateDataset", answer)
    with pytest.raises(Ambiguous):
        create(weather, tmp_path, adapter)
    assert len(weather.calls("CreateDataset")) == 1


def test_a_refused_data_set_says_why(weather: Weather, tmp_path: Path, adapter: Path) -> None:
    weather.on("CreateDataset", {"status": "error", "error": "The requested title is already in use by a dataset."})
    with pytest.raises(PushRefused, match="already in use"):
        create(weather, tmp_path, adapter)


def test_a_name_in_use_is_told_before_anything_is_uploaded(weather: Weather, tmp_path: Path, adapter: Path) -> None:
    weather.on("GetDatasetStatus", {"status": "READY"})
    with pytest.raises(InputError, match="exists already"):
        create(weather, tmp_path, adapter)
    assert weather.calls("StartBlobUpload") == []


def test_pushes_from_several_threads_do_not_mix(weather: Weather, tmp_path: Path, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    weather.on("SaveKernel", {"ref": "/code/ada/first-phase", "versionNumber": 5, "url": "u"})
    transport = weather.client(tmp_path).transport
    found: list[int] = []
    stdout = sys.stdout
    threads = [
        threading.Thread(target=lambda: found.append(save_kernel(transport, "ada", bundle, 60).version))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [5] * 4
    assert sys.stdout is stdout
    assert {seen.headers["Authorization"].partition(" ")[0] for seen in weather.seen} == {"Basic"}
