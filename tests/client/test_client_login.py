"""Whose credentials are used: Kaggle's documented order without its traps, and never one target's for another."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from client_weather import FAST, Weather, failing, html

from kchain.client.client import Client, connect
from kchain.client.connect import find_kaggle_login
from kchain.client.login import Credentials, Login, Surroundings, Token, read_key_file
from kchain.client.target import Target, is_loopback
from kchain.client.transport import Transport
from kchain.errors import CredentialsError, InputError, Unreachable

GOOD = {"active": True, "username": "ada"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def save(path: Path, content: str | Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def login(weather: Weather, home: Path, linux: bool = True, **environ: str) -> Login:
    return find_kaggle_login(FAST, Surroundings(environ, home, linux), f"{weather.url}/api")


def test_a_token_comes_before_a_key_and_its_owner_is_asked_for(weather: Weather, home: Path) -> None:
    weather.on("IntrospectToken", GOOD)
    save(home / ".kaggle" / "kaggle.json", {"username": "eve", "key": "k" * 8})
    found = login(weather, home, KAGGLE_API_TOKEN="KGAT_one").credentials
    assert (found.username, found.header(), found.where) == ("ada", "Bearer KGAT_one", "KAGGLE_API_TOKEN")
    assert weather.seen[0].body == {"token": "KGAT_one"}
    assert "Authorization" not in weather.seen[0].headers


def test_a_token_variable_may_name_a_file(weather: Weather, home: Path) -> None:
    weather.on("IntrospectToken", GOOD)
    save(home / "token.txt", " KGAT_filed\n")
    assert login(weather, home, KAGGLE_API_TOKEN=str(home / "token.txt")).credentials.header() == "Bearer KGAT_filed"


@pytest.mark.parametrize("name", ["access_token", "access_token.txt"])
def test_a_token_file_in_the_home_folder_is_found(weather: Weather, home: Path, name: str) -> None:
    weather.on("IntrospectToken", GOOD)
    save(home / ".kaggle" / name, "KGAT_home\n")
    found = login(weather, home).credentials
    assert (found.header(), found.where) == ("Bearer KGAT_home", f"~/.kaggle/{name}")


def test_a_kaggle_notebooks_own_token_comes_first(weather: Weather, home: Path) -> None:
    weather.on("IntrospectToken", GOOD)
    save(home / "v1", "KGAT_of_the_notebook")
    environ = {"KAGGLE_API_V1_TOKEN": str(home / "v1"), "KAGGLE_API_TOKEN": "KGAT_other"}
    inside = login(weather, home, KAGGLE_KERNEL_RUN_TYPE="Batch", **environ).credentials
    assert (inside.header(), inside.where) == ("Bearer KGAT_of_the_notebook", "KAGGLE_API_V1_TOKEN")
    assert login(weather, home, **environ).credentials.header() == "Bearer KGAT_other"


def test_the_next_token_is_tried_when_the_first_is_stale(weather: Weather, home: Path) -> None:
    weather.on("IntrospectToken", {"active": False}, GOOD)
    save(home / ".kaggle" / "access_token", "KGAT_second")
    found = login(weather, home, KAGGLE_API_TOKEN="KGAT_first")
    assert found.credentials.header() == "Bearer KGAT_second"
    assert len(found.notes) == 1


def test_a_token_file_that_cannot_be_read_is_named(weather: Weather, home: Path) -> None:
    (home / ".kaggle" / "access_token").mkdir(parents=True)
    with pytest.raises(CredentialsError, match="access_token cannot be read"):
        login(weather, home)


@pytest.mark.parametrize(
    "table", [{}, {"username": "ada"}, {"key": "k"}, {"username": "", "key": "k"}, {"username": 3, "key": ["x"]}, []]
)
def test_a_key_file_without_both_halves_is_no_login(weather: Weather, home: Path, table: Any) -> None:
    save(home / ".kaggle" / "kaggle.json", json.dumps(table))
    with pytest.raises(CredentialsError):
        login(weather, home)


@pytest.mark.parametrize("answer", [{}, {"token": ""}, {"token": "x", "expiresIn": "soon"}, html()])
def test_a_renewal_that_gives_no_token_is_told(weather: Weather, home: Path, answer: Any) -> None:
    oauth(home, -60)
    weather.on("GenerateAccessToken", answer)
    with pytest.raises(Unreachable):
        login(weather, home).credentials.header()


@pytest.mark.parametrize("expires", ["", None, "not a date", 12])
def test_an_oauth_token_without_a_readable_end_is_renewed(weather: Weather, home: Path, expires: Any) -> None:
    oauth(home, 120, access_token_expiration=expires)
    weather.on("GenerateAccessToken", {"token": "new-access-token", "expiresIn": 3600})
    assert login(weather, home).credentials.header() == "Bearer new-access-token"


def test_an_end_without_a_zone_is_utc(weather: Weather, home: Path) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=60)).replace(tzinfo=None).isoformat()
    oauth(home, 0, access_token_expiration=soon)
    assert login(weather, home).credentials.header() == "Bearer old-access-token"


@pytest.mark.parametrize("answer", [{"active": False}, {}, failing(403, "no"), failing(401, "no"), failing(400, "no")])
def test_a_stale_token_is_named_and_the_key_is_really_what_is_sent(weather: Weather, home: Path, answer: Any) -> None:
    """Kaggle's client goes on to the key here, but sends the stale token after all."""
    weather.on("IntrospectToken", answer)
    weather.on("GetAcceleratorQuotaStatistics", {})
    save(home / ".kaggle" / "kaggle.json", {"username": "ada", "key": "the-good-key"})
    found = login(weather, home, KAGGLE_API_TOKEN="KGAT_stale")
    assert "KAGGLE_API_TOKEN" in found.notes[0]
    transport = Transport(f"{weather.url}/api", "kaggle.com", found.credentials, FAST)
    Client(Target("kaggle", "ada", home), transport).quota()
    assert weather.seen[-1].headers["Authorization"].startswith("Basic ")


def test_no_clear_answer_about_a_token_is_not_a_stale_token(weather: Weather, home: Path) -> None:
    weather.on("IntrospectToken", html())
    save(home / ".kaggle" / "kaggle.json", {"username": "ada", "key": "the-good-key"})
    with pytest.raises(Unreachable):
        login(weather, home, KAGGLE_API_TOKEN="KGAT_x")


def test_a_key_is_found_where_the_client_looks_for_it(weather: Weather, home: Path, tmp_path: Path) -> None:
    key = {"username": "ada", "key": "one-key-of-ada"}
    save(home / ".config" / "kaggle" / "kaggle.json", key)
    assert login(weather, home).credentials.username == "ada"
    save(tmp_path / "xdg" / "kaggle" / "kaggle.json", key | {"username": "xdg"})
    assert login(weather, home, XDG_CONFIG_HOME=str(tmp_path / "xdg")).credentials.username == "xdg"
    save(tmp_path / "named" / "kaggle.json", key | {"username": "named"})
    assert login(weather, home, KAGGLE_CONFIG_DIR=str(tmp_path / "named")).credentials.username == "named"
    save(home / ".kaggle" / "kaggle.json", key | {"username": "old"})
    assert login(weather, home, XDG_CONFIG_HOME=str(tmp_path / "xdg")).credentials.username == "old"
    assert weather.seen == []


def test_variables_win_over_the_key_file_one_by_one(weather: Weather, home: Path) -> None:
    save(home / ".kaggle" / "kaggle.json", {"username": "ada", "key": "filed-key"})
    found = login(weather, home, KAGGLE_KEY="key-of-the-environment").credentials
    assert found.username == "ada"
    assert "key-of-the-environment" in found.secrets


def test_a_damaged_key_file_is_named(weather: Weather, home: Path) -> None:
    save(home / ".kaggle" / "kaggle.json", "{ not json")
    with pytest.raises(CredentialsError, match="kaggle.json is not a JSON object") as caught:
        login(weather, home)
    assert "kaggle auth login" in caught.value.hint


def test_no_credentials_is_a_sentence_with_a_cure(weather: Weather, home: Path) -> None:
    with pytest.raises(CredentialsError, match="no Kaggle credentials") as caught:
        login(weather, home)
    assert caught.value.exit_code == 2
    assert "access_token" in caught.value.hint
    assert list(home.rglob("*")) == []


def oauth(home: Path, minutes: float, **more: Any) -> Path:
    path = home / ".kaggle" / "credentials.json"
    expires = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
    fields = {"refresh_token": "refresh-me-please", "access_token": "old-access-token", "username": "ada"}
    save(path, fields | {"access_token_expiration": expires} | more)
    return path


def test_an_oauth_token_that_is_good_is_used_as_it_is(weather: Weather, home: Path) -> None:
    oauth(home, 120)
    assert login(weather, home).credentials.header() == "Bearer old-access-token"
    assert weather.seen == []


@pytest.mark.parametrize("minutes", [-20, 5])
def test_an_oauth_token_is_renewed_before_it_ends_and_no_file_changes(
    weather: Weather, home: Path, minutes: float
) -> None:
    """Kaggle's client takes a token for good until 30 minutes after its end."""
    path = oauth(home, minutes)
    before = path.read_bytes()
    weather.on("GenerateAccessToken", {"token": "new-access-token", "expiresIn": 3600, "userName": "ada"})
    credentials = login(weather, home).credentials
    assert credentials.header() == credentials.header() == "Bearer new-access-token"
    assert len(weather.seen) == 1
    assert weather.seen[0].body["refreshToken"] == "refresh-me-please"
    assert "new-access-token" in credentials.secrets
    assert path.read_bytes() == before


def test_a_login_that_kaggle_ended_is_told_and_its_file_stays(weather: Weather, home: Path) -> None:
    """Kaggle's client deletes the file here."""
    path = oauth(home, -60)
    weather.on("GenerateAccessToken", failing(401, "Invalid refresh token"))
    with pytest.raises(CredentialsError, match="has ended"):
        login(weather, home).credentials.header()
    assert path.exists()


def test_a_token_that_ends_in_the_middle_of_a_watch_is_renewed_once(weather: Weather, home: Path) -> None:
    oauth(home, 120)
    weather.on("GenerateAccessToken", {"token": "new-access-token", "expiresIn": 3600})
    weather.on("GetKernelSessionStatus", failing(401, "expired"), {"status": "RUNNING"})
    transport = Transport(f"{weather.url}/api", "kaggle.com", login(weather, home).credentials, FAST)
    assert Client(Target("kaggle", "ada", home), transport).status("ada/first-phase").word == "RUNNING"
    asked = [seen.headers["Authorization"] for seen in weather.calls("GetKernelSessionStatus")]
    assert asked == ["Bearer old-access-token", "Bearer new-access-token"]


def test_credentials_show_no_secret_when_printed() -> None:
    key = Credentials.key("ada", "one-long-secret", "a test")
    renewing = Credentials.renewing("ada", Token("two-long-secret", time.time()), lambda: Token("", 0), "a test")
    assert "one-long-secret" not in repr(key)
    assert "two-long-secret" not in repr(renewing)


def test_another_accounts_credentials_are_refused_before_anything_is_pushed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "eve")
    monkeypatch.setenv("KAGGLE_KEY", "key-of-eve")
    with pytest.raises(CredentialsError, match="eve") as caught:
        connect(Target("kaggle", "ada", tmp_path))
    assert "owner" in caught.value.hint


def test_a_url_target_takes_its_key_from_its_key_file_alone(
    weather: Weather, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAGGLE_KEY", "key-of-kaggle")
    target = Target(weather.url, "ada", tmp_path)
    with pytest.raises(CredentialsError, match="asks for its key") as caught:
        connect(target)
    assert "KCHAIN_KEY_FILE" in caught.value.hint
    monkeypatch.setenv("KCHAIN_KEY_FILE", str(tmp_path / "gone"))
    with pytest.raises(CredentialsError, match="gone"):
        connect(target)
    (tmp_path / "key").write_text("server-key\n")
    monkeypatch.setenv("KCHAIN_KEY_FILE", str(tmp_path / "key"))
    weather.on("GetAcceleratorQuotaStatistics", {})
    connect(target).quota()
    import base64

    due = "Basic " + base64.b64encode(b"ada:server-key").decode()
    assert weather.seen[0].headers["Authorization"] == due


def test_a_url_target_gets_its_key_however_its_host_is_written(
    weather: Weather, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("server-key\n")
    monkeypatch.setenv("KCHAIN_KEY_FILE", str(tmp_path / "key"))
    weather.on("GetAcceleratorQuotaStatistics", {})
    connect(Target(weather.url.replace("http://127.0.0.1", "HTTP://LocalHost") + "/", "ada", tmp_path)).quota()
    assert weather.seen[0].headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe", "schlüssel".encode()])
def test_a_key_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(CredentialsError, match="KCHAIN_KEY_FILE"):
        read_key_file(str(tmp_path / "key"), "ada")


@pytest.mark.parametrize(
    "name",
    ["kagle", "", "ftp://host", "http://", "http://host/path", "http://u:p@host", "http://host?x=1", "http://[::1"],
)
def test_a_target_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="target"):
        Target(name, "ada", tmp_path)


def test_targets_have_folders_and_patience_of_their_own(tmp_path: Path) -> None:
    kaggle, local = Target("kaggle", "ada", tmp_path), Target("local", "ada", tmp_path)
    url = Target("http://127.0.0.1:8080", "ada", tmp_path)
    assert (kaggle.folder, local.folder, url.folder) == ("kaggle", "local", "http-127-0-0-1-8080")
    assert (kaggle.poll_seconds, local.poll_seconds, url.poll_seconds) == (30, 0.5, 0.5)
    assert (kaggle.settle_seconds, url.settle_seconds) == (60, 2)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1/x", True),
        ("http://localhost:8080", True),
        ("http://[::1]:2", True),
        ("https://api.kaggle.com/v1", False),
        ("http://10.0.0.7:80", False),
        ("http://127.0.0.1.evil.example", False),
    ],
)
def test_what_counts_as_this_machine(url: str, here: bool) -> None:
    assert is_loopback(url) is here
