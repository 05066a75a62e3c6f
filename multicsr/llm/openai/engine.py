"""Engine for any OpenAI-compatible chat endpoint. It gives no logits, so stage 1 is skipped: omega must be 0.

The endpoint samples the tokens: each request carries a seed of its row, which the endpoint may ignore.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.llm.base import Completion, Rejection, Usage, both
from multicsr.llm.openai.answers import ChatAnswer
from multicsr.llm.openai.endpoint import BACKOFF_S, LABELS, ChatRequest, Endpoint
from multicsr.prompts import PromptPair, load_prompts
from multicsr.rows import Reason

_TOP_LOGPROBS = 20
"""Number of likeliest tokens requested with their log-probabilities."""
_MOST_STOPS = 4
"""Maximum number of stop strings in the protocol."""


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
        self._endpoint = Endpoint(config.llm, backoff_s)
        self._stop = load_prompts(config.generate.prompts).stop[:_MOST_STOPS]
        args: dict[str, JsonValue] = {**config.llm.template_args}
        self._template_args: dict[str, JsonValue] = {"chat_template_kwargs": args} if args else {}

    def generate_pairs(
        self, pairs: Sequence[PromptPair], row_ids: Sequence[str]
    ) -> list[tuple[Completion, Completion] | Rejection]:
        """Implement `Engine.generate_pairs` without the noisy prompts (omega is 0)."""
        return [self._write(pair, row_id) for pair, row_id in zip(pairs, row_ids, strict=True)]

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def reply(
        self, prompts: Sequence[str], row_ids: Sequence[str], max_new_tokens: int
    ) -> list[Completion | Rejection]:
        """Implement `Engine.reply`."""
        sampling: dict[str, JsonValue] = {"temperature": 0.0}
        return [
            self._complete("reply", prompt, row_id, max_new_tokens, sampling)
            for prompt, row_id in zip(prompts, row_ids, strict=True)
        ]

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str]
    ) -> list[NDArray[np.float64] | Rejection]:
        """Implement `Engine.label_probabilities` from the log-probabilities of the first token.

        Labels and tokens are compared without surrounding white space.
        """
        names = [label.strip() for label in labels]
        return [self._probabilities(prompt, names) for prompt in prompts]

    def _write(self, pair: PromptPair, row_id: str) -> tuple[Completion, Completion] | Rejection:
        """Write the entailment and the contradiction of one premise."""
        generate = self._config.generate
        sampling: dict[str, JsonValue] = {"temperature": generate.temperature, "top_p": generate.top_p}
        texts = []
        for direction, prompt in (("e", pair.entailment), ("c", pair.contradiction)):
            text = self._complete("write", prompt, f"{row_id}:{direction}", generate.max_new_tokens, sampling)
            if isinstance(text, Rejection):
                return text
            texts.append(text)
        return both(*texts)

    def _complete(
        self, form: str, prompt: str, key: str, max_new_tokens: int, sampling: Mapping[str, JsonValue]
    ) -> Completion | Rejection:
        """Send a prompt and return its completion; `key` decides the seed."""
        settings: dict[str, JsonValue] = {"seed": self._seed(key), **sampling, **self._template_args}
        if self._stop:
            settings["stop"] = list(self._stop)
        answer = self._ask(ChatRequest(form, prompt, max_new_tokens, settings))
        if isinstance(answer, Rejection):
            return answer
        return Completion(answer.text, answer.usage.completion_tokens, answer.is_finished)

    def _probabilities(self, prompt: str, names: Sequence[str]) -> NDArray[np.float64] | Rejection:
        """Compute the probabilities of the labels after one prompt, [L]."""
        settings: dict[str, JsonValue] = {
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": _TOP_LOGPROBS,
            **self._template_args,
        }
        answer = self._ask(ChatRequest(LABELS, prompt, 1, settings))
        if isinstance(answer, Rejection):
            return answer
        mass = dict.fromkeys(names, 0.0)
        for token, logprob in answer.top_logprobs():
            if token.strip() in mass:
                mass[token.strip()] += math.exp(logprob)
        total = sum(mass.values())
        if total == 0:
            return Rejection(Reason.SCORE_UNPARSABLE, "no score label among the likeliest tokens")
        return np.array([mass[name] / total for name in names])

    def _ask(self, request: ChatRequest) -> ChatAnswer | Rejection:
        """Send a request and add its tokens to the usage."""
        answer = self._endpoint.ask(request)
        if isinstance(answer, ChatAnswer):
            self.usage.add(
                prompt_tokens=answer.usage.prompt_tokens, generated_tokens=answer.usage.completion_tokens
            )
        return answer

    def _seed(self, key: str) -> int:
        """Return a seed of 31 bits, a function of `seed` and the key."""
        digest = hashlib.blake2b(f"{self._config.seed}:{key}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") >> 1
