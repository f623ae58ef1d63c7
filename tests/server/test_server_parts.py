"""The small parts: names, pages, profiles, weeks, trees, logs; and the less used fields of requests."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_tools import DATASETS, KERNELS, Running, create_dataset, notebook, upload

from kchain import files
from kchain.errors import InputError
from kchain.server import outputs, profile, save_kernel, trees, wire


@given(st.integers(0, 120), st.integers(0, 300))
def test_pages_hold_every_item_once_and_in_order(count: int, size: int) -> None:
    items, seen, token, rounds = list(range(count)), [], "", 0
    while True:
        shown, token, start = wire.page(items, wire.Paging(page_size=size, page_token=token))
        assert start == len(seen) and len(shown) <= wire.LARGEST_PAGE
        seen += shown
        rounds += 1
        if not token:
            break
        assert rounds <= count
    assert seen == items


def test_a_page_can_be_asked_for_by_number() -> None:
    assert list(wire.page(list(range(50)), wire.Paging(page=3, page_size=20))[0]) == list(range(40, 50))


@pytest.mark.parametrize("value", [-1, 2**63, 1.5, "1", [1]])
def test_a_number_fits_the_wire_or_is_refused(value: object) -> None:
    with pytest.raises(wire.ApiError, match="page must be a whole number"):
        wire.read(wire.Paging, json.dumps({"page": value}).encode())
    assert wire.read(wire.Paging, json.dumps({"page": 2**63 - 1}).encode()).page == 2**63 - 1


@pytest.mark.parametrize("body", [b"{", b"[]", b"5", b"\xff", b'{"page": ' + b"[" * 100_000, b"[" * 100_000], ids=len)
def test_a_body_that_is_no_request_is_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(wire.ApiError) as caught:
        wire.read(wire.Paging, body)
    assert caught.value.status == 400 and len(caught.value.message) < 100
    assert wire.read(wire.Paging, b"") == wire.Paging()


@given(st.text())
def test_a_checked_name_is_a_plain_folder_name(value: str) -> None:
    try:
        name = wire.name(value, "slug")
    except wire.ApiError as error:
        assert error.status == 400
    else:
        assert name not in (".", "..") and Path(name).name == name


@given(st.text(max_size=40))
def test_a_joined_name_stays_in_its_folder(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    folder = Path("/some/folder")
    try:
        joined = files.safe_join(folder, value)
    except files.UnsafeName:
        return
    assert os.path.normpath(joined).startswith("/some/folder/")


@pytest.mark.parametrize(
    "moment, start",
    [
        ("2026-11-21T00:00:00", "2026-11-21T00:00:00"),  # a Saturday
        ("2026-11-20T23:59:59", "2026-11-14T00:00:00"),
        ("2026-11-25T12:00:00", "2026-11-21T00:00:00"),
    ],
)
def test_a_week_begins_on_saturday(moment: str, start: str) -> None:
    def seconds(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    assert save_kernel.week_start(seconds(moment)) == seconds(start)


@pytest.mark.parametrize(
    "switches",
    [
        {"mounts": "sideways"},
        {"own_output": "sometimes"},
        {"queue_seconds": -1},
        {"queue_seconds": None},
        {"gpu_sessions": True},
        {"title_rule": 1},
        {"user": "../x"},
        {"unknown_kernel": 500},
        {"nonsense": 1},
    ],
    ids=str,
)
def test_a_switch_that_does_not_fit_is_named(switches: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(switches))):
        profile.named("like-kaggle", **switches)


def test_a_profile_is_read_from_the_root(tmp_path: Path) -> None:
    assert profile.load(tmp_path).name == "machine"
    (tmp_path / "profile.json").write_text('{"name": "like-kaggle", "gpu_hours": 5}', encoding="utf-8")
    assert profile.load(tmp_path).gpu_hours == 5
    assert profile.load(tmp_path, "like-kaggle").gpu_hours == 5
    assert profile.load(tmp_path, "machine").gpu_hours is None
    for broken in ("[]", "{", '{"name": "moon"}'):
        (tmp_path / "profile.json").write_text(broken, encoding="utf-8")
        with pytest.raises(InputError):
            profile.load(tmp_path)


def test_a_mounted_tree_shares_bytes_but_not_folders(tmp_path: Path) -> None:
    (tmp_path / "store" / "sub").mkdir(parents=True)
    (tmp_path / "store" / "sub" / "a").write_text("a", encoding="utf-8")
    trees.link_tree(tmp_path / "store", tmp_path / "mount")
    assert (tmp_path / "mount" / "sub" / "a").samefile(tmp_path / "store" / "sub" / "a")
    trees.remove_tree(tmp_path / "mount")
    assert not (tmp_path / "mount").exists() and (tmp_path / "store" / "sub" / "a").exists()


def test_a_removed_tree_takes_no_linked_folder_with_it(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "direct").symlink_to(tmp_path / "other")
    trees.remove_tree(tmp_path / "tree")
    trees.remove_tree(tmp_path / "direct")
    assert (tmp_path / "other" / "precious").exists() and not (tmp_path / "direct").is_symlink()


def test_a_fingerprint_knows_names_and_contents_but_not_times(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1", encoding="utf-8")
    first = trees.fingerprint(tmp_path)
    os.utime(tmp_path / "a", (1, 1))
    assert trees.fingerprint(tmp_path) == first and first[1] == 1
    (tmp_path / "a").rename(tmp_path / "b")
    assert trees.fingerprint(tmp_path) != first


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(path, b"old", 0o600)
    with pytest.raises(TypeError):
        files.write(path, 5)  # type: ignore[arg-type]
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_line_still_being_written_waits(tmp_path: Path) -> None:
    (tmp_path / outputs.LOG).write_bytes(b'{"data": "1"}\n{"da')
    found, position = outputs.lines(tmp_path)
    assert found == ['{"data": "1"}']
    (tmp_path / outputs.LOG).write_bytes(b'{"data": "1"}\n{"data": "2"}\n')
    assert outputs.lines(tmp_path, position)[0] == ['{"data": "2"}']
    assert outputs.as_array(tmp_path / "none") == "[\n]"


@pytest.mark.parametrize(
    "body, status",
    [
        ({"userName": "ana", "kernelSlug": "absent-kernel"}, 403),
        ({"userName": "ana", "kernelSlug": "present-kernel/9"}, 404),
        ({"userName": "ana", "kernelSlug": "present-kernel", "versionLabel": "vX"}, 400),
        ({"userName": "ana", "kernelSlug": 5}, 400),
        ({"userName": "ana", "kernelSlug": "half-a-pair-\ud800"}, 400),
        ({"kernelSlug": "present-kernel"}, 200),
        ({"userName": "ANA", "kernelSlug": "Present-Kernel"}, 200),
    ],
    ids=str,
)
def test_a_kernel_is_found_by_name_and_version_or_refused(
    server: Running, body: dict[str, object], status: int
) -> None:
    server.push("present-kernel", kernelExecutionType="QUICK_SAVE")
    assert server.post(f"{KERNELS}/GetKernel", body).status_code == status


def test_lists_are_filtered_as_asked_and_newest_first(server: Running) -> None:
    for slug in ("listed-alpha", "listed-beta"):
        server.push(slug, user="lea", kernelExecutionType="QUICK_SAVE")
    server.push("listed-script", "print()", user="lea", kernelType="script", kernelExecutionType="QUICK_SAVE")

    def slugs(**body: object) -> list[str]:
        return [kernel["slug"] for kernel in server.rpc(f"{KERNELS}/ListKernels", body, "lea")["kernels"]]

    assert slugs(group="PROFILE") == ["listed-script", "listed-beta", "listed-alpha"]
    assert slugs(user="lea", search="BETA") == ["listed-beta"]
    assert slugs(user="lea", kernelType="script") == ["listed-script"]
    assert slugs(user="lea", kernelType="all", pageSize=1, page=2) == ["listed-beta"]
    for used in ("dataset", "competition", "parentKernel"):
        assert slugs(user="lea", **{used: "bob/none"}) == []
    server.push("listed-child", user="lea", kernelExecutionType="QUICK_SAVE", kernelDataSources=["lea/listed-beta"])
    assert slugs(user="lea", parentKernel="lea/listed-beta") == ["listed-child"]
    assert slugs(user="nobody") == []


def test_data_set_lists_show_ones_own_and_public_ones_only(server: Running) -> None:
    create_dataset(server, "shown-public", {"a": b"a"}, user="lea", private=False)
    create_dataset(server, "shown-private", {"a": b"a"}, user="lea")

    def slugs(asking: str, /, **body: object) -> list[str]:
        found = server.rpc(f"{DATASETS}/ListDatasets", body, asking)["datasets"]
        return [dataset["ref"].removeprefix("lea/") for dataset in found]

    assert slugs("lea", group="DATASET_SELECTION_GROUP_MY") == ["shown-private", "shown-public"]
    assert slugs("max", user="lea") == ["shown-public"]
    assert slugs("max", group="DATASET_SELECTION_GROUP_MY") == []
    metadata = {"ownerSlug": "lea", "datasetSlug": "shown-public"}
    assert server.rpc(f"{DATASETS}/GetDatasetMetadata", metadata, "max")["info"]["licenses"] == [{"name": "CC0-1.0"}]
    for method in ("DeleteDataset", "CreateDatasetVersion"):
        assert server.post(f"{DATASETS}/{method}", {**metadata, "body": {}}, "max").status_code == 403


def test_a_data_set_version_can_be_addressed_by_its_number(server: Running) -> None:
    create_dataset(server, "numbered-data", {"a.txt": b"a"})
    described = server.rpc(f"{DATASETS}/GetDataset", {"ownerSlug": "ana", "datasetSlug": "numbered-data"})
    body = {"files": [{"token": upload(server, "a.txt", b"b")}], "versionNotes": "by number"}
    server.rpc(f"{DATASETS}/CreateDatasetVersionById", {"id": described["id"], "body": body})
    assert server.post(f"{DATASETS}/CreateDatasetVersionById", {"id": 9999, "body": body}).status_code == 403
    ask = {"ownerSlug": "ana", "datasetSlug": "numbered-data", "fileName": "a.txt"}
    contents = [
        server.post(f"{DATASETS}/DownloadDataset", {**ask, **version}).content
        for version in ({"datasetVersionNumber": 1}, {"datasetVersionNumber": 2}, {})
    ]
    assert contents == [b"a", b"b", b"b"]


def test_folders_of_a_data_set_request_become_folders(server: Running) -> None:
    inner = {"name": "In ner", "files": [{"token": upload(server, "b.txt", b"b")}]}
    files_given = [{"token": upload(server, "a.txt", b"a")}]
    body = {"ownerSlug": "ana", "slug": "nested-data", "title": "nested-data", "files": files_given}
    outside = {"name": "../up", "files": [{"token": upload(server, "c.txt", b"c")}]}
    assert server.post(f"{DATASETS}/CreateDataset", {**body, "directories": [outside]}).status_code == 400
    for odd in ([1], {"name": "x"}, [{"name": "a.txt"}]):
        assert server.post(f"{DATASETS}/CreateDataset", {**body, "directories": odd}).status_code == 400
    server.rpc(f"{DATASETS}/CreateDataset", {**body, "directories": [inner]})
    found = server.rpc(f"{DATASETS}/ListDatasetFiles", {"ownerSlug": "ana", "datasetSlug": "nested-data"})
    assert [(file["name"], file["totalBytes"]) for file in found["datasetFiles"]] == [("In ner/b.txt", 1), ("a.txt", 1)]
    assert not list(server.root.glob(".upload-*"))


def test_outputs_of_a_version_can_be_asked_for_and_downloaded(server: Running) -> None:
    for text in ("one", "two"):
        server.push("versioned-output", notebook(f"open('o.txt', 'w').write({text!r})"))
    for version in (1, 2):
        server.finished("versioned-output", version=version)
    ask = {"ownerSlug": "ana", "kernelSlug": "versioned-output", "filePath": "o.txt"}
    contents = [
        server.post(f"{KERNELS}/DownloadKernelOutput", {**ask, **version}).content
        for version in ({"versionNumber": 1}, {"versionNumber": 2}, {})
    ]
    assert contents == [b"one", b"two", b"two"]
    assert len(server.outputs("versioned-output", versionLabel="v1")["files"]) == 1
