"""kagglesdk's client over a connection of kchain's: time-outs everywhere, the key in one place, answers judged once.

`Door` is the adapter through which every request of a target leaves. It alone knows the key and puts it on requests to
the target's own address and on nothing else, so that no variable, file or redirect of the surroundings can change who
is asked with which key. It also reads whole answers against a deadline and turns every error answer into one exception.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urljoin

import requests
from pydantic import TypeAdapter, ValidationError
from requests.adapters import HTTPAdapter
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_after_delay
from tenacity.wait import wait_exponential, wait_random

from kchain.client import sdk
from kchain.client.answers import Answer, Made, fault_of
from kchain.client.login import Credentials
from kchain.client.refusals import Declined, Throttled
from kchain.client.target import is_loopback
from kchain.client.translate import Call, foreign_errors, read_error
from kchain.errors import Ambiguous, CredentialsError, KchainError, Unreachable

KAGGLE_API = "https://api.kaggle.com"
# No answer of the API is larger: the log of a session is the largest, and a chatty one has some megabytes.
_LARGEST_ANSWER = 256 * 2**20

Value = TypeVar("Value")
Shape = TypeVar("Shape", bound=Answer)
_OBJECT = TypeAdapter(dict[str, Any])


@dataclass(frozen=True)
class Patience:
    """Limits of one read, in seconds.

    Attributes:
        connect: until a connection stands.
        silence: between two bytes of an answer.
        answer: for a whole answer, however it drips.
        attempts: tries in all.
        first: pause after the first failed try; doubles, with jitter.
        longest: longest pause, also the longest Retry-After that is waited for here.
        total: no new try starts after this.
    """

    connect: float = 10.0
    silence: float = 60.0
    answer: float = 300.0
    attempts: int = 4
    first: float = 0.5
    longest: float = 20.0
    total: float = 90.0

    @property
    def timeout(self) -> tuple[float, float]:
        """What requests calls a timeout."""
        return self.connect, self.silence

    def insist(self, read: Callable[[], Value]) -> Value:
        """Try a read until it answers, fails for good, or patience ends; then its last error is raised."""
        backoff = wait_exponential(multiplier=self.first, max=self.longest) + wait_random(0, self.first)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            wanted = error.retry_after or 0.0 if isinstance(error, Throttled) else 0.0
            return max(float(backoff(state)), wanted)

        trying = Retrying(
            stop=stop_after_attempt(self.attempts) | stop_after_delay(self.total),
            wait=pause,
            retry=retry_if_exception(self._may_pass),
            sleep=time.sleep,
            reraise=True,
        )
        return trying(read)

    def _may_pass(self, error: BaseException) -> bool:
        if isinstance(error, Throttled):
            return error.retry_after is None or error.retry_after <= self.longest
        return isinstance(error, Unreachable) and not isinstance(error, Ambiguous | Declined)


class Door(HTTPAdapter):
    """Sends with the key and the time-outs of one target; remembers what a caller may ask afterwards.

    Attributes:
        sent: whether any request has left through this door.
        date: the Date header of the last answer.
    """

    def __init__(self, base: str, credentials: Credentials | None, patience: Patience) -> None:
        super().__init__(max_retries=0)
        self.base = base
        self.credentials = credentials
        self.patience = patience
        self.sent = False
        self.date: str | None = None

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Send one request; `timeout` is replaced by the target's.

        Raises:
            Answered: the answer is an error.
            requests.RequestException: no answer, or not to its end.
        """
        request.headers.pop("Authorization", None)
        if self.credentials is not None and str(request.url).startswith(f"{self.base}/"):
            request.headers["Authorization"] = self.credentials.header()
        self.sent = True
        response = super().send(request, True, self.patience.timeout, verify, cert, proxies)
        self.date = response.headers.get("Date", self.date)
        if not stream or response.status_code >= 400:
            body = read_within(response, self.patience.answer, _LARGEST_ANSWER)
            response.raw = io.BytesIO(body)
            error = read_error(response.status_code, response.headers, body)
            if error is not None:
                raise error
        return response


def read_within(response: requests.Response, seconds: float, limit: int) -> bytes:
    """The body of an answer, decoded.

    Raises:
        requests.ReadTimeout: it is not complete after `seconds`, though it may still drip.
        requests.ConnectionError: it is larger than `limit` bytes.
    """
    deadline = time.monotonic() + seconds
    parts: list[bytes] = []
    size = 0
    while part := response.raw.read1(65536, decode_content=True):
        parts.append(part)
        size += len(part)
        if size > limit:
            response.close()
            raise requests.ConnectionError(f"an answer of more than {limit} bytes")
        if time.monotonic() > deadline:
            response.close()
            raise requests.ReadTimeout(f"no whole answer within {seconds:.0f} s")
    return b"".join(parts)


class _Fields:
    """A reply as a JSON object, instead of kagglesdk's types, which crash on words and nulls they do not know."""

    @classmethod
    def prepare_from(cls, response: requests.Response) -> dict[str, Any]:
        try:
            return _OBJECT.validate_json(response.content)
        except ValidationError as error:
            raise ValueError(fault_of(error)) from None


class Transport:
    """Calls of Kaggle's API at one base address, as one user. Raises nothing but kchain's errors."""

    def __init__(self, base: str, who: str, credentials: Credentials | None, patience: Patience) -> None:
        self.base = base
        self.who = who
        self.credentials = credentials
        self.patience = patience
        self.door = self.new_door()
        self._client = self.kaggle_client(self.door)

    def new_door(self) -> Door:
        return Door(self.base, self.credentials, self.patience)

    def kaggle_client(self, door: Door) -> Any:
        """A kagglesdk client whose every request goes through `door`, and which looks for no credentials itself.

        Raises:
            InputError: this kagglesdk is not one kchain knows.
        """
        client = sdk.client_at(self.base)
        session = sdk.session_of(client)
        session.auth = None
        session.trust_env = not is_loopback(self.base)
        session.max_redirects = 0
        session.mount("https://", door)
        session.mount("http://", door)
        return client

    def call_for(self, doing: str, sent: Callable[[], bool] | None = None) -> Call:
        """How errors of an action are worded; `sent` only where the action has an effect."""
        secrets = self.credentials.secrets if self.credentials else ()
        return Call(self.who, doing, sent, secrets)

    def read(self, shape: type[Shape], doing: str, service: str, method: str, **asked: Any) -> Shape:
        """Ask for something, patiently, and read it as `shape`, one of the shapes in `answers`.

        Args:
            doing: names it in errors.
            asked: what is None is left out.

        Raises:
            Unreachable: no clear answer, or one that is not of that shape.
        """
        reply = self._renewing(lambda: self._once(self.call_for(doing), service, method, asked))
        try:
            return shape.model_validate(reply)
        except ValidationError as error:
            what = f"{self.who} answered what kchain cannot read ({doing}): {fault_of(error)}"
            raise Unreachable(what, "repeat the command") from None

    def act(self, doing: str, service: str, method: str, **asked: Any) -> Made:
        """Ask for an effect, once.

        Raises:
            Ambiguous: it may have happened.
        """
        door = self.new_door()
        call = self.call_for(doing, lambda: door.sent)
        return Made.model_validate(self._once(call, service, method, asked, self.kaggle_client(door)))

    def location(self, doing: str, service: str, method: str, **fields: Any) -> str:
        """The address that an answer redirects to; it is not followed."""

        def once() -> str:
            try:
                self._once(self.call_for(doing), service, method, fields)
            except Unreachable as error:
                if isinstance(error.__cause__, requests.TooManyRedirects):
                    return _target_of(error.__cause__, error)
                raise
            raise Unreachable(f"{self.who} gave no address ({doing})", "repeat the command")

        address: str = self._renewing(once)
        return address

    def stream(self, doing: str, path: str, params: Mapping[str, str]) -> requests.Response:
        """Open a GET whose body is read as it comes; the caller closes it.

        Raises:
            KchainError: the target does not give it.
        """
        session: requests.Session = sdk.session_of(self._client)
        headers: Any = {"Accept": "text/event-stream, */*", "Content-Type": None}
        with foreign_errors(self.call_for(doing)):
            address: str = f"{self.base}{path}"
            try:
                return session.get(address, params=dict(params), headers=headers, stream=True)
            except requests.TooManyRedirects as elsewhere:
                # A finished log may lie in a store of its own; the door sends no key there.
                return session.get(_target_of(elsewhere, elsewhere), headers=headers, stream=True)

    def _renewing(self, read: Callable[[], Any]) -> Any:
        """A patient read; a token that the target has forgotten is renewed once."""
        try:
            return self.patience.insist(read)
        except CredentialsError:
            if self.credentials is None or not self.credentials.renew():
                raise
            return self.patience.insist(read)

    def _once(
        self, call: Call, service: str, method: str, fields: Mapping[str, Any], client: Any = None
    ) -> dict[str, Any]:
        http = (client or self._client).http_client()
        with foreign_errors(call):
            request = sdk.build_request(service, method, fields)
            reply: dict[str, Any] = http.call(sdk.service_name(service), method, request, _Fields)
        return reply


def _target_of(elsewhere: requests.TooManyRedirects, otherwise: KchainError | requests.RequestException) -> str:
    response = elsewhere.response
    location = response.headers.get("Location") if response is not None else None
    if not location or response is None:
        raise otherwise
    return urljoin(str(response.url), str(location))
