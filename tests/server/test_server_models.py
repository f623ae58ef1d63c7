"""Models made through the API: the plain kaggle command from the first upload to a session that mounts the version."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server_tools import MODELS, Running, notebook, upload

from kchain.server.db import FILE, Database

Start = Callable[..., Running]
LOOK = (
    "import os, pathlib\nroot = pathlib.Path(os.environ['KCHAIN_KAGGLE_ROOT'], 'input')\n"
    "print(sorted(p.relative_to(root).as_posix() + '=' + p.read_text() for p in root.rglob('*') if p.is_file()))"
)
FRAMEWORK = "MODEL_FRAMEWORK_TRANSFORMERS"


def model_folder(folder: Path, slug: str, files: dict[str, str], **instance: Any) -> Path:
    """A folder `kaggle models create` and `kaggle models variations create` take."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    model = {"ownerSlug": "ana", "slug": slug, "title": f"The {slug}", "isPrivate": True, "description": "Told."}
    (folder / "model-metadata.json").write_text(json.dumps(model), encoding="utf-8")
    described = {
        "ownerSlug": "ana",
        "modelSlug": slug,
        "instanceSlug": "small",
        "framework": "transformers",
        "licenseName": "MIT",
        "overview": "short",
        "usage": "# How",
        **instance,
    }
    (folder / "model-instance-metadata.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def make_model(server: Running, slug: str, user: str = "ana", **more: Any) -> dict[str, Any]:
    return server.rpc(f"{MODELS}/CreateModel", {"ownerSlug": user, "slug": slug, "title": slug, **more}, user)


def make_variation(server: Running, slug: str, variation: str = "small", **more: Any) -> dict[str, Any]:
    files = [{"token": upload(server, "weights.bin", b"w")}]
    body = {"framework": FRAMEWORK, "instanceSlug": variation, "files": files, **more}
    return server.rpc(f"{MODELS}/CreateModelInstance", {"ownerSlug": "ana", "modelSlug": slug, "body": body})


def ref(slug: str, variation: str = "small", **more: Any) -> dict[str, Any]:
    return {"ownerSlug": "ana", "modelSlug": slug, "framework": FRAMEWORK, "instanceSlug": variation, **more}


def test_the_kaggle_command_takes_a_model_from_its_first_upload_to_a_session(server: Running, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", "life-of-model", {"weights.txt": "one", "config.json": "{}"})
    small = "ana/life-of-model/transformers/small"
    assert "Your model was created" in server.kaggle("models", "create", "-p", str(folder))
    said = server.kaggle("models", "variations", "create", "-p", str(folder))
    assert "Your model instance was created" in said and f"models/{small}/1" in said
    (folder / "weights.txt").write_text("two", encoding="utf-8")
    said = server.kaggle("models", "variations", "versions", "create", small, "-p", str(folder), "-n", "second")
    assert "Your model instance version was created" in said and f"{small}/2" in said

    assert "life-of-model" in server.kaggle("models", "list", "--owner", "ana")
    got = json.loads(server.kaggle("models", "get", "ana/life-of-model"))
    assert (got["isPrivate"], got["title"], got["description"]) == (True, "The life-of-model", "Told.")
    got = json.loads(server.kaggle("models", "variations", "get", small))
    assert (got["versionNumber"], got["licenseName"], got["usage"]) == (2, "MIT", "# How")
    server.kaggle("models", "variations", "get", small, "-p", str(tmp_path))
    assert json.loads((tmp_path / "model-instance-metadata.json").read_text())["framework"] == "transformers"
    assert "second" in server.kaggle("models", "variations", "list", "ana/life-of-model")
    assert "small" in server.kaggle("models", "variations", "versions", "list", small)
    assert "config.json" in server.kaggle("models", "variations", "files", small)

    for number, text in (("1", "one"), ("2", "two")):
        to = tmp_path / number
        server.kaggle("models", "variations", "versions", "download", f"{small}/{number}", "-p", str(to), "--untar")
        assert sorted(path.name for path in to.iterdir()) == ["config.json", "weights.txt"], "no metadata in it"
        assert (to / "weights.txt").read_text(encoding="utf-8") == text

    server.push("model-reader", notebook(LOOK), modelDataSources=[f"{small}/2"])
    server.finished("model-reader")
    assert f"models/{small}/2/weights.txt=two" in server.printed("model-reader")

    assert "deleted" in server.kaggle("models", "variations", "versions", "delete", "-y", f"{small}/1")
    assert "deleted" in server.kaggle("models", "variations", "delete", "-y", small)
    assert "No instances found" in server.kaggle("models", "variations", "list", "ana/life-of-model")
    assert "deleted" in server.kaggle("models", "delete", "-y", "ana/life-of-model")
    assert not list((server.root / "models" / "ana").rglob("weights.txt"))


def test_names_that_are_taken_or_bad_are_told_in_the_answer(server: Running, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", "taken-model", {"weights.txt": "one"})
    assert make_model(server, "taken-model")["id"] and make_variation(server, "taken-model")["id"]
    assert "creation error: The model ana/taken-model already exists" in server.kaggle(
        "models", "create", "-p", str(folder)
    )
    said = server.kaggle("models", "variations", "create", "-p", str(folder))
    assert "creation error: The variation small already exists" in said
    assert make_model(server, "taken-model")["errorCode"] == 409
    assert make_variation(server, "taken-model")["errorCode"] == 409
    assert make_variation(server, "taken-model", "x_y")["errorCode"] == 400
    assert make_variation(server, "taken-model", "other", framework="MODEL_FRAMEWORK_ABACUS")["errorCode"] == 400
    assert make_model(server, "-x")["errorCode"] == 400 and make_model(server, "Upper")["errorCode"] == 400
    # The same name in another framework is another variation.
    assert make_variation(server, "taken-model", framework="MODEL_FRAMEWORK_GGUF")["id"] > 0


def test_what_is_not_ones_own_or_not_there_is_refused(server: Running) -> None:
    assert make_model(server, "secret-model", isPrivate=True)["id"] and make_variation(server, "secret-model")["id"]
    assert make_model(server, "open-model", isPrivate=False)["id"] and make_variation(server, "open-model")["id"]
    for slug, seen in (("secret-model", 403), ("open-model", 200)):
        assert server.post(f"{MODELS}/GetModel", ref(slug), "bob").status_code == seen
        assert server.post(f"{MODELS}/DeleteModel", ref(slug), "bob").status_code == 403
        body = {**ref(slug), "body": {"files": [{"token": upload(server, "w.bin", b"w", "bob")}]}}
        assert server.post(f"{MODELS}/CreateModelInstanceVersion", body, "bob").status_code == 403
        handle = f"ana/{slug}/transformers/small/1"
        answer = server.push(f"bobs-{slug}", user="bob", modelDataSources=[handle])
        assert answer["invalidModelSources"] == ([handle] if seen == 403 else [])
    assert "secret-model" not in str(server.rpc(f"{MODELS}/ListModels", {"owner": "ana"}, "bob"))
    made = server.post(f"{MODELS}/CreateModel", {"ownerSlug": "ana", "slug": "x", "title": "x"}, "bob")
    assert made.status_code == 403
    assert server.post(f"{MODELS}/CreateModelInstance", {**ref("none"), "body": {}}).status_code == 403
    assert server.post(f"{MODELS}/CreateModelInstanceVersion", ref("open-model", "none")).status_code == 403
    for body in ({}, {"files": []}, {"files": [{"token": "unknown"}]}):
        asked = {**ref("open-model"), "body": body}
        assert server.post(f"{MODELS}/CreateModelInstanceVersion", asked).status_code == 400


def test_a_version_is_mounted_and_downloaded_only_when_it_is_ready(start: Start) -> None:
    server = start("like-kaggle", dataset_seconds=3600)
    make_model(server, "young-model")
    make_variation(server, "young-model")
    handle = "ana/young-model/transformers/small/1"
    assert server.rpc(f"{MODELS}/ListModelInstances", ref("young-model"))["instances"][0]["status"] != "READY"
    assert server.push("eager-reader", modelDataSources=[handle])["invalidModelSources"] == [handle]
    asked = ref("young-model", versionNumber=1)
    assert server.post(f"{MODELS}/DownloadModelInstanceVersion", asked).status_code == 404


def test_a_made_model_and_its_half_sent_file_survive_kill_9(start: Start) -> None:
    import requests

    server = start("like-kaggle")
    make_model(server, "kept-model")
    make_variation(server, "kept-model")
    data = bytes(range(256)) * 64
    ask = {"type": "MODEL", "name": "more.bin", "contentLength": len(data)}
    started = server.rpc("blobs.BlobApiService/StartBlobUpload", ask)
    header = {"Content-Range": f"bytes 0-8191/{len(data)}"}
    assert requests.put(started["createUrl"], data=data[:8192], headers=header, timeout=30).status_code == 308
    server.kill()
    server.restart()
    url = f"{server.url}/upload/{started['token']}"
    there = requests.put(url, headers={"Content-Range": f"bytes */{len(data)}"}, timeout=30)
    assert there.headers["Range"] == "bytes=0-8191"
    header = {"Content-Range": f"bytes 8192-{len(data) - 1}/{len(data)}"}
    assert requests.put(url, data=data[8192:], headers=header, timeout=30).status_code == 200
    body = {"files": [{"token": started["token"]}], "versionNotes": "after the crash"}
    answer = server.rpc(f"{MODELS}/CreateModelInstanceVersion", {**ref("kept-model"), "body": body})
    assert answer["ref"] == "ana/kept-model/transformers/small/2"
    asked = ref("kept-model", versionNumber=2, path="more.bin")
    assert server.post(f"{MODELS}/DownloadModelInstanceVersion", asked).content == data


def test_a_root_of_an_older_kchain_gets_the_new_columns(tmp_path: Path) -> None:
    Database(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("INSERT INTO models (owner, slug, title, private, created) VALUES ('a', 'b', 'b', 0, 1.0)")
        db.execute("ALTER TABLE models DROP COLUMN details")
        db.execute("ALTER TABLE model_versions DROP COLUMN notes")
        db.execute("DROP TABLE model_instances")
    row = Database(tmp_path).one("SELECT * FROM models")
    assert row is not None and row["details"] == "{}"


def test_an_uploaded_folder_becomes_a_folder_of_the_version(server: Running, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", "packed-model", {"a.txt": "a"})
    (folder / "deep").mkdir()
    (folder / "deep" / "b.txt").write_text("b", encoding="utf-8")
    make_model(server, "packed-model")
    server.kaggle("models", "variations", "create", "-p", str(folder), "--dir-mode", "tar")
    listed = server.rpc(f"{MODELS}/ListModelInstanceVersionFiles", ref("packed-model"))["files"]
    assert [file["name"] for file in listed] == ["a.txt", "deep/b.txt"]
