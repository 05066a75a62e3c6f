"""A hypothesis to write: what is asked for, by which rule, what was written. The same for every engine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Request(NamedTuple):
    """One hypothesis to write."""

    main: list[int]
    """Token ids of the prompt."""
    noisy: list[int]
    """Token ids of the opposite prompt; ignored at omega = 0."""
    omega: float
    row_id: str
    direction: str
    """With `row_id` the key of the draws."""


class Rule(NamedTuple):
    """How tokens are chosen, and when at the latest to stop."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    tie_gap: float
    """Logits. A choice that is closer than this depends on the batch and must be made again without one."""
    min_new_tokens: int = 0
    """Before so many tokens no end-of-sequence token is chosen; a stop string may end the text."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Sequences of tokens that must not be written."""

    def ruled_out(self, tokens: Sequence[int], eos: Iterable[int]) -> list[int]:
        """The tokens that must not follow these, whatever the logits say."""
        tokens_out = list(eos) if len(tokens) < self.min_new_tokens else []
        for *before, last in self.bad_words:
            if not before or list(tokens[-len(before) :]) == before:
                tokens_out.append(last)
        return tokens_out


@dataclass(slots=True)
class Written:
    """A hypothesis in tokens."""

    tokens: list[int] = field(default_factory=list)
    """The end-of-sequence token included if there is one."""
    finished: bool = False
    certain: bool = True
    """No choice was closer than the rule's `tie_gap`. Out of an engine, False means that the logits were not
    numbers, and neither are the tokens words."""

    @property
    def is_over(self) -> bool:
        return self.finished or not self.certain
