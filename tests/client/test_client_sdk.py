"""A release of Kaggle's packages that moved what kchain builds on is named, with what to install; never a traceback."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import kagglesdk.kaggle_http_client
import kagglesdk.kernels.types.kernels_api_service as messages
import pytest
from client_weather import FAST

from kchain.client import sdk
from kchain.client.client import connect
from kchain.client.login import KEY_FILE_VARIABLE, Surroundings
from kchain.client.target import Target
from kchain.errors import InputError
from kchain.orchestrator.doctor import examine

HTTP = kagglesdk.kaggle_http_client.KaggleHttpClient


def test_the_installed_packages_are_known_and_doctor_says_which(tmp_path: Path) -> None:
    checks = examine(None, "http://127.0.0.1:9", tmp_path, Surroundings({}, tmp_path, True))
    (client,) = [check for check in checks if check.name == "client"]
    assert client.state == "ok"
    for package in sdk.EXPECTED:
        assert f"{package} {importlib.metadata.version(package)}" in client.found


def test_what_is_known_is_what_pip_installs() -> None:
    asked = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(sdk.EXPECTED.values()) <= set(asked["project"]["dependencies"])


@pytest.mark.parametrize("private", ["_init_session", "call"])
def test_a_kagglesdk_without_a_private_name_is_named(
    private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text("some-key", encoding="utf-8")
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(key))
    monkeypatch.delattr(HTTP, private)
    with pytest.raises(InputError, match=f"not one kchain knows: it has no {private}.*expected kaggle") as caught:
        connect(Target("http://127.0.0.1:9", "ada", tmp_path), FAST)
    assert caught.value.hint.startswith('pip install "kagglesdk>=')


def test_a_kagglesdk_without_an_attribute_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = HTTP.__init__

    def moved(self: object, *given: object, **named: object) -> None:
        made(self, *given, **named)
        del self._signed_in  # type: ignore[attr-defined]

    monkeypatch.setattr(HTTP, "__init__", moved)
    with pytest.raises(InputError, match="it has no _signed_in in KaggleHttpClient"):
        sdk.check()


def test_a_kagglesdk_without_a_message_or_a_field_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="it has no frequency in ApiGetKernelRequest"):
        sdk.build_request("kernels", "GetKernel", {"frequency": 1})
    monkeypatch.delattr(messages, "ApiGetKernelSessionStatusRequest")
    with pytest.raises(InputError, match="it has no ApiGetKernelSessionStatusRequest"):
        sdk.check()


def test_doctor_names_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(HTTP, "_init_session")
    checks = examine(None, "http://127.0.0.1:9", tmp_path, Surroundings({}, tmp_path, True))
    (client,) = [check for check in checks if check.name == "client"]
    assert (client.state, client.code) == ("fail", 2)
    assert "is not one kchain knows" in client.found and "pip install" in client.cure
