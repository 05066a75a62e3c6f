"""Scorers of sentence pairs: their protocol, their results, and their names in settings, rows and stores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from multicsr.config import ScorerName
from multicsr.llm.base import Rejection

COLUMNS: dict[str, str] = {
    "llm_expected": "expected",
    "llm_stated": "stated",
    "encoder": "model",
    "nli": "model",
}
"""Names of scorers -> ends of the names of their two columns, such as `entailment_expected`. Encoder and NLI
model share a pair, because an artifact has the scores of at most one of them; so does a scorer of a package
(`column_of`)."""
DECIMALS = 4
"""Decimals to which scores are rounded. They are stored as float32, in which 3.3 is slightly less than 3.3;
rounded, it passes alpha = 3.3."""
MODEL_SCORES = 1
"""Version of the scores of encoders and NLI models; it is among the settings that decide the scores."""
_STORED: dict[str, str] = {"llm_expected": "expected", "llm_stated": "stated"}
"""Names of scorers -> names in the settings of artifacts, where they differ: results that an LLM was paid for
stay valid under the names that they were stored with."""


def column_of(name: ScorerName) -> str:
    """Return the end of the names of the columns of a scorer, which may be one of a package."""
    return COLUMNS.get(name, "model")


def stored_name(name: str) -> str:
    """Return the name of a scorer or of `score.method` as it stands in the settings of artifacts."""
    return _STORED.get(name, name)


def scorer_named(stored: str) -> str:
    """Return the name of a scorer that has this name in the settings of artifacts."""
    return {theirs: ours for ours, theirs in _STORED.items()}.get(stored, stored)


@dataclass(frozen=True, slots=True)
class PairScore:
    """Score of one pair of sentences on the scale from 0 to 5."""

    value: float | None
    """The score; None if the reply of the LLM states none."""
    reply: str | None = None
    """Reply of the LLM that the score was read from, if there is one."""
    problem: str | None = None
    """Reason why the reply states no score."""


class Scorer(Protocol):
    """A way to score pairs. The result of a pair depends on no other pair, beyond rounding."""

    column: str
    """End of the names of the columns that it fills, as `column_of` returns it for the name of the scorer."""

    def score(
        self, pairs: Sequence[tuple[str, str]], row_ids: Sequence[str]
    ) -> Sequence[PairScore | Rejection]:
        """Score each pair (premise, hypothesis).

        Args:
            pairs: the pairs.
            row_ids: ids of the rows that they belong to, from which an LLM's random draws follow.

        Returns:
            For each pair its score, or the reason to reject its row.
        """
