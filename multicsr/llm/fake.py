"""Deterministic replacement of an LLM, for tests and for measurements of everything around the LLM."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from multicsr.hashing import hash_64
from multicsr.llm.base import Completion, Rejection, Usage
from multicsr.prompts import PromptPair

_WHO = ("A man", "A woman", "A child", "The dog", "Two people", "A crowd", "The team", "An old man")
_DOES = ("walks", "plays", "sits", "runs", "waits", "sleeps", "stands", "sings")
_WHERE = ("in the park", "on a bench", "by the sea", "at home", "in the street", "near a wall")
_HOW = ("quietly", "with a friend", "after dark", "in the rain", "for a while", "all day")
HIGHEST = 5.0
"""Highest grade."""
_DENIAL = "It is not true that "


class FakeEngine:
    """Engine whose hypotheses and scores are functions of the row id and the prompt alone.

    Of 256 rows about 4 get an empty hypothesis, 4 a copy of the premise and 4 a scoring reply without a
    score. A contradiction begins with "It is not true that", and the scores depend on these words.
    """

    batches_at_once = 1
    batch_size: int | None = None
    rows_per_commit: int | None = None

    def __init__(self, score_scale: float = HIGHEST) -> None:
        """Set up the engine for prompts that name this score as the highest."""
        self.usage = Usage()
        self._unit = score_scale / HIGHEST

    def generate_pairs(
        self, pairs: Sequence[PromptPair], row_ids: Sequence[str]
    ) -> list[tuple[Completion, Completion] | Rejection]:
        """Implement `Engine.generate_pairs`."""
        results: list[tuple[Completion, Completion] | Rejection] = []
        for pair, row_id in zip(pairs, row_ids, strict=True):
            bits = hash_64(row_id)
            entailment, contradiction = _sentence(bits >> 8), _DENIAL + _sentence(bits >> 32).lower()
            if bits % 256 < 4:
                entailment = ""
            elif bits % 256 < 8:
                contradiction = pair.premise
            results.append((self._complete(entailment), self._complete(contradiction)))
        return results

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str]
    ) -> list[NDArray[np.float64] | Rejection]:
        """Implement `Engine.label_probabilities`: a bell curve over the labels, centred at a grade."""
        grades = np.array([_grade(prompt) for prompt in prompts])
        distance_NL = np.arange(len(labels)) - grades[:, None]
        weight_NL = np.exp(-(distance_NL**2))
        return list(weight_NL / weight_NL.sum(axis=1, keepdims=True))

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def reply(
        self, prompts: Sequence[str], row_ids: Sequence[str], max_new_tokens: int
    ) -> list[Completion | Rejection]:
        """Implement `Engine.reply`; the token limit is ignored."""
        return [
            self._complete(
                "similar" if hash_64(row_id) % 256 >= 252 else f"{_grade(prompt) * self._unit:.1f}"
            )
            for prompt, row_id in zip(prompts, row_ids, strict=True)
        ]

    def _complete(self, text: str) -> Completion:
        """Return a text as a finished completion, one token per word."""
        num_tokens = len(text.split())
        self.usage.add(generated_tokens=num_tokens)
        return Completion(text, num_tokens, finished=True)


def _sentence(bits: int) -> str:
    """Return a sentence whose parts are chosen by the bits."""
    parts = []
    for words in (_WHO, _DOES, _WHERE, _HOW):
        bits, choice = divmod(bits, len(words))
        parts.append(words[choice])
    return " ".join(parts) + "."


def _grade(prompt: str) -> float:
    """Return a grade: about 4 on average, about 1.5 if the prompt contains a contradiction."""
    spread = hash_64(prompt) % 1024 / 1024
    return spread * 3 if _DENIAL in prompt else 2.5 + spread * 2.5
