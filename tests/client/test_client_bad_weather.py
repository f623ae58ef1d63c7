"""Reads against a server that hangs, breaks off, redirects, or says things nobody expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from client_weather import FAST, KEY, Weather, cut_after, dripping, failing, html, reset, send, silent

from kchain.client.refusals import Absent
from kchain.client.transport import Patience
from kchain.errors import CredentialsError, InputError, KchainError, RateLimited, Unreachable

STATUS = "GetKernelSessionStatus"
RUNNING = {"status": "RUNNING"}


def test_a_silent_server_ends_in_a_sentence_instead_of_hanging(weather: Weather, tmp_path: Path) -> None:
    weather.on(STATUS, silent(weather))
    patience = Patience(connect=1, silence=0.2, answer=1, attempts=2, first=0.01, longest=0.1)
    with pytest.raises(Unreachable, match="stayed silent") as caught:
        weather.client(tmp_path, patience).status("ada/first-phase")
    assert "repeat" in caught.value.hint
    assert len(weather.calls(STATUS)) == 2


def test_an_answer_that_only_drips_is_given_up_too(weather: Weather, tmp_path: Path) -> None:
    weather.on(STATUS, dripping(weather))
    patience = Patience(silence=5, answer=0.4, attempts=1)
    with pytest.raises(Unreachable, match="silent"):
        weather.client(tmp_path, patience).status("ada/first-phase")


def test_a_reset_connection_is_tried_again(weather: Weather, tmp_path: Path) -> None:
    weather.on(STATUS, reset, reset, RUNNING)
    assert weather.client(tmp_path).status("ada/first-phase").word == "RUNNING"
    assert len(weather.calls(STATUS)) == 3


def test_a_body_that_breaks_off_is_tried_again(weather: Weather, tmp_path: Path) -> None:
    whole = json.dumps({"status": "COMPLETE", "failureMessage": "x" * 500}).encode()
    weather.on(STATUS, cut_after(20, whole), {"status": "COMPLETE"})
    assert weather.client(tmp_path).status("ada/first-phase").word == "COMPLETE"


@pytest.mark.parametrize(
    "answer",
    [
        html(),
        html(403),
        html(404),
        (200, "", {"Content-Type": "application/json"}),
        (200, '{"status": "RUNN', {"Content-Type": "application/json"}),
        (200, [1, 2], {}),
        (200, {"code": "403", "message": "a word for a code"}, {}),
        (302, "", {"Location": "http://login.example/"}),
        (500, {"error": {"code": 500, "message": "internal", "status": "INTERNAL"}}, {}),
        (503, "<html>busy</html>", {}),
        failing(400, "bad request"),
        {"status": None},
        {"status": 3},
        {"status": ""},
    ],
)
def test_nonsense_is_never_taken_for_an_answer(weather: Weather, tmp_path: Path, answer: object) -> None:
    weather.on(STATUS, answer)
    with pytest.raises(Unreachable) as caught:
        weather.client(tmp_path).status("ada/first-phase")
    assert not isinstance(caught.value, Absent)
    assert caught.value.hint
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("answer", [html(403), html(404), html(), (200, {"metadata": None, "blob": None}, {})])
def test_a_page_of_a_proxy_is_no_proof_that_a_kernel_is_absent(
    weather: Weather, tmp_path: Path, answer: object
) -> None:
    weather.on("GetKernel", answer)
    with pytest.raises(Unreachable):
        weather.client(tmp_path).kernel("ada/first-phase")


@pytest.mark.parametrize(
    "answer",
    [
        failing(403, "Permission 'kernels.get' was denied"),
        failing(404, "gone"),
        (403, {"code": 403, "message": "x"}, {}),
    ],
)
def test_a_kernel_is_absent_only_where_the_api_itself_says_so(weather: Weather, tmp_path: Path, answer: object) -> None:
    weather.on("GetKernel", answer)
    assert weather.client(tmp_path).kernel("ada/first-phase") is None
    assert len(weather.calls("GetKernel")) == 1


def test_an_error_code_inside_a_good_status_counts(weather: Weather, tmp_path: Path) -> None:
    weather.on(STATUS, (200, {"code": 401, "message": "Unauthenticated"}, {}))
    with pytest.raises(CredentialsError, match="401"):
        weather.client(tmp_path).status("ada/first-phase")


def test_wrong_credentials_are_told_once_and_not_tried_again(weather: Weather, tmp_path: Path) -> None:
    weather.on(STATUS, failing(401, "Unauthenticated"))
    with pytest.raises(CredentialsError, match="does not accept the credentials") as caught:
        weather.client(tmp_path).status("ada/first-phase")
    assert "doctor" in caught.value.hint
    assert caught.value.exit_code == 2
    assert len(weather.calls(STATUS)) == 1


def test_asked_too_often_waits_as_long_as_the_target_says(weather: Weather, tmp_path: Path) -> None:
    weather.on(STATUS, (*failing(429, "Too many requests")[:2], {"Retry-After": "0"}), RUNNING)
    assert weather.client(tmp_path).status("ada/first-phase").word == "RUNNING"
    weather.on(STATUS, (*failing(429, "Too many requests")[:2], {"Retry-After": "3600"}))
    before = len(weather.calls(STATUS))
    with pytest.raises(RateLimited) as caught:
        weather.client(tmp_path).status("ada/first-phase")
    assert len(weather.calls(STATUS)) == before + 1
    assert "3600 s" in caught.value.hint
    assert caught.value.exit_code == 3


def test_a_retry_after_date_in_the_past_means_now(weather: Weather, tmp_path: Path) -> None:
    late = {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}
    weather.on(STATUS, (*failing(429, "Too many requests")[:2], late), RUNNING)
    assert weather.client(tmp_path).status("ada/first-phase").word == "RUNNING"


def test_a_server_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    gone = Weather()
    client = gone.client(tmp_path)
    gone.close()
    with pytest.raises(Unreachable, match="no connection") as caught:
        client.quota()
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "word",
    [
        "QUEUED",
        "CANCEL_ACKNOWLEDGED",
        "NEW_SCRIPT",
        "PREEMPTED_BY_SOMETHING_NEW",
        "complete",
        "KernelWorkerStatus.ERROR",
    ],
)
def test_every_status_word_comes_back_also_one_from_the_future(weather: Weather, tmp_path: Path, word: str) -> None:
    weather.on(STATUS, {"status": word, "failureMessage": "said why", "somethingNew": [1]})
    status = weather.client(tmp_path).status("ada/first-phase")
    assert status.word == word.upper().rpartition(".")[2]
    assert status.failure == "said why"


def test_an_empty_status_reads_as_waiting_never_as_done(weather: Weather, tmp_path: Path) -> None:
    weather.on(STATUS, {})
    assert weather.client(tmp_path).status("ada/first-phase").word == "QUEUED"


def test_a_kernel_that_never_ran_is_told_from_one_that_is_not_there(weather: Weather, tmp_path: Path) -> None:
    weather.on(STATUS, failing(404, "No runs found for this kernel."), failing(404, "Not found"))
    client = weather.client(tmp_path)
    assert client.status("ada/first-phase").word == "NEVER_RUN"
    with pytest.raises(Absent):
        client.status("ada/first-phase")


def test_a_version_is_asked_for_by_its_label(weather: Weather, tmp_path: Path) -> None:
    weather.on(STATUS, RUNNING)
    weather.client(tmp_path).status("ada/first-phase", 7)
    assert weather.calls(STATUS)[0].body == {"userName": "ada", "kernelSlug": "first-phase", "versionLabel": "v7"}


def test_pages_that_repeat_themselves_are_an_error_not_a_loop(weather: Weather, tmp_path: Path) -> None:
    page = {"files": [{"fileName": "a", "url": "http://x/a"}], "nextPageToken": "again"}
    weather.on("ListKernelSessionOutput", page)
    with pytest.raises(Unreachable, match="without end"):
        weather.client(tmp_path).outputs("ada/first-phase")
    assert len(weather.calls("ListKernelSessionOutput")) == 2


def test_all_pages_of_the_outputs_are_read_and_the_log_of_the_first(weather: Weather, tmp_path: Path) -> None:
    first = {"files": [{"fileName": "a", "url": "http://x/a"}], "log": "[]", "nextPageToken": "two"}
    second = {"files": [{"fileName": "b/c", "url": "http://x/c"}], "nextPageToken": ""}
    weather.on("ListKernelSessionOutput", first, second)
    outputs = weather.client(tmp_path).outputs("ada/first-phase", 2)
    assert [file.name for file in outputs.files] == ["a", "b/c"]
    assert outputs.log == "[]"
    assert [seen.body.get("pageToken") for seen in weather.calls("ListKernelSessionOutput")] == [None, "two"] or [
        seen.body.get("pageToken") for seen in weather.calls("ListKernelSessionOutput")
    ] == ["", "two"]


def test_an_output_without_an_address_is_an_error(weather: Weather, tmp_path: Path) -> None:
    weather.on("ListKernelSessionOutput", {"files": [{"fileName": "a"}]})
    with pytest.raises(Unreachable, match="files.0.url: field required"):
        weather.client(tmp_path).outputs("ada/first-phase")


def test_no_files_and_null_lists_are_an_empty_output(weather: Weather, tmp_path: Path) -> None:
    weather.on("ListKernelSessionOutput", {"files": None, "log": None, "nextPageToken": None})
    outputs = weather.client(tmp_path).outputs("ada/first-phase")
    assert outputs.files == ()
    assert outputs.log == ""


def test_sizes_are_optional(weather: Weather, tmp_path: Path) -> None:
    weather.on("ListKernelFiles", failing(403, "denied"), {"files": [{"name": "a", "size": 3}, {"name": "b"}, "odd"]})
    client = weather.client(tmp_path)
    assert client.sizes("ada/first-phase") == {}
    assert client.sizes("ada/first-phase") == {"a": 3}


@pytest.mark.parametrize("shape", ["{}s", {"seconds": 0}])
def test_the_quota_reads_both_ways_of_writing_a_duration(weather: Weather, tmp_path: Path, shape: object) -> None:
    def duration(seconds: float) -> object:
        return {"seconds": seconds} if isinstance(shape, dict) else f"{seconds}s"

    gpu = {"timeUsed": duration(3600.5), "timeReserved": duration(400), "totalTimeAllowed": duration(108000)}
    weather.on("GetAcceleratorQuotaStatistics", {"gpuQuota": gpu, "quotaRefreshTime": "2026-11-28T00:00:00Z"})
    quota = weather.client(tmp_path).quota()
    assert quota is not None
    assert quota.gpu_free == 108000 - 3600.5 - 400
    assert quota.refresh == "2026-11-28T00:00:00Z"


def test_a_quota_that_is_not_told_is_none(weather: Weather, tmp_path: Path) -> None:
    weather.on("GetAcceleratorQuotaStatistics", {})
    assert weather.client(tmp_path).quota() is None


@pytest.mark.parametrize("ref", ["first-phase", "ada/first/phase", "ada/../x", "", "a b/c"])
def test_a_wrong_address_is_refused_before_anything_is_asked(weather: Weather, tmp_path: Path, ref: str) -> None:
    with pytest.raises((InputError, KchainError)):
        weather.client(tmp_path).status(ref)
    assert weather.seen == []


def test_the_key_is_in_no_error_even_if_the_server_repeats_it(weather: Weather, tmp_path: Path) -> None:
    def parrot(handler: object) -> None:
        send(handler, *failing(500, f"cannot serve {handler.headers['Authorization']} key={KEY} at /x?sig=abcdef"))

    weather.on(STATUS, parrot)
    with pytest.raises(Unreachable) as caught:
        weather.client(tmp_path).status("ada/first-phase")
    text = str(caught.value)
    sent = weather.seen[0].headers["Authorization"].partition(" ")[2]
    assert KEY not in text
    assert sent not in text
    assert "abcdef" not in text
    assert KEY not in repr(weather.client(tmp_path, FAST).transport.credentials)


def test_every_request_goes_out_with_the_key_of_this_target_alone(
    weather: Weather, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ".kaggle").mkdir()
    (home / ".kaggle" / "access_token").write_text("KGAT_of_kaggle")
    (home / ".kaggle" / "kaggle.json").write_text('{"username": "ada", "key": "key-of-kaggle"}')
    (home / ".netrc").write_text("machine 127.0.0.1 login ada password from-netrc\n")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_of_kaggle_too")
    monkeypatch.setenv("KAGGLE_KEY", "key-of-kaggle")
    weather.on(STATUS, RUNNING)
    weather.client(tmp_path).status("ada/first-phase")
    import base64

    due = "Basic " + base64.b64encode(f"ada:{KEY}".encode()).decode()
    assert [seen.headers["Authorization"] for seen in weather.seen] == [due]


def test_no_proxy_stands_between_kchain_and_this_machine(
    weather: Weather, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    weather.on(STATUS, RUNNING)
    assert weather.client(tmp_path).status("ada/first-phase").word == "RUNNING"
