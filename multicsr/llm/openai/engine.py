"""Engine for any OpenAI-compatible chat endpoint.

Such an endpoint gives no logits, so stage 1 is skipped (omega is 0), unless it offers pairs as
`multicsr serve` does.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from multicsr.config import Config
from multicsr.llm.base import Completion, Rejection, Usage, both
from multicsr.llm.openai.answers import ChatAnswer
from multicsr.llm.openai.budget import Reservation
from multicsr.llm.openai.endpoint import BACKOFF_S, ChatRequest, Endpoint
from multicsr.llm.openai.forms import (
    ChatForms,
    given_probabilities,
    most_label_tokens,
    to_probabilities,
    with_stop,
)
from multicsr.llm.openai.labels import read_labels
from multicsr.prompts import PromptPair


class OpenAIEngine:
    """Engine that sends prompts as chat messages, one after another; `llm.concurrency` threads call it.

    A call has one premise, so no premise waits for others: each proceeds as fast as the endpoint answers.
    Finished premises are committed when there are `generate.batch_size` of them.

    Raises:
        ConfigError: `llm.chat_template` is false, the key cannot be sent, or omega is above 0 and the
            endpoint offers no pairs.
        RunError: omega is above 0, and the endpoint has not answered for `llm.patience_s`.
    """

    batch_size: int | None = 1

    def __init__(self, config: Config, backoff_s: float = BACKOFF_S) -> None:
        self.usage = Usage()
        self.batches_at_once = config.llm.concurrency
        self.rows_per_commit: int | None = config.generate.batch_size
        self._forms = ChatForms(config)
        self._endpoint = Endpoint(config.llm, self.usage, backoff_s)
        if self._forms.has_pairs:
            self._endpoint.require_pairs()
        self._num_texts = self._num_helped = 0
        """Number of texts that came with all stop strings, and of those that came without the unsafe ones
        only. An increment that is lost between threads does not matter."""
        self._label_tokens = 1
        """Number of tokens that the score labels have needed so far."""

    def generate_pairs(
        self, pairs: Sequence[PromptPair], row_ids: Sequence[str]
    ) -> list[tuple[Completion, Completion] | Rejection]:
        """Implement `Engine.generate_pairs`; without pairs, noisy prompts are not sent."""
        return [self._write(pair, row_id) for pair, row_id in zip(pairs, row_ids, strict=True)]

    def close(self) -> None:
        """Close the connections to the endpoint."""
        self._endpoint.close()

    def reply(
        self, prompts: Sequence[str], row_ids: Sequence[str], max_new_tokens: int
    ) -> list[Completion | Rejection]:
        """Implement `Engine.reply`."""
        requests = [
            self._forms.reply(prompt, row_id, max_new_tokens)
            for prompt, row_id in zip(prompts, row_ids, strict=True)
        ]
        with self._endpoint.reserve(requests) as reservation:
            return [self._complete(request, reservation) for request in requests]

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str]
    ) -> list[NDArray[np.float64] | Rejection]:
        """Implement `Engine.label_probabilities`; without pairs from the likeliest tokens, see `labels`."""
        names = [label.strip() for label in labels]
        requests = [self._forms.labels(prompt, self._label_tokens, labels) for prompt in prompts]
        with self._endpoint.reserve(requests) as reservation:
            return [self._probabilities(prompt, names, reservation) for prompt in prompts]

    def _write(self, pair: PromptPair, row_id: str) -> tuple[Completion, Completion] | Rejection:
        """Write the entailment and the contradiction of one premise."""
        requests = self._forms.writing(pair, row_id)
        texts = []
        with self._endpoint.reserve(requests) as reservation:
            for request in requests:
                text = self._complete(request, reservation)
                if isinstance(text, Rejection):
                    return text
                texts.append(text)
        return both(*texts)

    def _complete(self, request: ChatRequest, reservation: Reservation) -> Completion | Rejection:
        """Send a request and return its completion, cut at the stop strings.

        An endpoint ends a text at a line break before its first word, too. Then it is asked again without
        the stop strings for which that can happen. Once this helps in most cases, they are not sent at all.
        """
        safe_stop = self._forms.safe_stop
        sent = self._forms.sent_stop if self._num_texts >= self._num_helped else safe_stop
        answer = self._endpoint.ask(with_stop(request, sent), reservation)
        if isinstance(answer, ChatAnswer) and sent != safe_stop:
            if answer.text.strip():
                self._num_texts += 1
            else:
                answer = self._endpoint.ask(with_stop(request, safe_stop), reservation)
                self._num_helped += isinstance(answer, ChatAnswer) and bool(answer.text.strip())
        return answer if isinstance(answer, Rejection) else self._forms.read_text(answer)

    def _probabilities(
        self, prompt: str, names: Sequence[str], reservation: Reservation
    ) -> NDArray[np.float64] | Rejection:
        """Compute the probabilities of the labels after one prompt, [L].

        The answer has one token, or as many as the labels of earlier prompts needed.
        """
        longest = most_label_tokens(names)
        while True:
            num_tokens = self._label_tokens
            answer = self._endpoint.ask(self._forms.labels(prompt, num_tokens, names), reservation)
            if isinstance(answer, Rejection):
                return answer
            if self._forms.has_pairs:
                return given_probabilities(answer, len(names))
            mass_L, is_cut = read_labels(answer, names)
            if not is_cut or num_tokens >= longest:
                return to_probabilities(mass_L)
            self._label_tokens = max(self._label_tokens, num_tokens + 1)
