"""Protocol of an LLM engine, and the types of its results."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from multicsr.prompts import PromptPair
from multicsr.rows import Reason

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Completion:
    """Text that the LLM wrote after one prompt."""

    text: str
    """Text without the end-of-sequence token, cut before the first stop string that follows other text."""
    num_tokens: int
    """Number of tokens written, without the end-of-sequence token."""
    finished: bool
    """True if the text ended by itself or at a stop string; False if it reached the token limit."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Reason why the LLM has no result for one row; the other rows of the call are unaffected."""

    reason: str
    """A `Reason`, or the name of the rule of another package."""
    detail: str | None = None


NOT_NUMBERS = Rejection(Reason.ENGINE_ERROR, "the model's logits are not numbers; is llm.dtype too narrow?")
"""Reason to reject a row whose tokens cannot be chosen."""


def both(entailment: T | Rejection, contradiction: T | Rejection) -> tuple[T, T] | Rejection:
    """Return the results for both hypotheses of a premise, or the `Rejection` of the first that has none."""
    if isinstance(entailment, Rejection):
        return entailment
    return contradiction if isinstance(contradiction, Rejection) else (entailment, contradiction)


class Usage:
    """Counter of the work done since the last `take`. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._amounts: Counter[str] = Counter()
        self.levels: dict[str, float] = {}
        """Current values that are not summed, by name: `pairs_in_flight`, ..."""

    def add(self, **amounts: float) -> None:
        """Add amounts that can be summed: `prompt_tokens`, `generated_tokens`, ..."""
        with self._lock:
            self._amounts.update(amounts)

    def take(self) -> dict[str, float]:
        """Return the amounts added since the last call and reset them, so that none is taken twice."""
        with self._lock:
            taken, self._amounts = self._amounts, Counter()
        return {name: float(amount) for name, amount in taken.items()}


class Engine(Protocol):
    """Protocol of a loaded LLM. The result of a row depends on its own arguments only, not on the other rows.

    Every method that takes rows returns one result per row, in the same order. It raises `ConfigError` for
    an error that would affect every row (labels that the tokenizer cannot score, an endpoint without
    log-probabilities) and `RunError` if the LLM itself is lost.
    """

    usage: Usage
    batches_at_once: int
    """Number of calls that may be made at the same time, each from its own thread."""
    batch_size: int | None
    """Number of premises in a call; None: `generate.batch_size`."""
    rows_per_commit: int | None
    """Number of finished premises after which they are committed, for an engine whose work costs money; None:
    a whole shard is committed at a time."""

    def generate_pairs(
        self, pairs: Sequence[PromptPair], row_ids: Sequence[str]
    ) -> list[tuple[Completion, Completion] | Rejection]:
        """Write the entailment and the contradiction of each premise (MultiCSR Eq. 1-2).

        Args:
            pairs: the two filled prompts of each premise.
            row_ids: ids of the rows; the random draws of a row depend on its id and the seed.

        Returns:
            For each premise (entailment, contradiction), or the reason to reject the row.
        """

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str]
    ) -> list[NDArray[np.float64] | Rejection]:
        """Compute the probabilities of `labels` as the continuation of each prompt.

        Returns:
            For each prompt [L] probabilities that sum to 1, or the reason to reject the row.
        """

    def reply(
        self, prompts: Sequence[str], row_ids: Sequence[str], max_new_tokens: int
    ) -> list[Completion | Rejection]:
        """Write the greedy reply to each scoring prompt, of at most `max_new_tokens` tokens."""

    def close(self) -> None:
        """Release processes and memory."""
