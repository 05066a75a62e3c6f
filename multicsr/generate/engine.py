"""What an LLM must be able to do, whatever runs it."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from multicsr.config import Config
from multicsr.prompts import PromptPair
from multicsr.rows import Reason


@dataclass(frozen=True, slots=True)
class Completion:
    """What the LLM wrote after one prompt."""

    text: str
    """Without the end-of-sequence token, cut before the first stop string."""
    num_tokens: int
    """Tokens written, the end-of-sequence token not counted."""
    finished: bool
    """It ended by itself or at a stop string; False: it ran into the token limit."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the LLM has nothing for one row; the other rows of the call are unaffected."""

    reason: Reason
    detail: str | None = None


def both(
    entailment: Completion | Refusal, contradiction: Completion | Refusal
) -> tuple[Completion, Completion] | Refusal:
    """The two hypotheses of a premise, or why one of them is missing."""
    if isinstance(entailment, Refusal):
        return entailment
    return contradiction if isinstance(contradiction, Refusal) else (entailment, contradiction)


class Usage:
    """Amounts of work since the last `take`; any thread may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._amounts: Counter[str] = Counter()
        self.levels: dict[str, float] = {}
        """How things stand now: `pairs_in_flight`, ..."""

    def add(self, **amounts: float) -> None:
        """Amounts that make sense when summed: `prompt_tokens`, `generated_tokens`, ..."""
        with self._lock:
            self._amounts.update(amounts)

    def take(self) -> dict[str, float]:
        """What was added since the last call, so that no amount is taken twice."""
        with self._lock:
            taken, self._amounts = self._amounts, Counter()
        return {name: float(amount) for name, amount in taken.items()}


class Engine(Protocol):
    """An LLM, loaded. Results depend on a row's own arguments, not on the rest of the call.

    Every method returns one result per row, in order. It raises `ConfigError` for what no row could
    survive (labels the tokenizer cannot score, an endpoint without log-probabilities) and `RunError` when
    the LLM itself is gone.
    """

    usage: Usage
    batches_at_once: int
    """Calls that may be made at the same time, from as many threads."""
    batch_size: int | None
    """Premises in a call; None: as many as `generate.batch_size` says."""

    def generate_pairs(
        self, pairs: Sequence[PromptPair], row_ids: Sequence[str]
    ) -> list[tuple[Completion, Completion] | Refusal]:
        """Write (entailment, contradiction) of each premise (MultiCSR Eq. 1-2)."""

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str]
    ) -> list[NDArray[np.float64] | Refusal]:
        """Probabilities of `labels` as the next thing after each prompt: per prompt [L], summing to 1."""

    def reply(
        self, prompts: Sequence[str], row_ids: Sequence[str], max_new_tokens: int
    ) -> list[Completion | Refusal]:
        """Greedy reply to each scoring prompt."""

    def close(self) -> None:
        """Let go of processes and memory."""


def load_engine(config: Config) -> Engine:
    """The engine that `llm.engine` names, its model loaded.

    Raises:
        ConfigError: the model cannot be loaded as configured.
    """
    if config.llm.engine == "fake":
        from multicsr.generate.fake_engine import FakeEngine

        return FakeEngine()
    if config.llm.engine == "openai":
        from multicsr.generate.openai_engine import OpenAIEngine

        return OpenAIEngine(config)
    if config.llm.engine == "vllm":
        from multicsr.generate.vllm_engine import VllmEngine

        return VllmEngine(config)
    from multicsr.generate.transformers_engine import TransformersEngine

    return TransformersEngine(config)
