"""Client of a chat endpoint, for many threads: temporary failures are retried, permanent ones end the job.

A failure is no evidence about a text. A refusal is attributed to a text only if it is repeated for this text
while the endpoint answers others in the same form. Temporary failures are retried for up to `llm.patience_s`
seconds; a permanent one ends the job, for all threads, with an error of one line.
"""

import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import JsonValue

from multicsr.config import LLMConfig
from multicsr.errors import ConfigError, MulticsrError, RunError
from multicsr.llm.base import Rejection
from multicsr.llm.openai.answers import ChatAnswer, ChatFailure, Kind, read
from multicsr.messages.redaction import redact
from multicsr.periodic import backoff_s
from multicsr.rows import Reason

if TYPE_CHECKING:
    import requests

_log = logging.getLogger(__name__)
BACKOFF_S = 0.5
"""Wait before the second attempt, in seconds; doubled for every further one."""
_LONGEST_BACKOFF_S = 30.0
_CONNECT_S = 10.0
"""Longest time to establish a connection, in seconds; `llm.timeout_s` if that is less."""
_MOST_BYTES = 16 * 2**20
"""Maximum size of an answer in bytes; a larger one is unusable."""
_REPEATS = 3
"""Number of times in a row that a refusal or a permanent failure must come before it counts: a proxy may
return any error once."""
_UNUSABLE_REPEATS = 5
"""Number of times in a row that an unusable answer must come before it counts."""
_HARMLESS = "Write one word."
"""Test prompt that no endpoint has a reason to refuse."""
LABELS = "labels"
"""Form of the requests whose answers must hold log-probabilities."""
_WITHOUT_LOGPROBS = "no log-probabilities"
_NO_LOGPROBS = "; if it gives no top_logprobs, set score.method to llm_stated"
_KEPT = "what was answered is kept; run the command again to go on"


@dataclass
class _Attempts:
    """Failures of one request so far."""

    number: int = 0
    """Number of failed attempts."""
    since_s: float = 0.0
    """Time of the first failure, by the monotonic clock."""
    repeats: int = 0
    """Number of failures in a row with the key of `last`; temporary failures do not count."""
    last: ChatFailure | None = None
    """Last failure that was not temporary."""

    def add(self, failure: ChatFailure) -> None:
        """Count a failure."""
        self.since_s = self.since_s or time.monotonic()
        self.number += 1
        if failure.kind is Kind.PASSING:
            return
        is_same = self.last is not None and self.last.key == failure.key
        self.repeats, self.last = (self.repeats + 1 if is_same else 1), failure


@dataclass
class ChatRequest:
    """Text to send and the settings to send it with; requests of one form differ in their text only."""

    form: str
    prompt: str
    max_tokens: int
    settings: Mapping[str, JsonValue] = field(default_factory=dict)


class Endpoint:
    """Chat endpoint at `llm.base_url`.

    The key is read from the environment variable OPENAI_API_KEY; no key is sent if it is not set.

    Raises:
        ConfigError: the key cannot be sent in an HTTP header.
    """

    def __init__(self, config: LLMConfig, backoff_s: float = BACKOFF_S) -> None:
        base, _, query = str(config.base_url).partition("?")
        self.url = f"{base.rstrip('/')}/chat/completions" + (f"?{query}" if query else "")
        self._config = config
        self._backoff_s = backoff_s
        self._key = _read_key()
        self._local = threading.local()
        self._limit_name = "max_tokens"
        self._answered_s: dict[str, float] = {}
        """Time of the last answer to a request of each form, by the monotonic clock."""
        self._failure: MulticsrError | None = None
        self._has_failed = threading.Event()

    def ask(self, request: ChatRequest) -> ChatAnswer | Rejection:
        """Send a request; retry temporary failures.

        Returns:
            The answer, or the reason to reject the row of this text.

        Raises:
            ConfigError: the endpoint answers no request of this form, or rejects the key.
            RunError: the endpoint has been failing for longer than `llm.patience_s`, or its account is not
                paid.
        """
        attempts = _Attempts()
        while True:
            if self._failure is not None:
                raise self._failure
            result = self._send(request)
            if isinstance(result, ChatAnswer):
                self._answered_s[request.form] = time.monotonic()
                return result
            attempts.add(result)
            rejection = self._give_up(request, attempts, result)
            if rejection is not None:
                return rejection
            self._wait(attempts, result)

    def _give_up(self, request: ChatRequest, attempts: _Attempts, failure: ChatFailure) -> Rejection | None:
        """Return the reason to reject the row, or None to try again; raise if the job must end.

        Raises:
            ConfigError: the endpoint answers no request of this form, or rejects the key.
            RunError: it has been failing for longer than `llm.patience_s`, or its account is not paid.
        """
        repeats = attempts.repeats if failure.kind is not Kind.PASSING else 0
        if failure.kind is Kind.LASTING and repeats >= _REPEATS:
            raise self._end(self._explain(failure))
        if failure.kind is Kind.REFUSED and repeats >= _REPEATS:
            if self._answers_others(request, attempts.since_s):
                reason = Reason.PROMPT_TOO_LONG if failure.is_too_long else Reason.LLM_REFUSED
                return Rejection(reason, failure.message)
            hint = _NO_LOGPROBS if request.form == LABELS else ""
            raise self._end(ConfigError(f"llm: {self.url} rejects every request: {failure.message}{hint}"))
        if failure.kind is Kind.UNUSABLE and repeats >= _UNUSABLE_REPEATS:
            if self._answers_others(request, attempts.since_s):
                return Rejection(Reason.ENGINE_ERROR, failure.message)
            if request.form not in self._answered_s or failure.key == _WITHOUT_LOGPROBS:
                hint = _NO_LOGPROBS if request.form == LABELS else ""
                raise self._end(
                    ConfigError(f"llm.base_url: {self.url} is no chat endpoint: {failure.message}{hint}")
                )
        if time.monotonic() - attempts.since_s < self._config.patience_s:
            return None
        if self._answers_others(request, attempts.since_s):
            return Rejection(Reason.ENGINE_ERROR, failure.message)
        raise self._end(
            RunError(
                f"llm.base_url: no answer from {self.url} in {self._config.patience_s:g} s (llm.patience_s) "
                f"and {attempts.number} attempts: {failure.message}; {_KEPT}"
            )
        )

    def _answers_others(self, request: ChatRequest, since_s: float) -> bool:
        """Return True if a text in the same form was answered since `since_s`, or a harmless one is now."""
        harmless = ChatRequest(request.form, _HARMLESS, request.max_tokens, request.settings)
        for attempt in range(_REPEATS):
            if self._answered_s.get(request.form, 0.0) > since_s:
                return True
            if attempt:
                self._has_failed.wait(self._backoff_s)
            if isinstance(self._send(harmless), ChatAnswer):
                self._answered_s[request.form] = time.monotonic()
        return self._answered_s.get(request.form, 0.0) > since_s

    def _send(self, request: ChatRequest) -> ChatAnswer | ChatFailure:
        """Make one attempt; use the name of the token limit that the endpoint accepts."""
        limit_name = self._limit_name
        body = {
            "model": self._config.model,
            "messages": [{"role": "user", "content": request.prompt}],
            limit_name: request.max_tokens,
            **request.settings,
        }
        result = self._post(json.dumps(body).encode())
        if (
            isinstance(result, ChatFailure)
            and "max_completion_tokens" in result.message
            and limit_name == "max_tokens"
        ):
            self._limit_name = "max_completion_tokens"  # OpenAI's newer models accept this name only
            return self._send(request)
        if isinstance(result, ChatAnswer) and request.form == LABELS and not result.top_logprobs():
            return ChatFailure(Kind.UNUSABLE, _WITHOUT_LOGPROBS, f"an answer with {_WITHOUT_LOGPROBS}")
        return result

    def _post(self, body: bytes) -> ChatAnswer | ChatFailure:
        """Post a body and parse the response; a connection error or a timeout is a temporary failure."""
        import requests
        import urllib3

        deadline_s = time.monotonic() + self._config.timeout_s
        try:
            with self._session().post(
                self.url,
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=(min(_CONNECT_S, self._config.timeout_s), self._config.timeout_s),
                allow_redirects=False,  # the key and the sentences must not be sent to another address
                stream=True,
            ) as response:
                data = bytearray()
                while part := response.raw.read1(2**16, decode_content=True):
                    data += part
                    if len(data) > _MOST_BYTES:
                        return ChatFailure(
                            Kind.UNUSABLE, "too long an answer", "an answer of more than 16 MiB"
                        )
                    if time.monotonic() > deadline_s:
                        return ChatFailure(
                            Kind.PASSING, "", f"no end of the answer in {self._config.timeout_s:g} s"
                        )
                return read(response.status_code, response.headers, bytes(data))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            return ChatFailure(Kind.PASSING, "", _first_line(error))

    def _session(self) -> "requests.Session":
        """Return the session of this thread, whose connection is kept alive."""
        if not hasattr(self._local, "session"):
            import requests

            self._local.session = requests.Session()
            # A callable prevents requests from looking for other credentials in ~/.netrc.
            self._local.session.auth = self._sign
        session: requests.Session = self._local.session
        return session

    def _sign(self, request: "requests.PreparedRequest") -> "requests.PreparedRequest":
        """Add the key to a request."""
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _wait(self, attempts: _Attempts, failure: ChatFailure) -> None:
        """Wait before the next attempt, for a random time, so that requests do not retry all at once."""
        pause_s = backoff_s(attempts.number - 1, self._backoff_s, _LONGEST_BACKOFF_S)
        wait_s = max(pause_s, failure.wait_s * random.uniform(1.0, 1.1))
        left_s = attempts.since_s + self._config.patience_s - time.monotonic()
        wait_s = max(min(wait_s, left_s), 0.0)
        _log.warning("%s: %s; again in %.1f s", self.url, failure.message, wait_s)
        self._has_failed.wait(wait_s)

    def _end(self, error: MulticsrError) -> MulticsrError:
        """Return the error that ends the job, the first one registered; all other threads raise it too."""
        self._failure = self._failure or error
        self._has_failed.set()
        return self._failure

    def _explain(self, failure: ChatFailure) -> MulticsrError:
        """Return the error for a permanent failure."""
        if failure.status in (401, 403, 407):
            return ConfigError(f"OPENAI_API_KEY: {self.url} rejects the key: {failure.message}")
        if failure.status in (402, 429):
            return RunError(f"llm: the account at {self.url} is not paid: {failure.message}; {_KEPT}")
        if failure.status < 400:
            return ConfigError(
                f"llm.base_url: {self.url} points elsewhere; write the final address: {failure.message}"
            )
        wanted = f"{self._config.model!r} at {self.url}"
        return ConfigError(f"llm.base_url, llm.model: nothing serves {wanted}: {failure.message}")


def _read_key() -> str:
    """Return the key of the endpoint, or an empty string if there is none.

    Raises:
        ConfigError: the key holds characters that an HTTP header must not hold.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if key and not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigError("OPENAI_API_KEY: the key holds white space or characters that are not ASCII")
    return key


def _first_line(error: Exception) -> str:
    """Return the message of an error as one short line without secrets."""
    return redact(" ".join(str(error).split()))[:300] or type(error).__name__
