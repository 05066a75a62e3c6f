"""A deterministic stand-in for an LLM: for tests and for measuring everything around the LLM."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from multicsr.generate.engine import Completion, Refusal, Usage
from multicsr.prompts import PromptPair

_WHO = ("A man", "A woman", "A child", "The dog", "Two people", "A crowd", "The team", "An old man")
_DOES = ("walks", "plays", "sits", "runs", "waits", "sleeps", "stands", "sings")
_WHERE = ("in the park", "on a bench", "by the sea", "at home", "in the street", "near a wall")
_HOW = ("quietly", "with a friend", "after dark", "in the rain", "for a while", "all day")
_DENIAL = "It is not true that "


class FakeEngine:
    """Hypotheses and scores as functions of the row id and the prompt alone.

    Of 256 rows about 4 get an empty hypothesis, 4 a copied one and 4 stated scores that say nothing.
    A hypothesis that contradicts says so, and the scores follow it.
    """

    batches_at_once = 1
    batch_size: int | None = None

    def __init__(self) -> None:
        self.usage = Usage()

    def generate_pairs(
        self, pairs: Sequence[PromptPair], row_ids: Sequence[str]
    ) -> list[tuple[Completion, Completion] | Refusal]:
        results: list[tuple[Completion, Completion] | Refusal] = []
        for pair, row_id in zip(pairs, row_ids, strict=True):
            bits = _bits(row_id)
            entailment, contradiction = _sentence(bits >> 8), _DENIAL + _sentence(bits >> 32).lower()
            if bits % 256 < 4:
                entailment = ""
            elif bits % 256 < 8:
                contradiction = pair.premise
            results.append((self._complete(entailment), self._complete(contradiction)))
        return results

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str]
    ) -> list[NDArray[np.float64] | Refusal]:
        grades = np.array([_grade(prompt) for prompt in prompts])
        distance_NL = np.arange(len(labels)) - grades[:, None]
        weight_NL = np.exp(-(distance_NL**2))
        return list(weight_NL / weight_NL.sum(axis=1, keepdims=True))

    def close(self) -> None:
        """Nothing is held."""

    def reply(
        self, prompts: Sequence[str], row_ids: Sequence[str], max_new_tokens: int
    ) -> list[Completion | Refusal]:
        return [
            self._complete("similar" if _bits(row_id) % 256 >= 252 else f"{_grade(prompt):.1f}")
            for prompt, row_id in zip(prompts, row_ids, strict=True)
        ]

    def _complete(self, text: str) -> Completion:
        num_tokens = len(text.split())
        self.usage.add(generated_tokens=num_tokens)
        return Completion(text, num_tokens, finished=True)


def _bits(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _sentence(bits: int) -> str:
    parts = []
    for words in (_WHO, _DOES, _WHERE, _HOW):
        bits, choice = divmod(bits, len(words))
        parts.append(words[choice])
    return " ".join(parts) + "."


def _grade(prompt: str) -> float:
    """About 4 for two sentences that agree, about 1.5 when one of them denies."""
    spread = _bits(prompt) % 1024 / 1024
    return spread * 3 if _DENIAL in prompt else 2.5 + spread * 2.5
