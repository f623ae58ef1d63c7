"""What the server's tests share: a running server, the real kaggle command, plain requests, small notebooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import requests

from kchain import files
from kchain.server import launch
from kchain.server.launch import Endpoint

KAGGLE = Path(sys.executable).with_name("kaggle")
KERNELS = "kernels.KernelsApiService"
DATASETS = "datasets.DatasetApiService"
MODELS = "models.ModelApiService"
KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}
PATIENCE_SECONDS = 300
# Session limits in seconds: the first in which this machine gets far enough counts.
LIMITS = (5, 30, 180)


def notebook(*cells: str, kernelspec: bool = True) -> str:
    """A notebook of these code cells, as JSON text."""
    listed = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
        for n, source in enumerate(cells)
    ]
    metadata = {"kernelspec": KERNELSPEC} if kernelspec else {}
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": listed})


def until(what: str, holds: Callable[[], Any]) -> Any:
    """Wait for something; its first true value."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if value := holds():
            return value
        time.sleep(0.05)
    raise AssertionError(f"never happened: {what}")


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits for its parent to notice its end does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Running:
    """A server in `root`, and a user's ways to it."""

    def __init__(self, root: Path, profile: str, **switches: Any) -> None:
        self.root = root
        launch.write_profile(root, profile, switches)
        self.endpoint: Endpoint = launch.ensure_running(root, idle_seconds=600)

    @property
    def url(self) -> str:
        return self.endpoint.url

    def restart(self, profile: str | None = None, **switches: Any) -> None:
        """Start a server in the same root again."""
        if profile is not None:
            launch.write_profile(self.root, profile, switches)
        self.endpoint = launch.ensure_running(self.root, idle_seconds=600)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        os.kill(self.endpoint.pid, 9)
        until("the server's death", lambda: not alive(self.endpoint.pid))
        # Its last threads may hold the lock a moment longer than the process shows up as alive.
        until("its lock", self._lock_is_free)

    def _lock_is_free(self) -> bool:
        try:
            with files.locked(self.root / launch.LOCK, wait=0):
                return True
        except BlockingIOError:
            return False

    def post(self, method: str, body: dict[str, Any] | None = None, user: str = "ana") -> requests.Response:
        """One RPC, as the client sends it."""
        session = requests.Session()
        session.trust_env = False
        address = f"{self.url}/api/v1/{method}"
        return session.post(address, json=body or {}, auth=(user, self.endpoint.key), timeout=300)

    def rpc(self, method: str, body: dict[str, Any] | None = None, user: str = "ana") -> dict[str, Any]:
        """One RPC that must succeed; its answer."""
        response = self.post(method, body, user)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def save(
        self, slug: str, source: str = "", /, user: str = "ana", title: str | None = None, **more: Any
    ) -> requests.Response:
        """SaveKernel of `user/slug`."""
        body = {
            "slug": f"{user}/{slug}",
            "newTitle": slug.replace("-", " ") if title is None else title,
            "text": source or notebook("print('ran')"),
            "language": "python",
            "kernelType": "notebook",
            "isPrivate": True,
            **more,
        }
        return self.post(f"{KERNELS}/SaveKernel", body, user)

    def push(self, slug: str, source: str = "", /, user: str = "ana", **more: Any) -> dict[str, Any]:
        """SaveKernel that must be accepted; its answer."""
        response = self.save(slug, source, user, **more)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        assert not answer["error"], answer
        return answer

    def status(self, slug: str, version: int | None = None, user: str = "ana") -> dict[str, Any]:
        """GetKernelSessionStatus."""
        body = {"userName": user, "kernelSlug": slug, **({"versionLabel": f"v{version}"} if version else {})}
        return self.rpc(f"{KERNELS}/GetKernelSessionStatus", body, user)

    def finished(self, slug: str, version: int | None = None, user: str = "ana") -> dict[str, Any]:
        """The status once the session is over."""
        active = ("QUEUED", "RUNNING", "CANCEL_REQUESTED")

        def over() -> dict[str, Any] | None:
            found = self.status(slug, version, user)
            return None if found["status"] in active else found

        result: dict[str, Any] = until(f"the end of {slug}", over)
        return result

    def reaches(self, slug: str, status: str, version: int | None = None) -> None:
        """Wait for a status."""
        until(f"{slug} {status}", lambda: self.status(slug, version)["status"] == status)

    def outputs(self, slug: str, user: str = "ana", **more: Any) -> dict[str, Any]:
        """ListKernelSessionOutput."""
        return self.rpc(f"{KERNELS}/ListKernelSessionOutput", {"userName": user, "kernelSlug": slug, **more}, user)

    def printed(self, slug: str, user: str = "ana") -> str:
        """What a finished session printed to stdout."""
        events = json.loads(self.outputs(slug, user)["log"])
        return "".join(event["data"] for event in events if event["stream_name"] == "stdout")

    def fault(self, *faults: dict[str, Any]) -> None:
        """Script what goes wrong next."""
        launch.control(self.endpoint, "faults", {"faults": list(faults)})

    def environment(self, home: Path, user: str = "ana") -> dict[str, str]:
        """What points the kaggle command here: a proxy, so that it runs unmodified."""
        home.mkdir(exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if not key.upper().startswith(("KAGGLE_", "HTTP"))}
        pointing = {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "HTTP_PROXY": self.url}
        credentials = {"KAGGLE_USERNAME": user, "KAGGLE_KEY": self.endpoint.key}
        return {**kept, "HOME": str(home), "TMPDIR": str(home), "NO_PROXY": "", **pointing, **credentials}

    def kaggle(self, *arguments: str, user: str = "ana", code: int | None = 0) -> str:
        """The real kaggle command; everything it said."""
        done = subprocess.run(
            [str(KAGGLE), *arguments],
            env=self.environment(self.root.parent / "home", user),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


def kernel_folder(folder: Path, slug: str, source: str, **metadata: Any) -> Path:
    """A folder `kaggle kernels push` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notebook.ipynb").write_text(source, encoding="utf-8")
    described = {
        "id": f"ana/{slug}",
        "title": slug.replace("-", " "),
        "code_file": "notebook.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        **metadata,
    }
    (folder / "kernel-metadata.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def dataset_folder(folder: Path, slug: str, files: dict[str, str], user: str = "ana") -> Path:
    """A folder `kaggle datasets create` takes."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    described = {"id": f"{user}/{slug}", "title": slug.replace("-", " "), "licenses": [{"name": "CC0-1.0"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def upload(server: Running, name: str, data: bytes, user: str = "ana") -> str:
    """Upload one blob; its token."""
    started = server.rpc(
        "blobs.BlobApiService/StartBlobUpload",
        {"type": "DATASET", "name": name, "contentLength": len(data), "lastModifiedEpochSeconds": 1},
        user,
    )
    assert requests.put(started["createUrl"], data=data, timeout=300).status_code == 200
    token: str = started["token"]
    return token


def create_dataset(
    server: Running, slug: str, files: dict[str, bytes], user: str = "ana", private: bool = True
) -> None:
    """CreateDataset without the command."""
    tokens = [{"token": upload(server, name, data, user)} for name, data in files.items()]
    body = {"ownerSlug": user, "slug": slug, "title": slug, "licenseName": "CC0-1.0", "isPrivate": private}
    answer = server.rpc(f"{DATASETS}/CreateDataset", {**body, "files": tokens}, user)
    assert answer["status"] == "Ok", answer
