"""What a push meets on Kaggle: title rule, caps, quota, warnings, conflicts, limits; each switch in both positions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server_tools import KERNELS, LIMITS, Running, create_dataset, kernel_folder, notebook

SLEEP = notebook("import time\ntime.sleep(600)")
GPU = {"enableGpu": True, "machineShape": "NvidiaTeslaT4"}
Start = Callable[..., Running]


def test_a_new_kernel_lives_under_the_slug_of_its_title(server: Running) -> None:
    answer = server.push("wanted-slug", title="Another Name")
    assert answer["ref"] == "/code/ana/another-name"
    refused = server.post(f"{KERNELS}/GetKernelSessionStatus", {"userName": "ana", "kernelSlug": "wanted-slug"})
    assert refused.status_code == 403
    assert refused.json()["error"] == {
        "code": 403,
        "message": "Permission 'kernels.get' was denied",
        "status": "PERMISSION_DENIED",
    }
    assert server.finished("another-name")["status"] == "COMPLETE"


def test_a_title_that_makes_another_slug_than_the_kernels_is_a_conflict(server: Running) -> None:
    server.push("settled-kernel")
    assert server.save("settled-kernel", title="Quite another title").status_code == 409
    assert server.save("settled-kernel", title="").status_code == 200


def test_a_title_in_use_by_another_notebook_is_a_conflict(server: Running) -> None:
    server.push("taken-title")
    refused = server.save("fresh-slug", title="Taken title")
    assert refused.status_code == 409 and refused.json()["error"]["status"] == "ALREADY_EXISTS"


def test_the_kaggle_command_prints_why_a_push_was_refused(server: Running, tmp_path: Path) -> None:
    folder = kernel_folder(tmp_path / "bundle", "someone-elses", notebook("1"), id="bob/someone-elses")
    assert "Kernel push error: Notebook not found" in server.kaggle("kernels", "push", "-p", str(folder))


def test_without_the_title_rule_the_id_counts(start: Start) -> None:
    server = start("machine")
    assert server.push("wanted-slug", title="Another Name")["ref"] == "/code/ana/wanted-slug"
    assert server.finished("wanted-slug")["status"] == "COMPLETE"


@pytest.mark.parametrize("bytes_over, status", [(0, 200), (1, 400)])
def test_a_source_is_accepted_up_to_one_mebibyte(server: Running, bytes_over: int, status: int) -> None:
    filler = "# " + "x" * (2**20 - len(notebook("# ").encode()) + bytes_over)
    source = notebook(filler)
    assert len(source.encode()) == 2**20 + bytes_over
    assert server.save(f"large-kernel-{bytes_over}", source, kernelExecutionType="QUICK_SAVE").status_code == status


@pytest.mark.parametrize(
    "wrong",
    [
        {"slug": "no-owner"},
        {"slug": "ana/../../etc"},
        {"newTitle": "abc"},
        {"kernelType": "spreadsheet"},
        {"language": "cobol"},
        {"datasetDataSources": "ana/x"},
        {"sessionTimeoutSeconds": -5},
        {"kernelExecutionType": "INTER_ACTIVE"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_malformed_push_is_a_400_in_kaggles_shape(server: Running, wrong: dict[str, Any]) -> None:
    refused = server.save("malformed-push", **wrong)
    assert refused.status_code == 400 and refused.json()["error"]["status"] == "INVALID_ARGUMENT"


def test_missing_sources_are_named_and_the_version_runs_without_them(server: Running) -> None:
    missing = {
        "datasetDataSources": ["bob/nothing"],
        "kernelDataSources": ["ana/no-such-kernel"],
        "modelDataSources": ["qwen/none/transformers/none/1"],
        "competitionDataSources": ["titanic"],
    }
    answer = server.push("lacking-kernel", **missing)
    assert answer["invalidDatasetSources"] == ["bob/nothing"]
    assert answer["invalidKernelSources"] == ["ana/no-such-kernel"]
    assert answer["invalidModelSources"] == ["qwen/none/transformers/none/1"]
    assert answer["invalidCompetitionSources"] == ["titanic"]
    assert server.finished("lacking-kernel")["status"] == "COMPLETE"
    metadata = server.rpc(f"{KERNELS}/GetKernel", {"userName": "ana", "kernelSlug": "lacking-kernel"})["metadata"]
    assert metadata["kernelDataSources"] == []


def test_private_kernels_and_data_sets_are_their_owners_only(server: Running) -> None:
    server.push("private-kernel", user="bob")
    server.push("public-kernel", user="bob", isPrivate=False)
    create_dataset(server, "private-data", {"a.txt": b"a"}, user="bob")
    create_dataset(server, "public-data", {"a.txt": b"a"}, user="bob", private=False)
    for slug in ("private-kernel", "public-kernel"):
        server.finished(slug, user="bob")
    ask = {"userName": "bob", "kernelSlug": "private-kernel"}
    for method in ("GetKernel", "GetKernelSessionStatus", "ListKernelSessionOutput", "ListKernelFiles"):
        assert server.post(f"{KERNELS}/{method}", ask).status_code == 403
        assert server.post(f"{KERNELS}/{method}", {**ask, "kernelSlug": "public-kernel"}).status_code == 200
    answer = server.push(
        "reading-kernel",
        kernelDataSources=["bob/private-kernel", "bob/public-kernel"],
        datasetDataSources=["bob/private-data", "bob/public-data"],
    )
    assert answer["invalidKernelSources"] == ["bob/private-kernel"]
    assert answer["invalidDatasetSources"] == ["bob/private-data"]
    listed = server.rpc(f"{KERNELS}/ListKernels", {"user": "bob"})["kernels"]
    assert [kernel["slug"] for kernel in listed] == ["public-kernel"]


def test_versions_of_one_kernel_run_side_by_side(server: Running) -> None:
    server.push("parallel-kernel", SLEEP, sessionTimeoutSeconds=20)
    server.reaches("parallel-kernel", "RUNNING", version=1)
    assert server.push("parallel-kernel")["versionNumber"] == 2
    assert server.finished("parallel-kernel", version=2)["status"] == "COMPLETE"
    assert server.status("parallel-kernel", version=1)["status"] == "RUNNING"


def test_a_push_may_supersede_or_conflict_where_the_switch_says_so(start: Start) -> None:
    server = start("like-kaggle", on_running="supersede")
    server.push("switched-kernel", SLEEP)
    server.reaches("switched-kernel", "RUNNING")
    server.push("switched-kernel")
    assert server.finished("switched-kernel", version=1)["status"] == "CANCEL_ACKNOWLEDGED"
    assert server.finished("switched-kernel", version=2)["status"] == "COMPLETE"

    server = start("like-kaggle", on_running="conflict")
    server.push("switched-kernel", SLEEP, sessionTimeoutSeconds=1000)
    assert server.save("switched-kernel").status_code == 409


def test_caps_refuse_the_third_gpu_and_the_sixth_cpu_session(start: Start) -> None:
    server = start("like-kaggle", queue_seconds=3600)
    for number in range(2):
        server.push(f"gpu-kernel-{number}", **GPU)
    for number in range(5):
        server.push(f"cpu-kernel-{number}")
    gpu, cpu = server.save("gpu-kernel-3", **GPU), server.save("cpu-kernel-6")
    assert (gpu.status_code, cpu.status_code) == (200, 200)
    assert gpu.json() == {"error": "Maximum batch GPU session count of 2 reached."}
    assert cpu.json() == {"error": "Maximum batch CPU session count of 5 reached."}
    assert server.post(f"{KERNELS}/GetKernel", {"userName": "ana", "kernelSlug": "gpu-kernel-3"}).status_code == 403
    server.push("gpu-of-bob", user="bob", **GPU)


def test_a_cancelled_session_may_count_for_a_while(start: Start) -> None:
    for ghost, refused in ((3600, True), (0, False)):
        server = start("like-kaggle", gpu_sessions=1, ghost_seconds=ghost)
        server.push("ghost-kernel", SLEEP, sessionTimeoutSeconds=1, **GPU)
        server.finished("ghost-kernel")
        assert bool(server.save("next-kernel", **GPU).json()["error"]) is refused


def test_the_weekly_quota_is_counted_shown_and_enforced(start: Start) -> None:
    server = start("like-kaggle", gpu_hours=1)
    server.push("gpu-kernel", **GPU)
    server.finished("gpu-kernel")
    quota = server.rpc(f"{KERNELS}/GetAcceleratorQuotaStatistics")["gpuQuota"]
    assert quota["totalTimeAllowed"] == "3600.000s" and float(quota["timeUsed"][:-1]) > 0 and quota["hasEverRun"]
    assert "0.00h" in server.kaggle("quota") and "1.00h" in server.kaggle("quota")
    with sqlite3.connect(server.root / "state.db") as db:  # an hour of earlier use
        db.execute("UPDATE sessions SET started = ended - 3600 WHERE device = 'gpu'")
        db.execute("UPDATE sessions SET started = ?, ended = ?", (time.time() - 3600, time.time()))
    refused = server.save("gpu-kernel", **GPU).json()["error"]
    # The week may have begun within that hour: then it does not count in full, and the push is accepted.
    used = float(server.rpc(f"{KERNELS}/GetAcceleratorQuotaStatistics")["gpuQuota"]["timeUsed"][:-1])
    assert refused == ("Maximum weekly GPU quota of 1.00 hours reached." if used >= 3600 else "")
    assert server.push("cpu-kernel")["versionNumber"] == 1


@pytest.mark.slow
def test_a_session_timeout_keeps_what_was_written(server: Running) -> None:
    source = notebook("open('part.txt', 'w').write('p')", "import time\ntime.sleep(600)")
    for limit in LIMITS:
        server.push("timed-kernel", source, sessionTimeoutSeconds=limit)
        assert server.finished("timed-kernel")["status"] == "CANCEL_ACKNOWLEDGED"
        if files := [file["fileName"] for file in server.outputs("timed-kernel")["files"]]:
            break
    assert files == ["part.txt"]


@pytest.mark.slow
def test_the_platforms_run_limit_may_cost_the_outputs(start: Start) -> None:
    source = notebook("print('log line')\nopen('part.txt', 'w').write('p')", "import time\ntime.sleep(600)")
    for kept in (True, False):
        for limit in LIMITS:
            server = start("like-kaggle", run_limit_seconds=limit, outputs_after_run_limit=kept)
            server.push("limited-kernel", source, sessionTimeoutSeconds=9000)
            assert server.finished("limited-kernel")["status"] == "CANCEL_ACKNOWLEDGED"
            found = server.outputs("limited-kernel")
            if "log line" in found["log"]:
                break
        assert "log line" in found["log"]
        assert [file["fileName"] for file in found["files"]] == (["part.txt"] if kept else [])


def test_a_run_that_ends_before_the_limit_keeps_its_outputs(start: Start) -> None:
    server = start("like-kaggle", run_limit_seconds=600)
    server.push("short-kernel", notebook("open('whole.txt', 'w').write('w')"))
    server.finished("short-kernel")
    assert [file["fileName"] for file in server.outputs("short-kernel")["files"]] == ["whole.txt"]


def test_retired_accelerators_are_replaced_silently(server: Running) -> None:
    server.push("retired-kernel", enableGpu=True, machineShape="NvidiaTeslaP100", kernelExecutionType="QUICK_SAVE")
    got = server.rpc(f"{KERNELS}/GetKernel", {"userName": "ana", "kernelSlug": "retired-kernel"})["metadata"]
    assert got["machineShape"] == "NvidiaTeslaT4" and got["enableGpu"]


def test_a_new_kernel_may_be_invisible_for_a_while(start: Start) -> None:
    server = start("like-kaggle", visible_seconds=3600)
    server.push("hidden-kernel")
    ask = {"userName": "ana", "kernelSlug": "hidden-kernel"}
    assert server.post(f"{KERNELS}/GetKernelSessionStatus", ask).status_code == 403
    assert server.rpc(f"{KERNELS}/ListKernels", {"group": "PROFILE"})["kernels"] == []
    server = start("like-kaggle", unknown_kernel=404)
    assert server.post(f"{KERNELS}/GetKernelSessionStatus", ask).status_code == 404


def test_a_machine_without_gpu_says_so_and_one_gpu_is_shared_in_turn(start: Start, tmp_path: Path) -> None:
    server = start("machine", gpus=0)
    assert "no GPU" in server.save("gpu-kernel", **GPU).json()["error"]
    server = start("machine", gpus=1)
    seen = notebook("import os\nprint(os.environ['CUDA_VISIBLE_DEVICES'])")
    gate = tmp_path / "gate"
    waits = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)"
    server.push("first-in-turn", notebook(waits), **GPU)
    server.push("second-in-turn", seen, **GPU)
    server.reaches("first-in-turn", "RUNNING")
    assert server.status("second-in-turn")["status"] == "QUEUED"
    gate.touch()
    assert server.finished("second-in-turn")["status"] == "COMPLETE"
    assert server.printed("second-in-turn") == "0\n"
    assert server.rpc(f"{KERNELS}/GetAcceleratorQuotaStatistics") == {}
