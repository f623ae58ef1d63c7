"""Scripted faults do what they say, once each, and a cut log stream is picked up again by the kaggle command."""

from __future__ import annotations

import pytest
import requests
from server_tools import KERNELS, Running, notebook

from kchain.errors import Unreachable
from kchain.server import launch

QUOTA = f"{KERNELS}/GetAcceleratorQuotaStatistics"


@pytest.mark.parametrize("status, word", [(429, "RESOURCE_EXHAUSTED"), (500, "INTERNAL"), (503, "UNAVAILABLE")])
def test_a_status_is_answered_so_often_and_then_no_more(server: Running, status: int, word: str) -> None:
    server.fault({"method": "GetAcceleratorQuotaStatistics", "kind": str(status), "calls": 2, "skip": 1})
    codes = [server.post(QUOTA).status_code for _ in range(4)]
    assert codes == [200, status, status, 200]
    server.fault({"method": "*", "kind": str(status), "message": "Too many requests"})
    assert server.post(QUOTA).json() == {"error": {"code": status, "message": "Too many requests", "status": word}}


@pytest.mark.parametrize("kind, text", [("html", "<html>"), ("empty", "")])
def test_nonsense_comes_with_status_200(server: Running, kind: str, text: str) -> None:
    server.fault({"method": "*", "kind": kind})
    answer = server.post(QUOTA)
    assert answer.status_code == 200 and answer.text.startswith(text)
    with pytest.raises(ValueError):
        answer.json()


@pytest.mark.parametrize("kind", ["reset", "hang", "cut"])
def test_the_connection_breaks(server: Running, kind: str) -> None:
    server.fault({"method": "*", "kind": kind, "seconds": 0.1})
    with pytest.raises(requests.exceptions.RequestException):
        server.post(QUOTA)
    assert server.post(QUOTA).status_code == 200


def test_a_dripping_answer_arrives_whole(server: Running) -> None:
    server.fault({"method": "*", "kind": "drip", "seconds": 0.2})
    assert "gpuQuota" in server.rpc(QUOTA)


@pytest.mark.parametrize("kind", ["commit-then-500", "commit-then-reset", "commit-then-html", "commit-then-hang"])
def test_an_effect_may_happen_although_its_answer_is_lost(server: Running, kind: str) -> None:
    slug = f"kernel-{kind}"
    server.fault({"method": "SaveKernel", "kind": kind, "seconds": 0.1})
    if kind in ("commit-then-500", "commit-then-html"):
        assert "versionNumber" not in server.save(slug, kernelExecutionType="QUICK_SAVE").text
    else:
        with pytest.raises(requests.exceptions.ConnectionError):
            server.save(slug, kernelExecutionType="QUICK_SAVE")
    metadata = server.rpc(f"{KERNELS}/GetKernel", {"userName": "ana", "kernelSlug": slug})["metadata"]
    assert metadata["currentVersionNumber"] == 1


@pytest.mark.parametrize(
    "script", ["none", [{}], [{"method": "*", "kind": "200"}], [{"method": "*", "kind": "explode"}]]
)
def test_a_script_that_is_none_is_refused(server: Running, script: object) -> None:
    with pytest.raises(Unreachable, match="400"):
        launch.control(server.endpoint, "faults", {"faults": script})


def test_follow_survives_a_log_stream_that_is_cut(start, tmp_path) -> None:
    server = start("like-kaggle", log_cut_seconds=0.3, export_noise=False)
    source = notebook("import time\nfor n in range(4):\n    print('line', n, flush=True)\n    time.sleep(0.8)")
    server.push("cut-kernel", source)
    said = server.kaggle("kernels", "logs", "-f", "ana/cut-kernel")
    assert [line for line in said.splitlines() if line.startswith("line")] == [f"line {n}" for n in range(4)]


def test_a_stream_replays_from_the_start_and_ends_with_the_sentinel(server: Running) -> None:
    server.push("replayed-kernel", notebook("print('one \\u2028 zwei ü')", "import time\ntime.sleep(2)"))
    session = requests.Session()
    session.trust_env = False
    address = f"{server.url}/api/v1/kernels/logs/stream/ana/replayed-kernel"
    for _ in range(2):  # from the queue, and again while it runs
        with session.get(address, auth=("ana", server.endpoint.key), stream=True, timeout=60) as stream:
            assert stream.headers["Content-Type"].startswith("text/event-stream")
            lines = [line for line in stream.iter_lines(decode_unicode=True) if line]
            assert '"data": "one \\u2028 zwei \\u00fc\\n"' in lines[0]
        if lines[-1] == "data: END_OF_LOG":
            break
    assert lines[-1] == "data: END_OF_LOG"
    server.finished("replayed-kernel")
    after = session.get(address + "/1", auth=("ana", server.endpoint.key), timeout=60)
    assert after.headers["Content-Type"] == "application/json"
    assert after.json()[0]["data"] == "one \u2028 zwei ü\n"
