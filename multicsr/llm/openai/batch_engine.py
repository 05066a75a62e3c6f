"""Engine for an endpoint with a batch API (`llm.batch`): a whole shard is one call, with a few batches.

No request depends on what this process has seen before, unlike those of `OpenAIEngine`: a process that starts
sends the same ones, and so finds the batches of one that was killed.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from multicsr.config import Config
from multicsr.llm.base import Completion, Rejection, Usage, both
from multicsr.llm.openai.answers import ChatAnswer
from multicsr.llm.openai.batch_endpoint import FIRST_POLL_S, BatchEndpoint
from multicsr.llm.openai.endpoint import ChatRequest
from multicsr.llm.openai.forms import ChatForms, most_label_tokens, to_probabilities, with_stop
from multicsr.llm.openai.labels import read_labels
from multicsr.prompts import PromptPair


class OpenAIBatchEngine:
    """Engine that sends prompts as chat messages in batches.

    Raises:
        ConfigError: `llm.chat_template` is false, or the key cannot be sent.
    """

    rows_per_commit: int | None = None

    def __init__(self, config: Config, first_poll_s: float = FIRST_POLL_S) -> None:
        self.usage = Usage()
        self.batches_at_once = config.llm.concurrency
        self.batch_size: int | None = config.generate.rows_per_shard
        self._forms = ChatForms(config)
        self._endpoint = BatchEndpoint(config.llm, self.usage, first_poll_s)

    def generate_pairs(
        self, pairs: Sequence[PromptPair], row_ids: Sequence[str]
    ) -> list[tuple[Completion, Completion] | Rejection]:
        """Implement `Engine.generate_pairs` without the noisy prompts (omega is 0)."""
        requests = [
            request
            for pair, row_id in zip(pairs, row_ids, strict=True)
            for request in self._forms.writing(pair, row_id)
        ]
        texts = self._complete(requests)
        return [both(*of_row) for of_row in zip(texts[::2], texts[1::2], strict=True)]

    def reply(
        self, prompts: Sequence[str], row_ids: Sequence[str], max_new_tokens: int
    ) -> list[Completion | Rejection]:
        """Implement `Engine.reply`."""
        return self._complete(
            [
                self._forms.reply(prompt, row_id, max_new_tokens)
                for prompt, row_id in zip(prompts, row_ids, strict=True)
            ]
        )

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str]
    ) -> list[NDArray[np.float64] | Rejection]:
        """Implement `Engine.label_probabilities` from the likeliest tokens; see `labels`.

        Each answer has as many tokens as a label can need, because asking again may take a day.
        """
        names = [label.strip() for label in labels]
        requests = [self._forms.labels(prompt, most_label_tokens(names), names) for prompt in prompts]
        with self._endpoint.reserve(requests) as reservation:
            answers = self._endpoint.ask(requests, reservation)
        return [
            answer if isinstance(answer, Rejection) else to_probabilities(read_labels(answer, names).mass_L)
            for answer in answers
        ]

    def close(self) -> None:
        """End all waiting, and close the connections to the endpoint."""
        self._endpoint.close()

    def _complete(self, requests: Sequence[ChatRequest]) -> list[Completion | Rejection]:
        """Send requests and return their completions, cut at the stop strings.

        An endpoint ends a text at a line break before its first word, too. Such requests are sent again in a
        second batch, without the stop strings for which that can happen.
        """
        sent, safe = self._forms.sent_stop, self._forms.safe_stop
        with self._endpoint.reserve(requests) as reservation:
            answers = self._endpoint.ask([with_stop(request, sent) for request in requests], reservation)
            if sent != safe:
                blank = [i for i, answer in enumerate(answers) if _is_blank(answer)]
                again = self._endpoint.ask([with_stop(requests[i], safe) for i in blank], reservation)
                for i, answer in zip(blank, again, strict=True):
                    answers[i] = answer
        return [each if isinstance(each, Rejection) else self._forms.read_text(each) for each in answers]


def _is_blank(answer: ChatAnswer | Rejection) -> bool:
    """Return True for an answer without any text."""
    return isinstance(answer, ChatAnswer) and not answer.text.strip()
