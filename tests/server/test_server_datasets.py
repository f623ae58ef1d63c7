"""Data sets, blobs and models: the plain kaggle command, the way to READY, uploads that break off or want to escape."""

from __future__ import annotations

import io
import json
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from server_tools import DATASETS, KERNELS, MODELS, Running, create_dataset, dataset_folder, notebook, until, upload

from kchain.server.publish import publish_dataset, publish_model

Start = Callable[..., Running]
LOOK = (
    "import os, pathlib\nroot = pathlib.Path(os.environ['KCHAIN_KAGGLE_ROOT'], 'input')\n"
    "print(sorted(p.relative_to(root).as_posix() + '=' + p.read_text() for p in root.rglob('*') if p.is_file()))"
)


def test_the_kaggle_command_takes_a_data_set_through_its_life(server: Running, tmp_path: Path) -> None:
    files = {"train.jsonl": '{"a": 1}\n' * 1000, "empty.txt": "", "deep/er/x.txt": "x", ".git/config": "no"}
    folder = dataset_folder(tmp_path / "data", "life-of-data", files)
    said = server.kaggle("datasets", "create", "-p", str(folder), "--dir-mode", "zip")
    assert "Your private Dataset is being created" in said
    assert server.kaggle("datasets", "status", "ana/life-of-data").strip() == "ready"
    (folder / "deep" / "er" / "x.txt").write_text("y", encoding="utf-8")
    server.kaggle("datasets", "version", "-p", str(folder), "-m", "second", "--dir-mode", "tar")
    described = json.loads(server.kaggle("datasets", "status", "ana/life-of-data", "--format", "json"))
    assert described == {"status": "ready", "current_version_number": 2}
    listed = server.kaggle("datasets", "files", "ana/life-of-data")
    assert "train.jsonl" in listed and "deep/er/x.txt" in listed and "empty.txt" in listed and ".git" not in listed

    server.kaggle("datasets", "download", "ana/life-of-data", "-p", str(tmp_path / "all"), "--unzip")
    assert (tmp_path / "all" / "deep" / "er" / "x.txt").read_text(encoding="utf-8") == "y"
    server.kaggle("datasets", "download", "ana/life-of-data", "-f", "train.jsonl", "-p", str(tmp_path / "one"))
    assert (tmp_path / "one" / "train.jsonl").read_text(encoding="utf-8") == files["train.jsonl"]
    assert "ana/life-of-data" in server.kaggle("datasets", "list", "-m")
    again = server.kaggle("datasets", "create", "-p", str(folder), code=None)
    assert "already in use" in again
    assert "deleted" in server.kaggle("datasets", "delete", "-y", "ana/life-of-data")
    assert (
        server.post(f"{DATASETS}/GetDatasetStatus", {"ownerSlug": "ana", "datasetSlug": "life-of-data"}).status_code
        == 403
    )


def test_the_kaggle_command_changes_what_is_said_of_a_data_set(server: Running, tmp_path: Path) -> None:
    create_dataset(server, "told-data", {"a.txt": b"a"}, private=False)
    create_dataset(server, "other-data", {"a.txt": b"a"})
    server.kaggle("datasets", "metadata", "ana/told-data", "-p", str(tmp_path))
    file = tmp_path / "dataset-metadata.json"
    told = json.loads(json.loads(text) if (text := file.read_text()).startswith('"') else text)["info"]
    assert (told["title"], told.get("isPrivate")) == ("told-data", None), "the client leaves out what is false"
    told |= {"title": "Told anew", "subtitle": "short", "isPrivate": True, "licenses": [{"name": "MIT"}]}
    file.write_text(json.dumps(told))
    server.kaggle("datasets", "metadata", "ana/told-data", "--update", "-p", str(tmp_path))
    ref = {"ownerSlug": "ana", "datasetSlug": "told-data"}
    now = server.rpc(f"{DATASETS}/GetDataset", ref)
    said = [now[key] for key in ("title", "subtitle", "isPrivate", "licenseName", "ref")]
    assert said == ["Told anew", "short", True, "MIT", "ana/told-data"]
    file.write_text(json.dumps(told | {"title": "other-data"}))
    refused = server.kaggle("datasets", "metadata", "ana/told-data", "--update", "-p", str(tmp_path), code=1)
    assert "already in use" in refused
    settings = {"settings": {"title": "Mine now"}}
    assert server.post(f"{DATASETS}/UpdateDatasetMetadata", {**ref, **settings}, "bob").status_code == 403


def test_a_new_version_is_mounted_only_when_ready_and_the_previous_one_until_then(start: Start) -> None:
    server = start("like-kaggle", dataset_seconds=0)
    create_dataset(server, "grown-data", {"a.txt": b"old"})
    server.kill()
    server.restart("like-kaggle", dataset_seconds=3600, queue_seconds=0)
    body = {"files": [{"token": upload(server, "a.txt", b"new")}], "versionNotes": "n"}
    ref = {"ownerSlug": "ana", "datasetSlug": "grown-data"}
    server.rpc(f"{DATASETS}/CreateDatasetVersion", {**ref, "body": body})
    assert server.rpc(f"{DATASETS}/GetDatasetStatus", ref)["status"] == "NOT_YET_PERSISTED"
    assert server.push("early-kernel", notebook(LOOK), datasetDataSources=["ana/grown-data"])["error"] == ""
    server.finished("early-kernel")
    assert server.printed("early-kernel") == "['datasets/ana/grown-data/a.txt=old']\n"


@pytest.mark.parametrize("answer", ["conflict", "invalid"])
def test_a_source_whose_first_version_is_not_ready(start: Start, answer: str) -> None:
    server = start("like-kaggle", dataset_seconds=3600, unready_dataset=answer)
    create_dataset(server, "young-data", {"a.txt": b"a"})
    pushed = server.save("eager-kernel", datasetDataSources=["ana/young-data"])
    if answer == "conflict":
        assert pushed.status_code == 409
    else:
        assert pushed.json()["invalidDatasetSources"] == ["ana/young-data"]
    early = {"ownerSlug": "ana", "datasetSlug": "young-data", "body": {"files": []}}
    assert server.post(f"{DATASETS}/CreateDatasetVersion", early).status_code == 403


def test_processing_passes_through_kaggles_words_to_ready(start: Start) -> None:
    server = start("like-kaggle", dataset_seconds=4000)
    create_dataset(server, "slow-data", {"a.txt": b"a"})
    words: list[str] = []
    for _ in range(5):
        ask = {"ownerSlug": "ana", "datasetSlug": "slow-data"}
        words.append(server.rpc(f"{DATASETS}/GetDatasetStatus", ask)["status"])
        with sqlite3.connect(server.root / "state.db") as db:  # a quarter of the time passes
            db.execute("UPDATE dataset_versions SET created = created - 1000, ready = ready - 1000")
    assert words[0] != "READY" and words[-1] == "READY" and len(set(words)) >= 3


def test_an_upload_that_broke_off_goes_on_where_it_stopped(server: Running) -> None:
    data = bytes(range(256)) * 40
    ask = {"type": "DATASET", "name": "big.bin", "contentLength": len(data)}
    started = server.rpc("blobs.BlobApiService/StartBlobUpload", ask)

    def put(body: bytes, content_range: str) -> requests.Response:
        return requests.put(started["createUrl"], data=body, headers={"Content-Range": content_range}, timeout=30)

    nothing = put(b"", f"bytes */{len(data)}")
    assert nothing.status_code == 308 and "Range" not in nothing.headers
    part = put(data[:4000], f"bytes 0-3999/{len(data)}")
    assert (part.status_code, part.headers["Range"]) == (308, "bytes=0-3999")
    assert put(data[5000:], f"bytes 5000-{len(data) - 1}/{len(data)}").status_code == 400
    assert put(b"", f"bytes */{len(data)}").headers["Range"] == "bytes=0-3999"
    early = {
        "ownerSlug": "ana",
        "slug": "resumed-data",
        "title": "resumed-data",
        "files": [{"token": started["token"]}],
    }
    assert server.post(f"{DATASETS}/CreateDataset", early).status_code == 400
    assert put(data[4000:], f"bytes 4000-{len(data) - 1}/{len(data)}").status_code == 200
    assert put(b"", f"bytes */{len(data)}").status_code == 200
    assert server.rpc(f"{DATASETS}/CreateDataset", early)["status"] == "Ok"
    assert requests.put(f"{server.url}/upload/unknown", data=b"x", timeout=30).status_code == 404


def test_an_upload_larger_than_announced_is_refused(server: Running) -> None:
    started = server.rpc(
        "blobs.BlobApiService/StartBlobUpload", {"type": "DATASET", "name": "a.bin", "contentLength": 3}
    )
    assert requests.put(started["createUrl"], data=b"12345", timeout=30).status_code == 400


def test_anothers_upload_cannot_be_used(server: Running) -> None:
    token = upload(server, "a.txt", b"a", user="bob")
    body = {"ownerSlug": "ana", "slug": "stolen-data", "title": "stolen-data", "files": [{"token": token}]}
    assert server.post(f"{DATASETS}/CreateDataset", body).status_code == 400


def _zip(entries: dict[str, str], link: str | None = None) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in entries.items():
            archive.writestr(name, text)
        if link is not None:
            entry = zipfile.ZipInfo("link")
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, link)
    return packed.getvalue()


def _tar(entries: dict[str, str], link: str | None = None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
        if link is not None:
            member = tarfile.TarInfo("link")
            member.type, member.linkname = tarfile.SYMTYPE, link
            archive.addfile(member)
    return packed.getvalue()


@pytest.mark.parametrize("pack, suffix", [(_zip, ".zip"), (_tar, ".tar.gz")])
def test_archives_cannot_leave_their_folder(server: Running, pack: Callable[..., bytes], suffix: str) -> None:
    kind = suffix[1:4]
    create_dataset(server, f"linked-{kind}", {f"d{suffix}": pack({"ok.txt": "ok"}, "/etc/passwd")})
    found = server.rpc(f"{DATASETS}/ListDatasetFiles", {"ownerSlug": "ana", "datasetSlug": f"linked-{kind}"})
    assert [file["name"] for file in found["datasetFiles"]] == ["d/ok.txt"]
    for number, name in enumerate(("../../../escaped.txt", "/tmp/kchain-escaped.txt")):
        slug = f"escaping-{kind}-{number}"
        create_dataset(server, slug, {f"d{suffix}": pack({name: "bad"})})
        assert (
            server.rpc(f"{DATASETS}/GetDatasetStatus", {"ownerSlug": "ana", "datasetSlug": slug})["status"] == "FAILED"
        )
    assert not list(server.root.parent.rglob("*escaped.txt")) and not Path("/tmp/kchain-escaped.txt").exists()


def test_an_archive_in_an_archive_is_unpacked_too(server: Running) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("deep/inner.tar.gz", _tar({"a.txt": "a"}))
    create_dataset(server, "packed-twice", {"d.zip": packed.getvalue()})
    found = server.rpc(f"{DATASETS}/ListDatasetFiles", {"ownerSlug": "ana", "datasetSlug": "packed-twice"})
    assert [file["name"] for file in found["datasetFiles"]] == ["d/deep/inner/a.txt"]


def test_owners_and_slugs_that_read_alike_when_joined_get_their_own_zip(server: Running) -> None:
    for owner, slug in (("ida-x", "secret-data"), ("ida", "x-secret-data")):
        create_dataset(server, slug, {"whose.txt": owner.encode()}, user=owner)
        zipped = server.post(f"{DATASETS}/DownloadDataset", {"ownerSlug": owner, "datasetSlug": slug}, owner).content
        with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
            assert archive.read("whose.txt") == owner.encode()


def test_a_damaged_archive_makes_a_failed_version(server: Running) -> None:
    create_dataset(server, "damaged-data", {"d.zip": b"this is no zip"})
    ref = {"ownerSlug": "ana", "datasetSlug": "damaged-data"}
    assert server.rpc(f"{DATASETS}/GetDatasetStatus", ref)["status"] == "FAILED"


@pytest.mark.parametrize("name", ["../up.txt", "/etc/x", "a/b.txt", "", ".."])
def test_an_upload_cannot_have_a_path_for_a_name(server: Running, name: str) -> None:
    refused = server.post("blobs.BlobApiService/StartBlobUpload", {"type": "DATASET", "name": name})
    assert refused.status_code == 400


def test_a_bad_title_is_an_error_in_the_answer(server: Running) -> None:
    body = {"ownerSlug": "ana", "slug": "abc", "title": "abc", "files": [{"token": upload(server, "a", b"a")}]}
    answer = server.rpc(f"{DATASETS}/CreateDataset", body)
    assert answer["status"] == "error" and "between 6 and 50" in answer["error"]
    assert server.post(f"{DATASETS}/CreateDataset", {**body, "ownerSlug": "bob"}).status_code == 403


def test_old_versions_go_when_asked(server: Running) -> None:
    create_dataset(server, "pruned-data", {"a.txt": b"1"})
    ref = {"ownerSlug": "ana", "datasetSlug": "pruned-data"}
    body = {"files": [{"token": upload(server, "a.txt", b"2")}], "deleteOldVersions": True}
    server.rpc(f"{DATASETS}/CreateDatasetVersion", {**ref, "body": body})
    assert [version["versionNumber"] for version in server.rpc(f"{DATASETS}/GetDataset", ref)["versions"]] == [2]
    assert server.post(f"{DATASETS}/ListDatasetFiles", {**ref, "datasetVersionNumber": 1}).status_code == 404


def test_published_sources_are_found_under_their_own_names(server: Running, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "w.txt").write_text("weights", encoding="utf-8")
    (folder / "leak").symlink_to("/etc/passwd")
    assert publish_dataset(server.root, "Someone/Bash-Commands", folder) == 1
    assert publish_dataset(server.root, "someone/bash-commands", folder) == 1
    publish_model(server.root, "qwen-lm/qwen2.5/transformers/0.5b-instruct/1", folder)
    answer = server.push(
        "published-reader",
        notebook(LOOK),
        datasetDataSources=["someone/bash-commands"],
        modelDataSources=["qwen-lm/qwen2.5/transformers/0.5b-instruct/1"],
    )
    assert not any(value for key, value in answer.items() if key.startswith("invalid"))
    server.finished("published-reader")
    assert server.printed("published-reader") == (
        "['datasets/someone/bash-commands/sub/w.txt=weights', "
        "'models/qwen-lm/qwen2.5/transformers/0.5b-instruct/1/sub/w.txt=weights']\n"
    )
    (folder / "sub" / "w.txt").write_text("other", encoding="utf-8")
    assert publish_dataset(server.root, "someone/bash-commands", folder) == 2


def test_the_kaggle_command_lists_and_describes_a_published_model(server: Running, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"m" * 10)
    publish_model(server.root, "org/tiny/transformers/base/3", tmp_path)
    listed = server.kaggle("models", "instances", "versions", "files", "org/tiny/transformers/base/3")
    assert "model.safetensors" in listed
    ref = {"ownerSlug": "org", "modelSlug": "tiny", "framework": "MODEL_FRAMEWORK_TRANSFORMERS", "instanceSlug": "base"}
    assert server.rpc(f"{MODELS}/GetModel", ref)["ref"] == "org/tiny"
    assert server.rpc(f"{MODELS}/GetModelInstance", ref)["versionNumber"] == 3
    assert len(server.rpc(f"{MODELS}/ListModelInstanceVersions", ref)["versionList"]["versions"]) == 1
    got = server.post(
        f"{MODELS}/DownloadModelInstanceVersion", {**ref, "versionNumber": 3, "path": "model.safetensors"}
    )
    assert got.content == b"m" * 10
    assert server.post(f"{MODELS}/GetModel", {"ownerSlug": "org", "modelSlug": "none"}).status_code == 403
    assert server.post(f"{MODELS}/DownloadModelInstanceVersion", {**ref, "versionNumber": 9}).status_code == 404


def test_a_deleted_source_does_not_pull_the_rug_from_a_session(server: Running, tmp_path: Path) -> None:
    create_dataset(server, "rug-data", {"a.txt": b"still here"})
    gate = tmp_path / "gate"
    wait = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)"
    server.push("rug-kernel", notebook("print('on')", wait, LOOK), datasetDataSources=["ana/rug-data"])
    server.reaches("rug-kernel", "RUNNING")
    folder = max((server.root / "sessions").iterdir(), key=lambda path: int(path.name))
    until("the first cell", lambda: (folder / "log.jsonl").exists() and (folder / "log.jsonl").stat().st_size)
    server.rpc(f"{DATASETS}/DeleteDataset", {"ownerSlug": "ana", "datasetSlug": "rug-data"})
    gate.touch()
    server.finished("rug-kernel")
    assert "still here" in server.printed("rug-kernel")
    assert server.post(f"{KERNELS}/GetKernel", {"userName": "ana", "kernelSlug": "rug-kernel"}).status_code == 200
