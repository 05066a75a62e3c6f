"""From the body of a request to work for the engine.

A job draws the tokens of a row from (seed, row id, direction, position); `seed` and `draw_key` give the same.
A request with `seed` alone has draws of this seed, and one without has draws of its own.
"""

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from multicsr.errors import ConfigError
from multicsr.llm.base import Rejection
from multicsr.llm.label_tree import LabelTree
from multicsr.llm.prompt_tokens import PromptText
from multicsr.llm.request import DecodedTokens, HypothesisRequest, SamplingParams
from multicsr.llm.stopping import StopCriteria
from multicsr.llm.token_engine import TokenEngine
from multicsr.serve.bodies import ChatBody, ChatMessage, CompletionBody
from multicsr.serve.errors import RequestError, to_error
from multicsr.serve.scheduler import Scheduler

_KNOWN_STOPS = 32
"""Number of sets of stop strings whose tokens are remembered; finding them takes a look at the vocabulary."""
_DEFAULT_TOKENS = 16
"""Tokens of a completion if none are given, as in OpenAI's protocol."""
_DEFAULT_CHAT_TOKENS = 2048
"""Most tokens of an answer in a chat if none are given; the rest of the context if that is less."""
_MOST_LOGPROB_TOKENS = 16
"""Tokens of an answer with log-probabilities, which are read one by one."""


@dataclass(frozen=True)
class WriteTask:
    """Text to write."""

    request: HypothesisRequest
    rule: SamplingParams
    ends: StopCriteria
    num_likeliest: int | None
    """Number of likeliest tokens whose log-probabilities are wanted at each position; None: none are."""

    def num_written(self, written: DecodedTokens) -> int:
        """Return the number of tokens of a text, as jobs count them: without the end-of-sequence token."""
        return self.ends.text(written.tokens)[1]


class LabelTask(NamedTuple):
    """Prompt after which the probabilities of labels are wanted."""

    prompt: list[int]
    tree: LabelTree


OnTokens = Callable[[Sequence[int]], bool]


class _Watched(NamedTuple):
    """Request with the function that is called while it is written."""

    request: HypothesisRequest
    on_tokens: OnTokens


class Tasks:
    """Translation of bodies for one engine, and the queue before it."""

    def __init__(self, engine: TokenEngine, at_once: int) -> None:
        """Start the threads that call the engine.

        Args:
            engine: engine of the model.
            at_once: number of requests that are computed at the same time.
        """
        self._engine = engine
        threads, size = (at_once, 1) if engine.is_continuous else (1, at_once)
        self._scheduler = Scheduler(threads=threads, size=size)
        self._ends = lru_cache(_KNOWN_STOPS)(engine.ends)

    def close(self) -> None:
        """Wait for what runs, and end the engine."""
        self._scheduler.close()
        self._engine.close()

    def for_chat(self, body: ChatBody) -> WriteTask:
        """Return the text that a chat asks for.

        Raises:
            RequestError: the messages do not suit the model, or are too long.
        """
        limit = body.max_completion_tokens or body.max_tokens
        if body.logprobs and (limit is None or limit > _MOST_LOGPROB_TOKENS):
            raise RequestError(400, f"logprobs needs max_tokens of at most {_MOST_LOGPROB_TOKENS}")
        main = self._chat(body, body.messages)
        noisy = self._chat(body, body.contrast.messages) if body.contrast else None
        num_likeliest = (body.top_logprobs or 0) if body.logprobs else None
        return self._writing(body, main, noisy, limit, num_likeliest)

    def for_completion(self, body: CompletionBody) -> WriteTask:
        """Return the text that a prompt asks for.

        Raises:
            RequestError: the prompt is too long.
        """
        noisy = PromptText(body.contrast.prompt, is_chat=False) if body.contrast else None
        main = PromptText(body.text, is_chat=False)
        return self._writing(body, main, noisy, body.max_tokens or _DEFAULT_TOKENS)

    def for_labels(self, body: ChatBody) -> LabelTask:
        """Return the labels that a chat asks for.

        Raises:
            RequestError: the messages do not suit the model, or it cannot write the labels.
        """
        prompt = self._chat(body, body.messages)
        ids = self._ids(prompt, "messages")
        try:
            tree = self._engine.tokens.labels_after(prompt, body.labels or ())
        except ConfigError as error:
            raise RequestError(400, str(error), param="labels") from error
        return LabelTask(ids, tree)

    def write(self, task: WriteTask, on_tokens: OnTokens) -> "Future[DecodedTokens | Rejection]":
        """Queue a text.

        Args:
            task: the text.
            on_tokens: is called in another thread with the tokens so far; False abandons the text.
        """

        def run(items: Sequence[_Watched]) -> Sequence[DecodedTokens | Rejection]:
            requests = [item.request for item in items]
            return self._engine.write(
                requests, task.rule, task.ends, lambda i, tokens: items[i].on_tokens(tokens)
            )

        kind = ("write", task.rule, task.ends.stop)
        return self._scheduler.submit(kind, _Watched(task.request, on_tokens), run)

    def read_top(
        self, task: WriteTask, tokens: Sequence[int]
    ) -> "Future[list[dict[int, float]] | Rejection]":
        """Queue the reading of the likeliest tokens at each position of a text that was written."""

        def run(items: Sequence[Sequence[int]]) -> Sequence[list[dict[int, float]] | Rejection]:
            prompt, count = task.request.main, max(task.num_likeliest or 0, 1)
            return [self._engine.top_log_probabilities(prompt, item, count) for item in items]

        return self._scheduler.submit(("top", id(task)), tokens, run)

    def read_labels(self, task: LabelTask) -> "Future[NDArray[np.float64] | Rejection]":
        """Queue the reading of the probabilities of labels, [L]."""

        def run(prompts: Sequence[list[int]]) -> Sequence[NDArray[np.float64] | Rejection]:
            return self._engine.read_labels(prompts, task.tree)

        return self._scheduler.submit(("labels", task.tree.identity), task.prompt, run)

    def token_text(self, token: int) -> str:
        """Return the text of one token."""
        return self._engine.tokens.text_of(token)

    def _ids(self, prompt: PromptText, field: str) -> list[int]:
        """Return the tokens of a prompt.

        Raises:
            RequestError: it has none, so that there is nothing to continue.
        """
        ids = self._engine.tokens.ids(prompt)
        if not ids:
            raise RequestError(400, f"{field}: an empty text has no token to continue", param=field)
        return ids

    def _chat(self, body: ChatBody, messages: Sequence[ChatMessage]) -> PromptText:
        """Return messages as the model reads them."""
        plain = [message.plain for message in messages]
        if body.chat_template is False:
            return PromptText(plain[0]["content"], is_chat=False)
        try:
            return self._engine.tokens.chat(plain, body.chat_template_kwargs)
        except ValueError as error:
            raise RequestError(400, str(error), param="messages") from error

    def _writing(
        self,
        body: ChatBody | CompletionBody,
        main: PromptText,
        noisy: PromptText | None,
        limit: int | None,
        num_likeliest: int | None = None,
    ) -> WriteTask:
        """Return the text to write after prompts, of at most `limit` tokens; None: the default in a chat."""
        tokens = self._engine.tokens
        field = "messages" if isinstance(body, ChatBody) else "prompt"
        main_ids = self._ids(main, field)
        noisy_ids = main_ids if noisy is None else self._ids(noisy, f"contrast.{field}")
        longest = max(main_ids, noisy_ids, key=len)
        if limit is None:
            limit = max(1, min(tokens.num_left(longest) or _DEFAULT_CHAT_TOKENS, _DEFAULT_CHAT_TOKENS))
        rejection = tokens.too_long(longest, limit)
        if rejection is not None:
            raise to_error(rejection)
        seed, row_id, direction = _key_of_draws(body)
        omega = body.contrast.omega if body.contrast else 0.0
        request = HypothesisRequest(main_ids, noisy_ids, omega, row_id, direction)
        rule = self._engine.rule(limit, body.heat, body.top_p or 1.0, seed)
        return WriteTask(request, rule, self._ends(body.stops), num_likeliest)


def _key_of_draws(body: ChatBody | CompletionBody) -> tuple[int, str, str]:
    """Return seed, row id and direction of the random draws of a text.

    Requests are computed together if they have the same seed here, so a seed without a key is part of the id.
    """
    if body.draw_key is not None:
        row_id, _, direction = body.draw_key.rpartition(":")
        return body.seed or 0, row_id, direction
    return 0, uuid.uuid4().hex if body.seed is None else str(body.seed), "request"
