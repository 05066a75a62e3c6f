"""Batch API of an endpoint: many requests are sent together, and their answers come within a day.

What was paid is never paid twice. A batch is named by a digest of its requests, and before one is made, the
endpoint is asked for a batch with that name: so a process that starts follows the batches of one that died.
Requests without an answer are asked again in a smaller batch, which has a name of its own; so all batches of
a call are found again, one after another. A batch that has ended without any answer has cost nothing, and is
not followed.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from multicsr.config import LLMConfig
from multicsr.errors import ConfigError, MulticsrError, RunError
from multicsr.hashing import checksum
from multicsr.llm.base import Rejection, Usage
from multicsr.llm.openai.answers import (
    KEPT,
    AnswerKind,
    ChatAnswer,
    ChatFailure,
    is_unpaid,
    permanent_error,
    refusal_error,
    unusable_error,
)
from multicsr.llm.openai.batch_client import BatchCallError, BatchClient, RequestBatch
from multicsr.llm.openai.budget import Budget, Reservation, TokenCount
from multicsr.llm.openai.endpoint import (
    NEW_LIMIT_NAME,
    OLD_LIMIT_NAME,
    ChatRequest,
    RequestAttempts,
    charge,
    checked,
    wants_new_name,
)
from multicsr.periodic import backoff_s
from multicsr.rows import Reason

_log = logging.getLogger(__name__)
FIRST_POLL_S = 1.0
"""Time before the second look at a batch, in seconds; it grows by `_POLL_GROWTH` up to `_LONGEST_POLL_S`."""
_POLL_GROWTH = 1.5
_LONGEST_POLL_S = 60.0
_LONGEST_BACKOFF_S = 30.0
_CALL_REPEATS = 3
"""Number of times in a row that a call must be rejected before it counts: a proxy may reject it once."""
_REPEATS = 2
"""Number of batches in a row in which a request must be refused, or answered unusably, before it counts."""
_MOST_BATCHES = 3
"""Number of batches in which a request may fail for any reason."""
_MOST_REQUESTS = 50_000
"""Maximum number of requests in a batch, by the API."""
_MOST_BYTES = 200_000_000
"""Maximum size of the file of a batch, by the API."""
_QUEUE_S = 86_400.0
"""Time for which a full queue of batches is waited for: the longest time of the batches in it."""
_IS_QUEUE_FULL = "limit"
"""Part of the error code of a batch that fails because the queue of the account is full."""
T = TypeVar("T")
Result = ChatAnswer | ChatFailure


@dataclass
class _Questions:
    """Requests of one call, by id, and what is known about them."""

    unanswered: dict[str, ChatRequest]
    results: dict[str, ChatAnswer | Rejection] = field(default_factory=dict)
    attempts: dict[str, RequestAttempts] = field(default_factory=dict)
    answered_forms: set[str] = field(default_factory=set)
    """Forms of the requests that were answered."""
    used: set[str] = field(default_factory=set)
    """Ids of the batches whose answers were read."""

    def finish(self, request_id: str, result: ChatAnswer | Rejection) -> None:
        """Store the result of a request."""
        self.results[request_id] = result
        self.unanswered.pop(request_id, None)


class BatchEndpoint:
    """Endpoint at `llm.base_url` that is asked in batches, for many threads.

    Raises:
        ConfigError: the key cannot be sent in an HTTP header.
    """

    def __init__(
        self,
        config: LLMConfig,
        usage: Usage,
        first_poll_s: float = FIRST_POLL_S,
        most_requests: int = _MOST_REQUESTS,
    ) -> None:
        """Open no connection yet.

        Args:
            config: settings of the LLM.
            usage: counter of the requests, their tokens and their cost.
            first_poll_s: time before the second look at a batch, in seconds.
            most_requests: maximum number of requests in a batch.
        """
        self._client = BatchClient(config)
        self._config = config
        self._usage = usage
        self._first_poll_s = first_poll_s
        self._most_requests = most_requests
        self._budget = Budget(config)
        self._limit_name = OLD_LIMIT_NAME
        self._is_closed = threading.Event()

    def reserve(self, requests: Sequence[ChatRequest]) -> AbstractContextManager[Reservation]:
        """Hold the budget of requests that are sent together.

        Raises:
            BudgetSpent: they could exceed the budget.
        """
        return self._budget.reserve([request.most_tokens for request in requests])

    def close(self) -> None:
        """End all waiting, and close all connections."""
        self._is_closed.set()
        self._client.close()

    def ask(self, requests: Sequence[ChatRequest], reservation: Reservation) -> list[ChatAnswer | Rejection]:
        """Send requests in as few batches as possible; equal requests are sent once.

        Args:
            requests: the requests.
            reservation: budget that they are paid from.

        Returns:
            For each request the answer, or the reason to reject the row of this text.

        Raises:
            ConfigError: the endpoint has no batch API, answers no request of a form, or rejects the key.
            RunError: it has been failing, or its account is not paid.
            BudgetSpent: batches that failed have used up the budget.
        """
        ids = [self._id(request) for request in requests]
        questions = _Questions(dict(zip(ids, requests, strict=True)))
        while questions.unanswered:
            self._ask_once(questions, reservation)
        return [questions.results[request_id] for request_id in ids]

    def _ask_once(self, questions: _Questions, reservation: Reservation) -> None:
        """Send what is unanswered, beside a harmless request of each form that was not answered before."""
        to_send = dict(questions.unanswered)
        if questions.attempts:
            forms = {request.form: request.harmless for request in to_send.values()}
            to_send |= {
                self._id(request): request
                for form, request in forms.items()
                if form not in questions.answered_forms
            }
        reservation.cover(_sum(request.most_tokens for request in to_send.values()))
        parts = list(self._parts(to_send))
        batches = [self._with_retries(partial(self._begin, part, questions.used)) for part in parts]
        for part, batch in zip(parts, batches, strict=True):
            self._take(questions, part, self._results(part, batch, questions.used), reservation)

    def _take(
        self,
        questions: _Questions,
        sent: Mapping[str, ChatRequest],
        results: Mapping[str, Result],
        reservation: Reservation,
    ) -> None:
        """Store the answers of a batch, and decide about its failures."""
        checked_results = {key: checked(request, results[key]) for key, request in sent.items()}
        for key, request in sent.items():
            charge(self._usage, request, reservation, results[key])
            if isinstance(answer := checked_results[key], ChatAnswer):
                questions.answered_forms.add(request.form)
                if key in questions.unanswered:
                    questions.finish(key, answer)
        failures = {key: each for key, each in checked_results.items() if isinstance(each, ChatFailure)}
        if self._limit_name == OLD_LIMIT_NAME and any(map(wants_new_name, failures.values())):
            self._limit_name = NEW_LIMIT_NAME
            return
        for key, failure in failures.items():
            if key in questions.unanswered:
                attempts = questions.attempts.setdefault(key, RequestAttempts())
                attempts.add(failure)
                is_answered = sent[key].form in questions.answered_forms
                if rejection := self._give_up(sent[key], attempts, failure, is_answered):
                    questions.finish(key, rejection)

    def _give_up(
        self, request: ChatRequest, attempts: RequestAttempts, failure: ChatFailure, is_form_answered: bool
    ) -> Rejection | None:
        """Return the reason to reject the row, or None to ask again; raise if the job must end."""
        repeats = attempts.repeats if failure.kind is not AnswerKind.PASSING else 0
        if repeats < _REPEATS and attempts.number < _MOST_BATCHES:
            return None
        if failure.kind is AnswerKind.LASTING:
            raise permanent_error(failure, self._client.url, self._config.model)
        if is_form_answered:
            reason = Reason.ENGINE_ERROR
            if failure.kind is AnswerKind.REFUSED:
                reason = Reason.PROMPT_TOO_LONG if failure.is_too_long else Reason.LLM_REFUSED
            return Rejection(reason, failure.message)
        if failure.kind is AnswerKind.REFUSED:
            raise refusal_error(failure, self._client.url, request.hint)
        if failure.kind is AnswerKind.UNUSABLE:
            raise unusable_error(failure, self._client.url, request.hint)
        raise RunError(
            f"llm.batch: {attempts.number} batches at {self._client.url} answered nothing: "
            f"{failure.message}; {KEPT}"
        )

    def _begin(self, part: Mapping[str, ChatRequest], used: set[str]) -> RequestBatch:
        """Return a batch of these requests: an earlier one that is of use, or a new one."""
        digest = checksum("\n".join(sorted(part)).encode())
        found = [batch for batch in self._client.find(digest) if batch.is_of_use and batch.id not in used]
        if found:
            batch = max(found, key=lambda each: each.is_over)
            _log.info("%s: follows batch %s of an earlier run", self._client.url, batch.id)
            return batch
        lines = b"".join(self._line(key, part[key]) for key in sorted(part))
        batch = self._client.create(digest, lines)
        _log.info("%s: made batch %s of %d requests", self._client.url, batch.id, len(part))
        return batch

    def _results(
        self, part: Mapping[str, ChatRequest], batch: RequestBatch, used: set[str]
    ) -> dict[str, Result]:
        """Wait for a batch, and return the result of each of its requests."""
        started_s = time.monotonic()
        while (batch := self._follow(batch)).status == "failed":
            self._check_failed(batch, started_s)
            _log.warning("%s: batch %s: %s; made again later", self._client.url, batch.id, batch.reason)
            self._wait(min(_LONGEST_POLL_S, 20 * self._first_poll_s))
            batch = self._with_retries(partial(self._begin, part, used))
        used.add(batch.id)
        found = self._with_retries(partial(self._client.results, batch))
        missing = ChatFailure(AnswerKind.PASSING, "", f"batch {batch.id} ({batch.status}) has no answer")
        return {key: found.get(key, missing) for key in part}

    def _follow(self, batch: RequestBatch) -> RequestBatch:
        """Wait until a batch is over; return its last state."""
        poll_s = self._first_poll_s
        while not batch.is_over:
            counts = batch.request_counts
            _log.info(
                *("%s: batch %s %s, %d of %d requests answered; next look in %.0f s", self._client.url),
                *(batch.id, batch.status, counts.completed, counts.total, poll_s),
            )
            self._wait(poll_s)
            poll_s = min(poll_s * _POLL_GROWTH, _LONGEST_POLL_S)
            batch = self._with_retries(partial(self._client.get, batch.id))
        return batch

    def _check_failed(self, batch: RequestBatch, started_s: float) -> None:
        """Raise unless a batch failed only because the queue of the account is full."""
        url, reason = self._client.url, batch.reason
        if is_unpaid(reason):
            raise RunError(f"llm: the account at {url} is not paid: {reason}; {KEPT}")
        if _IS_QUEUE_FULL not in reason.partition(":")[0]:
            raise ConfigError(f"llm.batch: {url} rejects the batch: {reason}")
        if time.monotonic() - started_s > _QUEUE_S:
            raise RunError(
                f"llm.batch: {url} has had no place for a batch for a day: {reason}; lower "
                f"generate.rows_per_shard or llm.concurrency; {KEPT}"
            )

    def _with_retries(self, call: Callable[[], T]) -> T:
        """Return what a call of the client returns; temporary failures are tried again.

        Raises:
            ConfigError: the endpoint has no batch API, or rejects the key or the batch.
            RunError: it has been failing for longer than `llm.patience_s`, or its account is not paid.
        """
        attempts = RequestAttempts()
        while True:
            try:
                return call()
            except BatchCallError as error:
                failure = error.failure
            attempts.add(failure)
            if failure.kind is not AnswerKind.PASSING and attempts.repeats >= _CALL_REPEATS:
                raise batch_error(failure, self._client.url, self._config.model)
            if time.monotonic() - attempts.since_s >= self._config.patience_s:
                raise RunError(
                    f"llm.batch: no answer from {self._client.url} in {self._config.patience_s:g} s "
                    f"(llm.patience_s): {failure.message}; its batches go on, and a run that is started "
                    "again follows them"
                )
            pause_s = backoff_s(attempts.number - 1, self._first_poll_s, _LONGEST_BACKOFF_S)
            self._wait(min(max(pause_s, failure.wait_s), self._config.patience_s))

    def _wait(self, seconds: float) -> None:
        """Wait; raise if the endpoint is closed meanwhile."""
        if self._is_closed.wait(seconds):
            raise RunError("llm.batch: the wait was ended; a run that is started again follows the batches")

    def _parts(self, requests: Mapping[str, ChatRequest]) -> Iterator[dict[str, ChatRequest]]:
        """Yield the requests in parts within the limits of the API, always cut at the same places."""
        part: dict[str, ChatRequest] = {}
        size = 0
        for key in sorted(requests):
            added = len(self._line(key, requests[key]))
            if part and (len(part) == self._most_requests or size + added > _MOST_BYTES):
                yield part
                part, size = {}, 0
            part[key] = requests[key]
            size += added
        yield part

    def _line(self, key: str, request: ChatRequest) -> bytes:
        """Return the line of a request in the file of a batch."""
        body = request.body(self._config.model, self._limit_name)
        line = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(line).encode() + b"\n"

    def _id(self, request: ChatRequest) -> str:
        """Return the id of a request, a digest of all that decides its answer."""
        body = request.body(self._config.model, OLD_LIMIT_NAME)
        return checksum(json.dumps(body, sort_keys=True).encode())


def batch_error(failure: ChatFailure, url: str, model: str) -> MulticsrError:
    """Return the error that ends a job because the endpoint rejects a call of the batch API."""
    if failure.status in (401, 402, 403, 407, 429) or 300 <= failure.status < 400:
        return permanent_error(failure, url, model)
    if failure.status in (404, 405, 410, 501) or failure.kind is AnswerKind.UNUSABLE:
        return ConfigError(f"llm.batch: {url} offers no batches: {failure.message}; set llm.batch to false")
    return ConfigError(f"llm.batch: {url} rejects the batch: {failure.message}")


def _sum(counts: Iterator[TokenCount]) -> TokenCount:
    """Return the tokens of several requests."""
    return TokenCount(*map(sum, zip(*counts, strict=True)))
