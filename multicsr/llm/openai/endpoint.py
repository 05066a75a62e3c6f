"""Client of a chat endpoint, for many threads: temporary failures are retried, permanent ones end the job.

A failure is no evidence about a text. A refusal is attributed to a text only if it is repeated for this text
while the endpoint answers others in the same form. Temporary failures are retried for up to `llm.patience_s`
seconds; a permanent one ends the job, for all threads, with an error of one line.
"""

import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from multicsr.config import LLMConfig
from multicsr.errors import MulticsrError, RunError
from multicsr.llm.base import Rejection, Usage
from multicsr.llm.openai.answers import (
    KEPT,
    AnswerKind,
    ChatAnswer,
    ChatFailure,
    permanent_error,
    read,
    refusal_error,
    unusable_error,
)
from multicsr.llm.openai.budget import Budget, Reservation, TokenCount, most_tokens
from multicsr.llm.openai.client import ChatClient
from multicsr.llm.openai.limits import RateLimiter
from multicsr.llm.openai.offer import PAIRS_REMEDY, find_pairs
from multicsr.periodic import backoff_s
from multicsr.rows import Reason

_log = logging.getLogger(__name__)
BACKOFF_S = 0.5
"""Wait before the second attempt, in seconds; doubled for every further one."""
_LONGEST_BACKOFF_S = 30.0
_REPEATS = 3
"""Number of times in a row that a refusal or a permanent failure must come before it counts: a proxy may
return any error once."""
_UNUSABLE_REPEATS = 5
"""Number of times in a row that an unusable answer must come before it counts."""
OLD_LIMIT_NAME, NEW_LIMIT_NAME = "max_tokens", "max_completion_tokens"
"""Names of the token limit; OpenAI's newer models accept the second one only."""
_HARMLESS = "Write one word."
"""Test prompt that no endpoint has a reason to refuse."""
_NO_HEADERS: Mapping[str, str] = {}
LABELS = "labels"
"""Form of the requests whose answers must hold log-probabilities."""
_WITHOUT_LOGPROBS = "no log-probabilities"
_WITHOUT_CONTRAST = "no contrast"
_NO_LOGPROBS = "; if it gives no top_logprobs, set score.method to llm_stated"


@dataclass
class RequestAttempts:
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
        if failure.kind is AnswerKind.PASSING:
            return
        is_same = self.last is not None and self.last.key == failure.key
        self.repeats, self.last = (self.repeats + 1 if is_same else 1), failure


@dataclass(frozen=True)
class ChatRequest:
    """Text to send and the settings to send it with; requests of one form differ in their text only."""

    form: str
    prompt: str
    max_tokens: int
    settings: Mapping[str, JsonValue] = field(default_factory=dict)

    def body(self, model: str, limit_name: str) -> dict[str, JsonValue]:
        """Return the JSON to send.

        Args:
            model: name of the model.
            limit_name: `OLD_LIMIT_NAME` or `NEW_LIMIT_NAME`.
        """
        return {
            "model": model,
            "messages": [{"role": "user", "content": self.prompt}],
            limit_name: self.max_tokens,
            **self.settings,
        }

    @property
    def harmless(self) -> "ChatRequest":
        """Return a request of the same form that no endpoint has a reason to refuse."""
        return replace(self, prompt=_HARMLESS)

    @property
    def hint(self) -> str:
        """Return the remedy if no request of this form is answered, or an empty string."""
        if self.omega:
            return f"; {PAIRS_REMEDY}"
        return _NO_LOGPROBS if self.form == LABELS else ""

    @property
    def omega(self) -> float:
        """Return the weight of the noisy branch; 0 if there is none."""
        contrast = self.settings.get("contrast")
        omega = contrast.get("omega") if isinstance(contrast, dict) else None
        return float(omega) if isinstance(omega, float | int) else 0.0

    @property
    def most_tokens(self) -> TokenCount:
        """Return the most tokens that the request can cost."""
        return most_tokens(self.prompt, self.max_tokens)


def wants_new_name(result: ChatAnswer | ChatFailure) -> bool:
    """Return True if a request failed because the model knows `NEW_LIMIT_NAME` only."""
    return isinstance(result, ChatFailure) and NEW_LIMIT_NAME in result.message


def checked(request: ChatRequest, result: ChatAnswer | ChatFailure) -> ChatAnswer | ChatFailure:
    """Return the result, or a failure if it is an answer without what its form asks for.

    That is log-probabilities, or the noisy branch, which many servers ignore as an unknown field.
    """
    if isinstance(result, ChatFailure):
        return result
    missing = ""
    if request.form == LABELS and not result.positions and result.label_probabilities is None:
        missing = _WITHOUT_LOGPROBS
    elif result.omega != request.omega:
        missing = _WITHOUT_CONTRAST
    return ChatFailure(AnswerKind.UNUSABLE, missing, f"an answer with {missing}") if missing else result


def charge(
    usage: Usage, request: ChatRequest, reservation: Reservation, result: ChatAnswer | ChatFailure
) -> None:
    """Count what a request has cost; the most that it can have cost if that is not known."""
    count = TokenCount(0, 0)
    if isinstance(result, ChatAnswer):
        count = TokenCount(result.usage.prompt_tokens, result.usage.completion_tokens)
    is_unknown = result.may_be_charged if isinstance(result, ChatFailure) else count.prompt == 0
    cost = reservation.charge(request.most_tokens if is_unknown else count)
    amounts = {
        "requests": 1,
        "requests_busy": int(isinstance(result, ChatFailure) and result.status == 429),
        "prompt_tokens": count.prompt,
        "generated_tokens": count.completion,
        "cost": cost,
    }
    usage.add(**{name: amount for name, amount in amounts.items() if amount})


class Endpoint:
    """Chat endpoint at `llm.base_url`.

    Raises:
        ConfigError: the key cannot be sent in an HTTP header.
    """

    def __init__(self, config: LLMConfig, usage: Usage, backoff_s: float = BACKOFF_S) -> None:
        """Open no connection yet.

        Args:
            config: settings of the LLM.
            usage: counter of the requests, their tokens and their cost.
            backoff_s: wait before the second attempt, in seconds.
        """
        self._client = ChatClient(config)
        self.url = self._client.url
        self._config = config
        self._usage = usage
        self._backoff_s = backoff_s
        self._budget = Budget(config)
        self._limiter = RateLimiter(config.concurrency, config.patience_s, backoff_s)
        self._limit_name = OLD_LIMIT_NAME
        self._answered_s: dict[str, float] = {}
        """Time of the last answer to a request of each form, by the monotonic clock."""
        self._failure: MulticsrError | None = None
        self._has_failed = threading.Event()

    def reserve(self, requests: Sequence[ChatRequest]) -> AbstractContextManager[Reservation]:
        """Hold the budget of requests that are only worth their price together.

        Raises:
            BudgetSpent: they could exceed the budget.
        """
        return self._budget.reserve([request.most_tokens for request in requests])

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def require_pairs(self) -> None:
        """Raise unless the endpoint offers pairs; wait for a server that starts.

        Raises:
            ConfigError: it offers none, or rejects the key.
            RunError: it has not answered for `llm.patience_s`.
        """
        attempts = RequestAttempts()
        while (failure := find_pairs(self._client, self._config)) is not None:
            attempts.add(failure)
            if time.monotonic() - attempts.since_s >= self._config.patience_s:
                raise RunError(
                    f"llm.base_url: no answer from {self.url} in {self._config.patience_s:g} s "
                    f"(llm.patience_s): {failure.message}"
                )
            self._wait(attempts, failure)

    def ask(self, request: ChatRequest, reservation: Reservation) -> ChatAnswer | Rejection:
        """Send a request; retry temporary failures.

        Args:
            request: the request.
            reservation: budget that the request is paid from.

        Returns:
            The answer, or the reason to reject the row of this text.

        Raises:
            ConfigError: the endpoint answers no request of this form, or rejects the key.
            RunError: the endpoint has been failing for longer than `llm.patience_s`, or its account is not
                paid.
            BudgetSpent: attempts that failed have used up the budget.
        """
        attempts = RequestAttempts()
        while True:
            if self._failure is not None:
                raise self._failure
            result = self._send(request, reservation)
            if isinstance(result, ChatAnswer):
                self._answered_s[request.form] = time.monotonic()
                return result
            attempts.add(result)
            rejection = self._give_up(request, reservation, attempts, result)
            if rejection is not None:
                return rejection
            self._wait(attempts, result)

    def _give_up(
        self, request: ChatRequest, reservation: Reservation, attempts: RequestAttempts, failure: ChatFailure
    ) -> Rejection | None:
        """Return the reason to reject the row, or None to try again; raise if the job must end.

        Raises:
            ConfigError: the endpoint answers no request of this form, or rejects the key.
            RunError: it has been failing for longer than `llm.patience_s`, or its account is not paid.
        """
        repeats = attempts.repeats if failure.kind is not AnswerKind.PASSING else 0
        if failure.kind is AnswerKind.LASTING and repeats >= _REPEATS:
            raise self._end(permanent_error(failure, self.url, self._config.model))
        if failure.kind is AnswerKind.REFUSED and repeats >= _REPEATS:
            if self._answers_others(request, reservation, attempts.since_s):
                reason = Reason.PROMPT_TOO_LONG if failure.is_too_long else Reason.LLM_REFUSED
                return Rejection(reason, failure.message)
            raise self._end(refusal_error(failure, self.url, request.hint))
        if failure.kind is AnswerKind.UNUSABLE and repeats >= _UNUSABLE_REPEATS:
            if self._answers_others(request, reservation, attempts.since_s):
                return Rejection(Reason.ENGINE_ERROR, failure.message)
            if request.form not in self._answered_s or failure.key in (_WITHOUT_LOGPROBS, _WITHOUT_CONTRAST):
                raise self._end(unusable_error(failure, self.url, request.hint))
        if time.monotonic() - attempts.since_s < self._config.patience_s:
            return None
        if self._answers_others(request, reservation, attempts.since_s):
            return Rejection(Reason.ENGINE_ERROR, failure.message)
        raise self._end(
            RunError(
                f"llm.base_url: no answer from {self.url} in {self._config.patience_s:g} s (llm.patience_s) "
                f"and {attempts.number} attempts: {failure.message}; {KEPT}"
            )
        )

    def _answers_others(self, request: ChatRequest, reservation: Reservation, since_s: float) -> bool:
        """Return True if a text in the same form was answered since `since_s`, or a harmless one is now."""
        harmless = request.harmless
        for attempt in range(_REPEATS):
            if self._answered_s.get(request.form, 0.0) > since_s:
                return True
            if attempt:
                self._has_failed.wait(self._backoff_s)
            if isinstance(self._send(harmless, reservation), ChatAnswer):
                self._answered_s[request.form] = time.monotonic()
        return self._answered_s.get(request.form, 0.0) > since_s

    def _send(self, request: ChatRequest, reservation: Reservation) -> ChatAnswer | ChatFailure:
        """Make one attempt; use the name of the token limit that the endpoint accepts."""
        limit_name = self._limit_name
        reservation.cover(request.most_tokens)
        result = self._post(request.body(self._config.model, limit_name))
        charge(self._usage, request, reservation, result)
        if wants_new_name(result) and limit_name == OLD_LIMIT_NAME:
            self._limit_name = NEW_LIMIT_NAME
            return self._send(request, reservation)
        return checked(request, result)

    def _post(self, body: Mapping[str, JsonValue]) -> ChatAnswer | ChatFailure:
        """Post a body when the limits allow it, and parse the response."""
        status, headers = 0, _NO_HEADERS
        started_s = self._limiter.enter()
        try:
            if self._failure is not None:
                raise self._failure
            response = self._client.post(body)
            if isinstance(response, ChatFailure):
                return response
            status, headers = response.status, response.headers
            return read(*response)
        finally:
            self._limiter.leave(started_s, status, headers)

    def _wait(self, attempts: RequestAttempts, failure: ChatFailure) -> None:
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
        self._limiter.close()
        return self._failure
