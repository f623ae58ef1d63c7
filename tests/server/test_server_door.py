"""Who may come in: keys, host names, signed addresses; and downloads as a resuming client needs them."""

from __future__ import annotations

import http.client
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from server_tools import DATASETS, KAGGLE, KERNELS, Running, create_dataset, kernel_folder, notebook

STATUS = f"/api/v1/{KERNELS}/GetAcceleratorQuotaStatistics"


def ask(server: Running, target: str, host: str | None, method: str = "POST") -> http.client.HTTPResponse:
    """A request with exactly this request line and Host header."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.url).port, timeout=300)
    connection.putrequest(method, target, skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.putheader("Authorization", f"Bearer {server.endpoint.key}")
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    return connection.getresponse()


@pytest.mark.parametrize(
    "target, host",
    [
        (STATUS, "127.0.0.1:80"),
        (STATUS, "localhost"),
        (STATUS, "LOCALHOST:8080"),
        (STATUS, "[::1]:1"),
        (f"http://localhost{STATUS}", "localhost"),
        (f"http://127.0.0.1:99{STATUS.removeprefix('/api')}", "127.0.0.1:99"),
    ],
)
def test_local_names_are_answered_in_both_forms_of_request_line(server: Running, target: str, host: str) -> None:
    assert ask(server, target, host).status == 200


@pytest.mark.parametrize(
    "target, host",
    [
        (STATUS, "evil.example"),
        (STATUS, "localhost.evil.example"),
        (STATUS, "127.0.0.1.evil.example:80"),
        (STATUS, "localhost@evil.example"),
        (f"http://evil.example{STATUS}", "localhost"),
        (f"http://localhost{STATUS}", "evil.example"),
        ("http://evil.example/", "evil.example"),
    ],
)
def test_any_other_name_is_refused_whatever_the_key(server: Running, target: str, host: str) -> None:
    assert ask(server, target, host).status == 403


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="asks Linux which ports listen")
def test_it_listens_on_loopback_only(server: Running) -> None:
    port = urlsplit(server.url).port
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    assert f"0100007F:{port:04X}" in listening and f"00000000:{port:04X}" not in listening


@pytest.mark.parametrize(
    "header", ["", "Bearer wrong", "Basic YW5hOndyb25n", "Basic !!!", "Basic YW5h", "Digest x", "Basic é"]
)
def test_without_the_right_key_everything_is_a_401(server: Running, header: str) -> None:
    session = requests.Session()
    session.trust_env = False
    headers = {"Authorization": header.encode()} if header else {}
    for path in (STATUS, f"/api/v1/{KERNELS}/SaveKernel", "/kchain/stop", "/kchain/faults", "/api/v1/a.B/C"):
        refused = session.post(server.url + path, json={}, headers=headers, timeout=300)
        assert refused.status_code == 401 and refused.json()["error"]["status"] == "UNAUTHENTICATED"
    assert session.get(f"{server.url}/api/v1/kernels/logs/stream/a/b", headers=headers, timeout=300).status_code == 401


def test_the_key_is_its_owners_only_and_each_user_name_is_a_user(server: Running) -> None:
    assert stat.S_IMODE((server.root / "key").stat().st_mode) == 0o600
    server.push("kernel-of-ana", user="ana", kernelExecutionType="QUICK_SAVE")
    mine = {
        user: server.rpc(f"{KERNELS}/ListKernels", {"group": "PROFILE"}, user)["kernels"] for user in ("ana", "eve")
    }
    assert [kernel["ref"] for kernel in mine["ana"]] == ["ana/kernel-of-ana"] and mine["eve"] == []
    assert server.post(f"{KERNELS}/ListKernels", user="../eve").status_code == 400


def test_the_kaggle_command_with_a_wrong_key_is_told_to_log_in(server: Running, tmp_path: Path) -> None:
    folder = kernel_folder(tmp_path / "bundle", "keyless-kernel", notebook("1"))
    environment = {**server.environment(tmp_path / "home"), "KAGGLE_KEY": "wrong"}
    command = [str(KAGGLE), "kernels", "push", "-p", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "Authentication required" in done.stdout


def test_the_kaggle_command_accepts_the_key_as_an_access_token(start: Callable[..., Running], tmp_path: Path) -> None:
    server = start("like-kaggle", user="tilda")
    environment = server.environment(tmp_path / "home")
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        del environment[name]
    environment["KAGGLE_API_TOKEN"] = server.endpoint.key
    done = subprocess.run([str(KAGGLE), "config", "view"], env=environment, capture_output=True, text=True, timeout=300)
    assert "tilda" in done.stdout, done.stdout + done.stderr
    for wrong in ("wrong", "tilda:wrong", f"{server.endpoint.key}:", ""):
        refused = server.post("security.OAuthService/IntrospectToken", {"token": wrong})
        assert refused.json() == {"active": False}


def test_an_access_token_with_a_user_name_is_that_users(server: Running, tmp_path: Path) -> None:
    folder = kernel_folder(tmp_path / "bundle", "kernel-by-token", notebook("1"), id="uma/kernel-by-token")
    environment = server.environment(tmp_path / "home", "somebody-else")
    environment["KAGGLE_API_TOKEN"] = f"uma:{server.endpoint.key}"
    command = [str(KAGGLE), "kernels", "push", "-p", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert "successfully pushed" in done.stdout, done.stdout + done.stderr
    kernels = server.rpc(f"{KERNELS}/ListKernels", {"group": "PROFILE"}, "uma")["kernels"]
    assert [kernel["ref"] for kernel in kernels] == ["uma/kernel-by-token"]


@pytest.fixture(scope="module")
def output(server: Running) -> str:
    """The signed address of an output of 100 bytes."""
    server.push("signed-kernel", notebook("open('a b%.bin', 'wb').write(bytes(range(100)))"))
    server.finished("signed-kernel")
    address: str = server.outputs("signed-kernel")["files"][0]["url"]
    return address


def test_a_signed_address_needs_no_key_and_takes_none(
    start: Callable[..., Running], server: Running, output: str
) -> None:
    assert requests.get(output, timeout=300).content == bytes(range(100))
    assert requests.get(output, timeout=300, auth=("ana", server.endpoint.key)).status_code == 401
    lenient = start("machine")
    lenient.push("signed-kernel", notebook("open('a.bin', 'w').write('a')"))
    lenient.finished("signed-kernel")
    address = lenient.outputs("signed-kernel")["files"][0]["url"]
    assert requests.get(address, timeout=300, auth=("ana", lenient.endpoint.key)).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.split("?")[0],
        lambda url: url.replace("signature=", "signature=0"),
        lambda url: url.replace("expires=", "expires=9"),
        lambda url: url.replace("/output/", "/output/../../"),
        lambda url: url.replace("a%20b%25.bin", "..%2F..%2Fsource.ipynb"),
    ],
)
def test_a_changed_signed_address_is_refused(output: str, change: Callable[[str], str]) -> None:
    assert change(output) != output
    assert requests.get(change(output), timeout=300).status_code in (403, 404)


def test_downloads_say_what_they_are_and_resume(output: str) -> None:
    whole = requests.get(output, timeout=300)
    assert whole.headers["Content-Length"] == "100" and whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["ETag"] and whole.headers["Last-Modified"].endswith("GMT")
    rest = requests.get(output, headers={"Range": "bytes=40-", "If-Range": whole.headers["ETag"]}, timeout=300)
    assert (rest.status_code, rest.content) == (206, bytes(range(40, 100)))
    assert rest.headers["Content-Range"] == "bytes 40-99/100"
    changed = requests.get(output, headers={"Range": "bytes=40-", "If-Range": '"other"'}, timeout=300)
    assert (changed.status_code, len(changed.content)) == (200, 100)
    assert requests.get(output, headers={"Range": "bytes=100-"}, timeout=300).status_code == 416


def test_a_directly_addressed_client_follows_a_download_redirect(server: Running) -> None:
    create_dataset(server, "redirected-data", {"a.txt": b"abc"})
    body = {"ownerSlug": "ana", "datasetSlug": "redirected-data"}
    followed = server.post(f"{DATASETS}/DownloadDataset", {**body, "fileName": "a.txt"})
    assert followed.history[0].status_code == 302 and followed.content == b"abc"
    assert server.post(f"{DATASETS}/DownloadDataset", {**body, "fileName": "../a"}).status_code == 404
    output = {"ownerSlug": "ana", "kernelSlug": "signed-kernel", "filePath": "../job.json"}
    assert server.post(f"{KERNELS}/DownloadKernelOutput", output).status_code in (403, 404)


def test_what_is_not_json_or_not_served_is_refused_in_kaggles_shape(server: Running) -> None:
    session = requests.Session()
    session.trust_env = False
    for data in (b"{", b"[]", b"\xff", b"[" * 100_000):
        refused = session.post(server.url + STATUS, data=data, auth=("ana", server.endpoint.key), timeout=300)
        assert refused.status_code == 400 and "error" in refused.json()
    assert server.post("kernels.KernelsApiService/NoSuchMethod").json()["error"]["code"] == 404
