"""Forms of the requests to a chat endpoint, and readers of their answers; common to both engines.

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
from multicsr.llm.base import Completion, Rejection
from multicsr.llm.openai.answers import ChatAnswer
from multicsr.llm.openai.endpoint import LABELS, ChatRequest
from multicsr.llm.stop_strings import cut_text, may_open_blank
from multicsr.prompts import PromptPair, load_prompts
from multicsr.rows import Reason

_TOP_LOGPROBS = 20
"""Number of likeliest tokens requested with their log-probabilities."""
_MOST_STOPS = 4
"""Maximum number of stop strings in the protocol."""
_MOST_BLANKS = 2
"""Number of tokens of white space before a label that are read past."""


class ChatForms:
    """Forms of the requests of one configuration.

    Raises:
        ConfigError: `llm.chat_template` is false.
    """

    def __init__(self, config: Config) -> None:
        if config.llm.chat_template is False:
            raise ConfigError("llm.chat_template: an endpoint always chats; leave the setting out")
        self._config = config
        prompts = load_prompts(config.generate.prompts)
        self._stop = [stop for stop in prompts.stop if stop]
        self.has_pairs = config.generate.omega > 0
        """True if the endpoint must offer pairs, as `multicsr serve` does: then texts and label probabilities
        are those of a local engine."""
        self.sent_stop = self._stop if self.has_pairs else self._stop[:_MOST_STOPS]
        """Stop strings that the endpoint gets: they save tokens and decide nothing."""
        self.safe_stop = [stop for stop in self.sent_stop if self.has_pairs or not may_open_blank(stop)]
        """Those of them that cannot end a text before its first word."""
        args: dict[str, JsonValue] = {**config.llm.template_args}
        self._template_args: dict[str, JsonValue] = {"chat_template_kwargs": args} if args else {}
        if self.has_pairs and not (prompts.chat or config.llm.chat_template):
            self._template_args["chat_template"] = False

    def writing(self, pair: PromptPair, row_id: str) -> list[ChatRequest]:
        """Return the requests for the entailment and the contradiction of a premise."""
        if self.has_pairs:
            return [
                self._contrasted(pair.entailment, pair.contradiction, f"{row_id}:entailment"),
                self._contrasted(pair.contradiction, pair.entailment, f"{row_id}:contradiction"),
            ]
        generate = self._config.generate
        sampling: dict[str, JsonValue] = {"temperature": generate.temperature, "top_p": generate.top_p}
        return [
            self._request("write", prompt, f"{row_id}:{direction}", generate.max_new_tokens, sampling)
            for direction, prompt in (("e", pair.entailment), ("c", pair.contradiction))
        ]

    def reply(self, prompt: str, row_id: str, max_new_tokens: int) -> ChatRequest:
        """Return the request for the greedy reply to a scoring prompt."""
        return self._request("reply", prompt, row_id, max_new_tokens, {"temperature": 0.0})

    def labels(self, prompt: str, num_tokens: int, labels: Sequence[str]) -> ChatRequest:
        """Return the request for the labels' probabilities.

        An endpoint without pairs gives the likeliest tokens at the first positions of a score.
        """
        if self.has_pairs:
            return ChatRequest(LABELS, prompt, 1, {"labels": list(labels), **self._template_args})
        settings: dict[str, JsonValue] = {
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": _TOP_LOGPROBS,
            **self._template_args,
        }
        return ChatRequest(LABELS, prompt, num_tokens, settings)

    def read_text(self, answer: ChatAnswer) -> Completion:
        """Return the completion that an answer holds, cut at the stop strings."""
        text, is_stopped = cut_text(answer.text, self._stop)
        return Completion(text, answer.usage.completion_tokens, is_stopped or answer.is_finished)

    def _contrasted(self, prompt: str, noisy: str, draw_key: str) -> ChatRequest:
        """Return the request for a hypothesis by MultiCSR Eq. 2, with the draws of a local engine."""
        generate = self._config.generate
        contrast: dict[str, JsonValue] = {
            "messages": [{"role": "user", "content": noisy}],
            "omega": generate.omega,
        }
        settings: dict[str, JsonValue] = {
            "seed": self._config.seed,
            "temperature": generate.temperature,
            "top_p": generate.top_p,
            "contrast": contrast,
            **self._template_args,
        }
        if generate.temperature > 0:
            settings["draw_key"] = draw_key
        return ChatRequest("write", prompt, generate.max_new_tokens, settings)

    def _request(
        self, form: str, prompt: str, key: str, max_new_tokens: int, sampling: Mapping[str, JsonValue]
    ) -> ChatRequest:
        """Return the request for a completion; `key` decides the seed."""
        settings: dict[str, JsonValue] = {"seed": self._seed(key), **sampling, **self._template_args}
        return ChatRequest(form, prompt, max_new_tokens, settings)

    def _seed(self, key: str) -> int:
        """Return a seed of 31 bits, a function of `seed` and the key."""
        digest = hashlib.blake2b(f"{self._config.seed}:{key}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") >> 1


def with_stop(request: ChatRequest, stop: Sequence[str]) -> ChatRequest:
    """Return a request whose text the endpoint ends at stop strings."""
    return replace(request, settings={**request.settings, "stop": list(stop)}) if stop else request


def most_label_tokens(labels: Sequence[str]) -> int:
    """Return the largest number of tokens that a score label can need."""
    return max(map(len, labels)) + _MOST_BLANKS


def given_probabilities(answer: ChatAnswer, num_labels: int) -> NDArray[np.float64] | Rejection:
    """Return the probabilities of the labels, [L], that an answer holds."""
    given = answer.label_probabilities or []
    if len(given) != num_labels or not sum(given):
        return Rejection(Reason.ENGINE_ERROR, f"{len(given)} probabilities for {num_labels} labels")
    return np.array(given, dtype=np.float64)


def to_probabilities(mass_L: NDArray[np.float64]) -> NDArray[np.float64] | Rejection:
    """Return the probabilities of the labels, [L], from their mass in an answer."""
    if mass_L.sum() == 0:
        return Rejection(Reason.SCORE_UNPARSABLE, "no score label among the likeliest tokens")
    return np.asarray(mass_L / mass_L.sum())
