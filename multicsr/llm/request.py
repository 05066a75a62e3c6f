"""Request for a hypothesis, the rule of sampling, and the tokens written; common to all token engines."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class HypothesisRequest(NamedTuple):
    """Request to write one hypothesis."""

    main: list[int]
    """Token ids of the prompt."""
    noisy: list[int]
    """Token ids of the opposite prompt; ignored at omega = 0."""
    omega: float
    """Weight of the noisy logits in MultiCSR Eq. 2."""
    row_id: str
    direction: str
    """Direction of the hypothesis, e.g. `entailment`; with `row_id` the key of the random draws."""


class SamplingParams(NamedTuple):
    """Parameters of sampling, and limits of the length."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    tie_gap: float
    """Difference of logits below which a choice may depend on the batch and must be repeated without one."""
    min_new_tokens: int = 0
    """Number of tokens before which no end-of-sequence token is chosen; a stop string may end the text."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Sequences of tokens that must not be written."""

    def ruled_out(self, tokens: Sequence[int], eos: Iterable[int]) -> list[int]:
        """Return the tokens that must not follow these ones, whatever the logits are."""
        tokens_out = list(eos) if len(tokens) < self.min_new_tokens else []
        for *before, last in self.bad_words:
            if not before or list(tokens[-len(before) :]) == before:
                tokens_out.append(last)
        return tokens_out


@dataclass(slots=True)
class DecodedTokens:
    """Tokens of a hypothesis."""

    tokens: list[int] = field(default_factory=list)
    """Tokens written, with the end-of-sequence token if there is one."""
    finished: bool = False
    """True if the text ended by itself or at a stop string."""
    certain: bool = True
    """True if no choice was closer than the rule's `tie_gap`. In the result of an engine, False means that
    the logits were not numbers, so the tokens are invalid."""

    @property
    def is_over(self) -> bool:
        """Return True if no more tokens may be added: the text has ended or a choice was uncertain."""
        return self.finished or not self.certain


Watch = Callable[[int, Sequence[int]], bool]
"""Function that is called with the index of a request and its tokens so far, all of them final, while it is
written. If it returns False, the request is abandoned: its result is of no use to anybody."""
