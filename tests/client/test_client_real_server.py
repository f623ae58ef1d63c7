"""The client against the real kchain server: real pushes with the official client, real sessions, scripted faults."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_weather import FAST, MakeBundle

from kchain.client.client import Client, connect
from kchain.client.connect import server_transport
from kchain.client.login import Credentials
from kchain.client.pull import pull
from kchain.client.target import Target
from kchain.client.transport import Patience
from kchain.errors import (
    Ambiguous,
    CredentialsError,
    InputError,
    NotNow,
    PushRefused,
    QuotaUsedUp,
    SessionCap,
    Unreachable,
)
from kchain.orchestrator.doctor import examine, worst
from kchain.orchestrator.judging.advice import advise, failing_cell

pytest.importorskip("papermill")
launch = pytest.importorskip("kchain.server.launch")

REF = "ada/first-phase"
PRINTS = """
import os, time
for number in range(4):
    print('kchain: {"event": "step", "step": %d}' % number, flush=True)
    time.sleep(0.1)
os.makedirs("adapter", exist_ok=True)
with open("adapter/weights.bin", "wb") as file:
    file.write(bytes(range(256)) * 2000)
with open("größe.txt", "w", encoding="utf-8") as file:
    file.write("ß")
"""


class World:
    """One server of its own, and a client that is ada's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.target = Target("local", "ada", root)

    def start(self, **switches: Any) -> Client:
        launch.ensure_running(
            self.target.local_root, profile="like-kaggle", switches={"queue_seconds": 0.0, **switches}
        )
        return connect(self.target, FAST)

    def faults(self, *faults: dict[str, Any]) -> None:
        endpoint = launch.find(self.target.local_root)
        launch.control(endpoint, "faults", {"faults": list(faults)})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    yield found
    launch.stop(found.target.local_root)


def ended(client: Client, ref: str = REF) -> str:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        word = client.status(ref).word
        if word not in ("QUEUED", "RUNNING", "CANCEL_REQUESTED"):
            return word
        time.sleep(0.1)
    raise AssertionError("the session did not end")


def runs(client: Client) -> None:
    """Waits until the session has left the queue: what a killed server leaves in it, the next one runs."""
    deadline = time.monotonic() + 300
    while client.status(REF).word != "RUNNING":
        assert time.monotonic() < deadline, "the session did not start"
        time.sleep(0.05)


def test_a_phase_is_pushed_followed_and_pulled(world: World, make_bundle: MakeBundle, tmp_path: Path) -> None:
    client = world.start()
    assert client.kernel(REF) is None
    bundle = make_bundle(PRINTS, kernel_sources=["ada/never-there"])
    pushed = client.push(bundle, 600)
    assert pushed.version == 1
    assert pushed.invalid == ("kernel ada/never-there",)
    kernel = client.kernel(REF, 1)
    assert kernel is not None
    assert kernel.version == 1
    assert json.loads(kernel.source)["cells"][0]["source"] == PRINTS
    assert client.status(REF, 1).word in ("QUEUED", "RUNNING")
    lines = [line for line in client.follow(REF, 1) if line.text.startswith("kchain: ")]
    assert [json.loads(line.text[8:])["step"] for line in lines] == [0, 1, 2, 3]
    assert [line.time for line in lines] == sorted(line.time for line in lines)
    assert ended(client) == "COMPLETE"
    assert {file.name for file in client.outputs(REF, 1).files} >= {"adapter/weights.bin", "größe.txt"}
    assert client.sizes(REF, 1)["adapter/weights.bin"] == 512_000
    folder = pull(client, REF, 1, tmp_path / "runs" / "v1")
    assert (folder / "adapter" / "weights.bin").read_bytes() == bytes(range(256)) * 2000
    assert (folder / "größe.txt").read_text(encoding="utf-8") == "ß"
    assert (folder / "session.log").read_text(encoding="utf-8").count("kchain: ") == 4
    again = [line for line in client.follow(REF, 1) if line.text.startswith("kchain: ")]
    assert again == lines


@pytest.mark.parametrize("kind", ["commit-then-500", "commit-then-html", "commit-then-reset", "commit-then-empty"])
def test_an_answer_lost_after_the_commit_is_ambiguous_and_the_version_is_there(
    world: World, make_bundle: MakeBundle, kind: str
) -> None:
    client = world.start()
    world.faults({"method": "SaveKernel", "kind": kind})
    with pytest.raises(Ambiguous):
        client.push(make_bundle("x = 41 + 1"), 600)
    kernel = client.kernel(REF)
    assert kernel is not None
    assert kernel.version == 1
    assert "x = 41 + 1" in kernel.source


@pytest.mark.parametrize("kind", ["500", "reset", "html"])
def test_an_answer_lost_before_the_commit_is_as_ambiguous_and_nothing_is_there(
    world: World, make_bundle: MakeBundle, kind: str
) -> None:
    client = world.start()
    world.faults({"method": "SaveKernel", "kind": kind, "calls": 5})
    with pytest.raises(Ambiguous):
        client.push(make_bundle(), 600)
    world.faults()
    assert client.kernel(REF) is None


def test_a_pull_survives_a_line_that_cuts_resets_and_fails(
    world: World, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    client = world.start()
    client.push(make_bundle(PRINTS), 600)
    assert ended(client) == "COMPLETE"
    world.faults(
        {"method": "ListKernelSessionOutput", "kind": "503"},
        {"method": "ListKernelFiles", "kind": "reset"},
        {"method": "Download", "kind": "cut"},
        {"method": "Download", "kind": "reset"},
        {"method": "Download", "kind": "500"},
    )
    folder = pull(client, REF, 1, tmp_path / "v1")
    assert (folder / "adapter" / "weights.bin").read_bytes() == bytes(range(256)) * 2000


def test_reads_get_through_short_storms(world: World, make_bundle: MakeBundle) -> None:
    client = world.start()
    client.push(make_bundle(), 600)
    for kind in ("500", "html", "empty", "reset", "cut", "429"):
        world.faults({"method": "GetKernelSessionStatus", "kind": kind, "calls": 2})
        assert client.status(REF).word in ("QUEUED", "RUNNING", "COMPLETE")


def test_a_cut_log_stream_goes_on(world: World, make_bundle: MakeBundle) -> None:
    client = world.start()
    client.push(make_bundle(PRINTS), 600)
    assert ended(client) == "COMPLETE"
    world.faults({"method": "LogStream", "kind": "cut"})
    steps = [line.text for line in client.follow(REF, 1) if line.text.startswith("kchain: ")]
    assert len(steps) == 4


def test_caps_and_quota_of_the_account(world: World, make_bundle: MakeBundle) -> None:
    client = world.start(cpu_sessions=1, gpu_hours=0.0)
    client.push(make_bundle("import time; time.sleep(60)"), 600)
    with pytest.raises(SessionCap, match="Maximum batch CPU session count of 1 reached"):
        client.push(make_bundle(id="ada/second-phase", title="Second phase"), 600)
    gpu = make_bundle(id="ada/third-phase", title="Third phase", enable_gpu=True, machine_shape="NvidiaTeslaT4")
    with pytest.raises(QuotaUsedUp, match="Maximum weekly GPU quota"):
        client.push(gpu, 600)
    quota = client.quota()
    assert quota is not None
    assert quota.gpu_free == 0
    assert client.kernel("ada/second-phase") is None


def test_refusals_for_good(world: World, make_bundle: MakeBundle) -> None:
    client = world.start()
    client.push(make_bundle(), 600)
    with pytest.raises(PushRefused, match="title") as caught:
        client.push(make_bundle(title="Another title"), 600)
    assert "title" in caught.value.hint
    with pytest.raises(PushRefused):
        client.push(make_bundle(id="eve/first-phase"), 600)
    with pytest.raises(PushRefused, match="1048576"):
        client.push(make_bundle("x = '" + "x" * 2**20 + "'"), 600)


def test_a_version_at_another_address_than_asked_for_is_noticed(world: World, make_bundle: MakeBundle) -> None:
    """Kaggle makes a new kernel under the slug of its title, whatever `id` says."""
    client = world.start()
    with pytest.raises(PushRefused, match="ada/first-phase instead"):
        client.push(make_bundle(id="ada/something-else"), 600)


def test_a_data_set_is_made_waited_for_and_fetched(world: World, make_bundle: MakeBundle, tmp_path: Path) -> None:
    client = world.start(dataset_seconds=1.0)
    folder = tmp_path / "adapter"
    (folder / "inside").mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"12345678" * 10_000)
    assert client.dataset_status("ada/my-adapter") is None
    client.dataset_create(folder, "ada/my-adapter", "My adapter")
    assert client.dataset_status("ada/my-adapter") != "READY"
    while client.dataset_status("ada/my-adapter") != "READY":
        time.sleep(0.1)
    assert client.dataset_version("ada/my-adapter") == 1
    files = {file.name: file.bytes for file in client.dataset_files("ada/my-adapter")}
    assert files == {"adapter_config.json": 2, "adapter_model.safetensors": 80_000}
    world.faults({"method": "Download", "kind": "cut"})
    to = client.dataset_download("ada/my-adapter", "adapter_model.safetensors", tmp_path / "got" / "a.safetensors")
    assert to.read_bytes() == b"12345678" * 10_000
    with pytest.raises(InputError, match="has no file 'gone'"):
        client.dataset_download("ada/my-adapter", "gone", tmp_path / "gone")
    with pytest.raises(InputError, match="exists already") as caught:
        client.dataset_create(folder, "ada/my-adapter", "My adapter")
    assert "--dataset ada/my-adapter" in caught.value.hint


def test_a_data_set_that_is_still_processed_is_a_not_now(world: World, make_bundle: MakeBundle, tmp_path: Path) -> None:
    client = world.start(dataset_seconds=600.0)
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    with pytest.raises(InputError, match="6 to 50"):
        client.dataset_create(folder, "ada/short", "My adapter")
    with pytest.raises(InputError, match="no file to upload"):
        client.dataset_create(_empty(tmp_path), "ada/my-adapter", "My adapter")
    client.dataset_create(folder, "ada/my-adapter", "My adapter")
    with pytest.raises(NotNow, match="still being processed"):
        client.push(make_bundle(dataset_sources=["ada/my-adapter"]), 600)


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_a_killed_server_is_a_sentence_and_the_next_command_finds_everything_again(
    world: World, make_bundle: MakeBundle
) -> None:
    client = world.start()
    client.push(make_bundle("import time; time.sleep(60)"), 600)
    runs(client)
    endpoint = launch.find(world.target.local_root)
    os.kill(endpoint.pid, signal.SIGKILL)
    with pytest.raises(Unreachable, match="kchain server") as caught:
        client.status(REF)
    assert caught.value.exit_code == 4
    again = connect(world.target, FAST)
    kernel = again.kernel(REF)
    assert kernel is not None
    assert kernel.version == 1
    assert ended(again) == "ERROR"


def test_a_time_limit_ends_the_session_and_what_was_written_comes_back(
    world: World, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    client = world.start()
    for version, limit in enumerate((3, 30, 180), start=1):  # the first in which this machine gets so far counts
        client.push(make_bundle("open('early.txt', 'w').write('x')\nimport time; time.sleep(600)"), limit)
        assert ended(client) == "CANCEL_ACKNOWLEDGED"
        early = pull(client, REF, version, tmp_path / f"v{version}") / "early.txt"
        if early.exists():
            break
    assert early.read_text() == "x"


def test_a_failing_notebook_is_an_error_whose_cell_and_cure_are_found(
    world: World, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    client = world.start()
    client.push(make_bundle("print('fine')", "def f():\n    raise RuntimeError('CUDA out of memory. Tried')\nf()"), 600)
    assert ended(client) == "ERROR"
    log = (pull(client, REF, 1, tmp_path / "v1") / "session.log").read_text(encoding="utf-8")
    for text in (log, client.outputs(REF, 1).log):
        cell = failing_cell(text)
        assert cell is not None
        assert cell.splitlines()[-1] == "RuntimeError: CUDA out of memory. Tried"
        advice = advise(text)
        assert advice is not None
        assert "accumulation" in advice.change


def test_a_wrong_key_is_told_by_every_call(world: World, make_bundle: MakeBundle) -> None:
    url = world.start().transport.base.removesuffix("/api")
    wrong = Client(world.target, server_transport(url, Credentials.key("ada", "wrong-key", "a test"), FAST))
    with pytest.raises(CredentialsError):
        wrong.kernel(REF)
    with pytest.raises(CredentialsError):
        wrong.push(make_bundle(), 600)
    assert list(wrong.follow(REF)) == []


def test_others_kernels_are_absent(world: World, make_bundle: MakeBundle, tmp_path: Path) -> None:
    client = world.start()
    client.push(make_bundle(), 600)
    eve = connect(Target("local", "eve", tmp_path), Patience(attempts=1))
    assert eve.kernel(REF) is None
    assert eve.kernel("ada/never-there") is None


def test_the_doctor_is_content_with_a_local_server(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = world.start()
    endpoint = launch.find(world.target.local_root)
    (tmp_path / "key").write_text(endpoint.key)
    monkeypatch.setenv("KCHAIN_KEY_FILE", str(tmp_path / "key"))
    checks = examine(None, client.transport.base.removesuffix("/api"), tmp_path)
    assert worst(checks) == 0
    assert [check.name for check in checks] == ["client", "disk", "credentials", "target", "clock", "quota"]
