"""Parser of the answers of a chat endpoint, and classification of its failures.

A failure of the endpoint is no evidence about the text that was sent. `Failure.kind` decides what is done.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field, JsonValue, TypeAdapter, ValidationError

from multicsr.errors import ConfigError, MulticsrError, RunError
from multicsr.llm.openai.limits import retry_after_s
from multicsr.messages.redaction import redact

_THOUGHT = "<think>"
"""Text that stands for a thought without an end."""
_MOST_TOKENS = 10_000_000
"""Largest plausible count of tokens; a larger one is counted as 0."""
_LONGEST_MESSAGE = 300
"""Characters of a failure message that are kept."""
_FINISHED = ("stop", "eos_token", "stop_sequence")
"""Values of `finish_reason` of a text that ended by itself; text-generation-inference has the latter two."""
_LASTING = {401, 402, 403, 404, 405, 407, 410, 501, 505, 511}
"""HTTP status codes of permanent failures."""
KEPT = "what was answered is kept; run the command again to go on"
"""Remedy of an error that ends a run whose configuration is right."""
_PASSING = {408, 409, 425, 429}
"""HTTP status codes of temporary failures; unlisted ones outside 300-499 are temporary, too."""
_IS_CONTENT = re.compile(
    r"content[_ -]?(?:filter|policy|management)|moderation|flagged|safety", re.IGNORECASE
)
_IS_QUOTA = re.compile(r"insufficient_quota|billing|credit balance|payment", re.IGNORECASE)
_IS_TOO_LONG = re.compile(
    r"context.{0,30}(?:length|window|size|token)|too long|too many tokens"
    r"|(?:prompt|input|request) is too large",
    re.IGNORECASE,
)


class AnswerKind(Enum):
    """Classes of failures, by the action they call for."""

    PASSING = "wait and ask again"
    UNUSABLE = "ask again; an answer came that is none"
    REFUSED = "ask again, and something harmless too: the text may be at fault, or the form of every request"
    LASTING = "end the job: waiting would not help"


@dataclass(frozen=True)
class ChatFailure:
    """Failure of a request to get a usable answer."""

    kind: AnswerKind
    key: str
    """Key of the failure: failures with equal keys count as repetitions of one failure."""
    message: str
    """Description in one line, without secrets."""
    wait_s: float = 0.0
    """Seconds for which the endpoint asks to wait (Retry-After)."""
    status: int = 0
    """HTTP status code; 0 if there is none."""
    is_too_long: bool = False
    """True if the endpoint reports that the prompt is too long."""
    may_be_charged: bool = False
    """True if an answer may have been written that has to be paid."""


def _count(value: object) -> int:
    """Return a count of tokens, or 0 for anything else; no decision depends on the usage."""
    return int(value) if isinstance(value, int | float) and 0 <= value <= _MOST_TOKENS else 0


def mapping(value: object) -> object:
    """Return a mapping, or an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def _likely(value: object) -> object:
    """Return the likeliest tokens without those of probability 0, whose log-probability JSON cannot hold.

    Servers write null or -Infinity for it. No list at all is an empty one.
    """
    if not isinstance(value, list):
        return [] if value is None else value
    return [each for each in value if not (isinstance(each, dict) and _is_zero(each.get("logprob", 0)))]


def _is_zero(logprob: object) -> bool:
    return logprob is None or logprob == -math.inf


def _joined(value: object) -> object:
    """Return the text of a content in parts, without the parts that are no text, such as thoughts."""
    if not isinstance(value, list):
        return value
    parts = [part for part in value if isinstance(part, dict)]
    texts = [
        text for part in parts if part.get("type") == "text" and isinstance(text := part.get("text"), str)
    ]
    return "".join(texts) if parts else value


Tokens = Annotated[int, BeforeValidator(_count)]


class _Token(BaseModel):
    """Token with its log-probability."""

    token: str
    logprob: Annotated[float, Field(allow_inf_nan=False, le=0.1)]


class _Position(BaseModel):
    """Token at one position of a text, and the likeliest tokens there."""

    token: str = ""
    top_logprobs: Annotated[list[_Token], BeforeValidator(_likely)] = []


class _Logprobs(BaseModel):
    """Log-probabilities of a text, by position."""

    content: list[_Position] | None = None


class _Message(BaseModel):
    """Message that holds the text."""

    content: Annotated[str | None, BeforeValidator(_joined)] = None
    refusal: str | None = None
    reasoning_content: object = None
    reasoning: object = None
    """A thought in any form, of which only the presence counts."""

    @property
    def text(self) -> str:
        """Return what the model wrote.

        For a thought without a text behind it, that is the mark of a thought that does not end, by which a
        hypothesis is rejected as what it is. The thought itself is left out: no score is read from it.
        """
        if self.content or self.refusal:
            return self.content or self.refusal or ""
        return _THOUGHT if self.reasoning_content or self.reasoning else ""


class _Choice(BaseModel):
    """One text of an answer."""

    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    label_probabilities: list[Annotated[float, Field(ge=0, le=1)]] | None = None

    @property
    def reason(self) -> str | None:
        """Return `finish_reason` in lower case."""
        return self.finish_reason and self.finish_reason.lower()


class _Usage(BaseModel):
    """Counts of tokens."""

    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0


class _Contrast(BaseModel):
    """Noisy branch that an answer was written with."""

    omega: float


class ChatAnswer(BaseModel):
    """Fields of an answer that are used."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: Annotated[_Usage, BeforeValidator(mapping)] = _Usage()
    contrast: _Contrast | None = None

    @property
    def omega(self) -> float:
        """Return the weight of the noisy branch; 0 if the answer was written without one."""
        return self.contrast.omega if self.contrast else 0.0

    @property
    def label_probabilities(self) -> list[float] | None:
        """Return the probabilities of the labels that were asked for; None if the answer has none."""
        return self.choices[0].label_probabilities

    @property
    def text(self) -> str:
        """Return the text that was written."""
        return self.choices[0].message.text

    @property
    def is_finished(self) -> bool:
        """Return True if the text ended by itself, False if it reached the token limit."""
        return self.choices[0].reason in _FINISHED

    @property
    def positions(self) -> list[_Position]:
        """Return the log-probabilities of the text by position; empty if the answer has none."""
        logprobs = self.choices[0].logprobs
        positions = (logprobs.content if logprobs else None) or []
        return positions if positions and positions[0].top_logprobs else []


_json: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


def read(status: int, headers: Mapping[str, str], body: bytes) -> ChatAnswer | ChatFailure:
    """Parse the response of an endpoint.

    Returns:
        The answer, or the failure if the response is an error or not a valid answer.
    """
    tree = _parse(body)
    return _failure(status, headers, tree, body) or _read_answer(tree, body)


def read_failure(status: int, headers: Mapping[str, str], body: bytes) -> ChatFailure | None:
    """Return the failure in a response that holds no chat answer; None if it is none."""
    return _failure(status, headers, _parse(body), body)


def _failure(status: int, headers: Mapping[str, str], tree: JsonValue, body: bytes) -> ChatFailure | None:
    """Return the failure of a response with this body and its tree; None if it is none."""
    error = tree.get("error") if isinstance(tree, dict) else None
    if 200 <= status < 300 and not error:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    if 200 <= status < 300:
        # An error in the body of a 2xx response may hold the status that the response should have had.
        status = code if isinstance(code, int) and 400 <= code < 600 else 502
    message = _words(error, body)
    return ChatFailure(
        _kind(status, message, str(code)),
        f"HTTP {status} {code if isinstance(code, str) else ''}".strip(),
        f"HTTP {status}: {message}" if message else f"HTTP {status}",
        retry_after_s(headers),
        status,
        status == 413 or bool(_IS_TOO_LONG.search(message)),
    )


def _read_answer(tree: JsonValue, body: bytes) -> ChatAnswer | ChatFailure:
    """Validate the body of a successful response and its `finish_reason`."""
    try:
        answer = ChatAnswer.model_validate(tree)
    except ValidationError:
        return ChatFailure(
            AnswerKind.UNUSABLE,
            "no chat answer",
            f"an answer that is none: {_words(None, body)!r}",
            may_be_charged=True,
        )
    reason = answer.choices[0].reason
    if reason == "content_filter":
        return ChatFailure(
            AnswerKind.REFUSED,
            "finish_reason content_filter",
            "the content filter ended the answer",
            may_be_charged=True,
        )
    if reason not in (*_FINISHED, "length"):
        return ChatFailure(
            AnswerKind.UNUSABLE,
            f"finish_reason {reason}",
            f"an answer with finish_reason {reason}",
            may_be_charged=True,
        )
    return answer


def _parse(body: bytes) -> JsonValue:
    """Parse a body as JSON; return None if it is invalid."""
    try:
        return _json.validate_json(body)
    except ValidationError:  # not JSON, or JSON with a lone surrogate
        return None


def _kind(status: int, message: str, code: str) -> AnswerKind:
    """Classify a failure by its HTTP status, message and error code."""
    if _IS_CONTENT.search(f"{code} {message}") and 400 <= status < 500:
        return AnswerKind.REFUSED
    if status == 429 and _IS_QUOTA.search(f"{code} {message}"):
        return AnswerKind.LASTING
    if status in _PASSING:
        return AnswerKind.PASSING
    if status in _LASTING or 300 <= status < 400:
        return AnswerKind.LASTING
    return AnswerKind.REFUSED if 400 <= status < 500 else AnswerKind.PASSING


def _words(error: JsonValue, body: bytes) -> str:
    """Return the endpoint's description of a failure as one short line without secrets."""
    message = error.get("message") if isinstance(error, dict) else error
    text = message if isinstance(message, str) else body[:4096].decode("utf-8", "replace")
    return redact(" ".join(text.split()))[:_LONGEST_MESSAGE]


def is_unpaid(message: str) -> bool:
    """Return True for a message or a code of an account that is not paid."""
    return bool(_IS_QUOTA.search(message))


def refusal_error(failure: ChatFailure, url: str, hint: str) -> ConfigError:
    """Return the error that ends a job whose every request is refused."""
    return ConfigError(f"llm: {url} rejects every request: {failure.message}{hint}")


def unusable_error(failure: ChatFailure, url: str, hint: str) -> ConfigError:
    """Return the error that ends a job whose every answer is unusable."""
    return ConfigError(f"llm.base_url: {url} is no chat endpoint: {failure.message}{hint}")


def permanent_error(failure: ChatFailure, url: str, model: str) -> MulticsrError:
    """Return the error that ends a job for a permanent failure of an endpoint."""
    if failure.status in (401, 403, 407):
        return ConfigError(f"OPENAI_API_KEY: {url} rejects the key: {failure.message}")
    if failure.status in (402, 429):
        return RunError(f"llm: the account at {url} is not paid: {failure.message}; {KEPT}")
    if failure.status < 400:
        return ConfigError(
            f"llm.base_url: {url} points elsewhere; write the final address: {failure.message}"
        )
    return ConfigError(f"llm.base_url, llm.model: nothing serves {model!r} at {url}: {failure.message}")
