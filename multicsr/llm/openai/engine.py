"""Engine for any OpenAI-compatible chat endpoint. It gives no logits, so stage 1 is skipped: omega must be 0.

The endpoint samples the tokens: each request carries a seed of its row, which the endpoint may ignore.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.llm.base import Completion, Rejection, Usage, both
from multicsr.llm.openai.answers import ChatAnswer
from multicsr.llm.openai.budget import Reservation
from multicsr.llm.openai.endpoint import BACKOFF_S, LABELS, ChatRequest, Endpoint
from multicsr.llm.openai.labels import read_labels
from multicsr.llm.stop_strings import cut_text, may_open_blank
from multicsr.prompts import PromptPair, load_prompts
from multicsr.rows import Reason

_TOP_LOGPROBS = 20
"""Number of likeliest tokens requested with their log-probabilities."""
_MOST_STOPS = 4
"""Maximum number of stop strings in the protocol."""
_MOST_BLANKS = 2
"""Number of tokens of white space before a label that are read past."""


class OpenAIEngine:
    """Engine that sends prompts as chat messages, one after another; `llm.concurrency` threads call it.

    A call has one premise, so no premise waits for others: each proceeds as fast as the endpoint answers.
    Finished premises are committed when there are `generate.batch_size` of them.

    Raises:
        ConfigError: `llm.chat_template` is false, or the key cannot be sent.
    """

    batch_size: int | None = 1

    def __init__(self, config: Config, backoff_s: float = BACKOFF_S) -> None:
        if config.llm.chat_template is False:
            raise ConfigError("llm.chat_template: an endpoint always chats; leave the setting out")
        self.usage = Usage()
        self.batches_at_once = config.llm.concurrency
        self.rows_per_commit: int | None = config.generate.batch_size
        self._config = config
        self._endpoint = Endpoint(config.llm, self.usage, backoff_s)
        self._stop = [stop for stop in load_prompts(config.generate.prompts).stop if stop]
        self._sent_stop = self._stop[:_MOST_STOPS]
        """Stop strings that the endpoint gets: they save tokens and decide nothing."""
        self._safe_stop = [stop for stop in self._sent_stop if not may_open_blank(stop)]
        """Those of them that cannot end a text before its first word."""
        self._num_texts = self._num_helped = 0
        """Number of texts that came with all stop strings, and of those that came without the unsafe ones
        only. An increment that is lost between threads does not matter."""
        self._label_tokens = 1
        """Number of tokens that the score labels have needed so far."""
        args: dict[str, JsonValue] = {**config.llm.template_args}
        self._template_args: dict[str, JsonValue] = {"chat_template_kwargs": args} if args else {}

    def generate_pairs(
        self, pairs: Sequence[PromptPair], row_ids: Sequence[str]
    ) -> list[tuple[Completion, Completion] | Rejection]:
        """Implement `Engine.generate_pairs` without the noisy prompts (omega is 0)."""
        return [self._write(pair, row_id) for pair, row_id in zip(pairs, row_ids, strict=True)]

    def close(self) -> None:
        """Close the connections to the endpoint."""
        self._endpoint.close()

    def reply(
        self, prompts: Sequence[str], row_ids: Sequence[str], max_new_tokens: int
    ) -> list[Completion | Rejection]:
        """Implement `Engine.reply`."""
        sampling: dict[str, JsonValue] = {"temperature": 0.0}
        requests = [
            self._request("reply", prompt, row_id, max_new_tokens, sampling)
            for prompt, row_id in zip(prompts, row_ids, strict=True)
        ]
        with self._endpoint.reserve(requests) as reservation:
            return [self._complete(request, reservation) for request in requests]

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str]
    ) -> list[NDArray[np.float64] | Rejection]:
        """Implement `Engine.label_probabilities` from the likeliest tokens; see `labels`."""
        names = [label.strip() for label in labels]
        requests = [self._label_request(prompt, self._label_tokens) for prompt in prompts]
        with self._endpoint.reserve(requests) as reservation:
            return [self._probabilities(prompt, names, reservation) for prompt in prompts]

    def _write(self, pair: PromptPair, row_id: str) -> tuple[Completion, Completion] | Rejection:
        """Write the entailment and the contradiction of one premise."""
        generate = self._config.generate
        sampling: dict[str, JsonValue] = {"temperature": generate.temperature, "top_p": generate.top_p}
        requests = [
            self._request("write", prompt, f"{row_id}:{direction}", generate.max_new_tokens, sampling)
            for direction, prompt in (("e", pair.entailment), ("c", pair.contradiction))
        ]
        texts = []
        with self._endpoint.reserve(requests) as reservation:
            for request in requests:
                text = self._complete(request, reservation)
                if isinstance(text, Rejection):
                    return text
                texts.append(text)
        return both(*texts)

    def _request(
        self, form: str, prompt: str, key: str, max_new_tokens: int, sampling: Mapping[str, JsonValue]
    ) -> ChatRequest:
        """Return the request for a completion; `key` decides the seed."""
        settings: dict[str, JsonValue] = {"seed": self._seed(key), **sampling, **self._template_args}
        return ChatRequest(form, prompt, max_new_tokens, settings)

    def _complete(self, request: ChatRequest, reservation: Reservation) -> Completion | Rejection:
        """Send a request and return its completion, cut at the stop strings.

        An endpoint ends a text at a line break before its first word, too. Then it is asked again without
        the stop strings for which that can happen. Once this helps in most cases, they are not sent at all.
        """
        sent = self._sent_stop if self._num_texts >= self._num_helped else self._safe_stop
        answer = self._endpoint.ask(_with_stop(request, sent), reservation)
        if isinstance(answer, ChatAnswer) and sent != self._safe_stop:
            if answer.text.strip():
                self._num_texts += 1
            else:
                answer = self._endpoint.ask(_with_stop(request, self._safe_stop), reservation)
                self._num_helped += isinstance(answer, ChatAnswer) and bool(answer.text.strip())
        if isinstance(answer, Rejection):
            return answer
        text, is_stopped = cut_text(answer.text, self._stop)
        return Completion(text, answer.usage.completion_tokens, is_stopped or answer.is_finished)

    def _probabilities(
        self, prompt: str, names: Sequence[str], reservation: Reservation
    ) -> NDArray[np.float64] | Rejection:
        """Compute the probabilities of the labels after one prompt, [L].

        The answer has one token, or as many as the labels of earlier prompts needed.
        """
        longest = max(map(len, names)) + _MOST_BLANKS
        while True:
            num_tokens = self._label_tokens
            answer = self._endpoint.ask(self._label_request(prompt, num_tokens), reservation)
            if isinstance(answer, Rejection):
                return answer
            mass_L, is_cut = read_labels(answer, names)
            if not is_cut or num_tokens >= longest:
                break
            self._label_tokens = max(self._label_tokens, num_tokens + 1)
        if mass_L.sum() == 0:
            return Rejection(Reason.SCORE_UNPARSABLE, "no score label among the likeliest tokens")
        return np.asarray(mass_L / mass_L.sum())

    def _label_request(self, prompt: str, num_tokens: int) -> ChatRequest:
        """Return the request for the likeliest tokens at the first positions of a score."""
        settings: dict[str, JsonValue] = {
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": _TOP_LOGPROBS,
            **self._template_args,
        }
        return ChatRequest(LABELS, prompt, num_tokens, settings)

    def _seed(self, key: str) -> int:
        """Return a seed of 31 bits, a function of `seed` and the key."""
        digest = hashlib.blake2b(f"{self._config.seed}:{key}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") >> 1


def _with_stop(request: ChatRequest, stop: Sequence[str]) -> ChatRequest:
    """Return a request whose text the endpoint ends at stop strings."""
    return replace(request, settings={**request.settings, "stop": list(stop)}) if stop else request
