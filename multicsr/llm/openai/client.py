"""HTTP client of a chat endpoint: the openai library over one pool of connections that all threads share.

The library's own retries are off, because `Endpoint` decides what is asked again. Every answer is bounded in
size and time, also one that is compressed or arrives byte by byte. Proxies are those of the environment.
"""

import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import httpx2
import openai
from pydantic import JsonValue

from multicsr.config import LLMConfig
from multicsr.errors import ConfigError
from multicsr.llm.openai.answers import AnswerKind, ChatFailure
from multicsr.messages.error_chain import first_line
from multicsr.messages.network_errors import describe_tls
from multicsr.messages.redaction import redact

_CONNECT_S = 10.0
"""Longest time to establish a connection, in seconds; `llm.timeout_s` if that is less."""
_IDLE_S = 60.0
"""Time after which an unused connection is closed, in seconds; longer than most pauses between requests."""
_MOST_BYTES = 16 * 2**20
"""Maximum size of an answer in bytes; a larger one is unusable."""
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
"""Exceptions of requests that did not reach the endpoint, so that they cost nothing."""
_ENCODING = ("content-encoding", "content-length", "transfer-encoding")
"""Headers that describe the bytes on the wire and not those that were decoded."""


class ChatResponse(NamedTuple):
    """Response of an endpoint, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ChatClient:
    """Client that posts to `llm.base_url`/chat/completions.

    The key is read from the environment variable OPENAI_API_KEY; no key is sent if it is not set.

    Raises:
        ConfigError: the key cannot be sent in an HTTP header.
    """

    def __init__(self, config: LLMConfig) -> None:
        base, _, query = str(config.base_url).partition("?")
        self.url, self._models_url = (
            f"{base.rstrip('/')}/{path}" + (f"?{query}" if query else "")
            for path in ("chat/completions", "models")
        )
        self._library = open_library(config, _MOST_BYTES)

    def post(self, body: Mapping[str, JsonValue]) -> ChatResponse | ChatFailure:
        """Post a body; a connection error or a timeout is a temporary failure."""
        return response_of(lambda: self._library.post(self.url, body=body, cast_to=httpx2.Response), self.url)

    def get_models(self) -> ChatResponse | ChatFailure:
        """Return the list of models at `llm.base_url`/models, whatever its status."""
        url = self._models_url
        return response_of(lambda: self._library.get(url, cast_to=httpx2.Response), url)

    def close(self) -> None:
        """Close all connections."""
        self._library.close()


def open_library(config: LLMConfig, most_bytes: int) -> openai.OpenAI:
    """Return the library for `llm.base_url`; it opens no connection yet.

    Args:
        config: settings of the LLM.
        most_bytes: maximum size of an answer.

    Raises:
        ConfigError: the key cannot be sent in an HTTP header.
    """
    base, _, _ = str(config.base_url).partition("?")
    key = _read_key()
    return openai.OpenAI(
        api_key=key or "none",
        base_url=base,
        max_retries=0,
        http_client=_BoundedClient(config.timeout_s, config.concurrency, most_bytes, has_key=bool(key)),
    )


def response_of(call: Callable[[], httpx2.Response], url: str) -> ChatResponse | ChatFailure:
    """Return the response to one call of the library, whatever its status, or the failure to get one."""
    try:
        response = call()
    except openai.APIStatusError as error:
        response = error.response
    except openai.APIConnectionError as error:
        cause = error.__cause__ or error
        return ChatFailure(
            AnswerKind.PASSING, "", _describe(cause, url), may_be_charged=not isinstance(cause, _NOT_SENT)
        )
    except _TooLongAnswer as error:
        return ChatFailure(AnswerKind.UNUSABLE, "too long an answer", str(error), may_be_charged=True)
    return ChatResponse(response.status_code, response.headers, response.content)


class _TooLongAnswer(Exception):
    """Answer that is longer than the pool of connections allows."""


class _BoundedClient(httpx2.Client):
    """Pool of connections whose responses are read at once, up to a size and a time."""

    def __init__(self, timeout_s: float, connections: int, most_bytes: int, *, has_key: bool) -> None:
        super().__init__(
            verify=_tls_context(),
            timeout=httpx2.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
            limits=httpx2.Limits(
                max_connections=connections,
                max_keepalive_connections=connections,
                keepalive_expiry=_IDLE_S,
            ),
            follow_redirects=False,  # the key and the sentences must not be sent to another address
        )
        self._timeout_s = timeout_s
        self._most_bytes = most_bytes
        self._has_key = has_key

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:  # noqa: ANN401 - the library's
        """Send a request and return the whole response, decoded.

        Raises:
            _TooLongAnswer: it is too long.
            httpx2.ReadTimeout: it takes too long.
        """
        if not self._has_key:
            request.headers.pop("Authorization", None)  # the library sends one for every key
        deadline_s = time.monotonic() + self._timeout_s
        response = super().send(request, **{**options, "stream": True})
        try:
            data = bytearray()
            for part in response.iter_bytes():
                data += part
                if len(data) > self._most_bytes:
                    raise _TooLongAnswer(f"an answer of more than {self._most_bytes // 2**20} MiB")
                if time.monotonic() > deadline_s:
                    raise httpx2.ReadTimeout(f"no end of the answer in {self._timeout_s:g} s")
        finally:
            response.close()
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in _ENCODING]
        return httpx2.Response(
            response.status_code, headers=headers, content=bytes(data), request=response.request
        )


def _tls_context() -> ssl.SSLContext:
    """Return the library's TLS settings without the strict form of certificates.

    Python 3.13 rejects authorities without the identifiers of keys, such as those of some companies, which
    curl and older Pythons take.
    """
    context = httpx2.create_ssl_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _read_key() -> str:
    """Return the key of the endpoint, or an empty string if there is none.

    Raises:
        ConfigError: the key holds characters that an HTTP header must not hold.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if key and not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigError("OPENAI_API_KEY: the key holds white space or characters that are not ASCII")
    return key


def _describe(error: BaseException, url: str) -> str:
    """Return the message of a failed connection as one short line without secrets."""
    text = describe_tls(error, url, setting="SSL_CERT_FILE") or first_line(error)
    return redact(" ".join(text.split()))[:300]
