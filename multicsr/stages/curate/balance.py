"""Balance of words: reject rows so that no word shows the side of a hypothesis.

An encoder can learn "has `not`: a negative" instead of meaning. For each word, the rows that have it in the
contradiction alone are counted against those that have it in the entailment alone; rows that have it in both
or neither do not count. Where one number is far above the other, a random part of its rows is rejected, so
that the ratio is at most `curate.max_word_ratio`:

    share of the rows to keep = min over the row's telling words of ratio * (smaller + 1) / (larger + 1)

The draw of a row is a hash of its id. So the result depends neither on the order of rows nor on files. The
shares come from one count over all rows that pass the thresholds. The rows that are rejected for one word
lower the counts of others too, so the ratios of rarer words are close to the wanted one and not exact.

Words are counted by a hash into a fixed number of places, so that memory does not grow with the vocabulary.
Two words may share a place; then they are balanced together.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multicsr.hashing import hash_64
from multicsr.stages.curate.words import MAX_CHARACTERS, words_of

BALANCE_RULES = 1
"""Version of the balance; it is part of the fingerprint of curated rows where words are balanced."""
_PLACES = 2**20
"""Number of places for words: 16 MiB of counts. A corpus of any size has fewer frequent words."""
_MIN_Z = 3.290527
"""Least z-score of a word that is balanced (McNemar's test): one of 1,000 words reaches it by chance."""
_SIDES = ("entailment", "contradiction")
_SALT = "balance:"


@dataclass(frozen=True)
class WordCounts:
    """Rows of a file that have each word on one side alone; only places with rows are listed."""

    places: NDArray[np.int64]
    """[K] places of words."""
    counts_2K: NDArray[np.int64]
    """Rows with the word in the entailment alone (first row) and in the contradiction alone."""


@dataclass(frozen=True)
class WordBalance:
    """Words that show the side, each with the share of its rows to keep."""

    shares: dict[tuple[int, int], float]
    """(side, place of a word) -> share of the rows to keep that have it on this side alone."""

    def telling_words(self, table: pa.Table) -> list[str | None]:
        """Return for each row the word for which it is rejected; None: it is kept.

        Args:
            table: rows with `row_id` and both hypotheses.
        """
        columns = (table[name].to_pylist() for name in ("row_id", *_SIDES))
        return [self._telling_word(*row) for row in zip(*columns, strict=True)]

    def _telling_word(self, row_id: str, entailment: str, contradiction: str) -> str | None:
        telling = [
            (self.shares[side, place], word)
            for side, words in enumerate(_one_sided(entailment, contradiction))
            for word in words
            if (side, place := _place(word)) in self.shares
        ]
        share, word = min(telling, default=(1.0, ""))
        return word if _draw(row_id) >= share else None


def count_words(table: pa.Table) -> WordCounts:
    """Count the rows that have each word on one side alone.

    Args:
        table: rows with both hypotheses.
    """
    sides: tuple[list[int], list[int]] = ([], [])
    for texts in zip(*(table[name].to_pylist() for name in _SIDES), strict=True):
        for found, words in zip(sides, _one_sided(*texts), strict=True):
            found.extend({_place(word) for word in words})
    counts_2V = np.stack([np.bincount(np.array(side, dtype=np.int64), minlength=_PLACES) for side in sides])
    places = np.flatnonzero(counts_2V.any(axis=0))
    return WordCounts(places, counts_2V[:, places])


def balance_words(counts: Iterable[WordCounts], ratio: float) -> WordBalance:
    """Return the shares of rows to keep, from the counts of all files.

    Args:
        counts: counts of each file.
        ratio: `curate.max_word_ratio`.
    """
    total_2V = np.zeros((2, _PLACES), dtype=np.int64)
    for each in counts:
        total_2V[:, each.places] += each.counts_2K
    return WordBalance(dict(_shares(total_2V, ratio)))


def _shares(counts_2V: NDArray[np.int64], ratio: float) -> Iterator[tuple[tuple[int, int], float]]:
    """Yield ((side, place), share to keep) of the words that show the side."""
    for side in (0, 1):
        for place in np.flatnonzero(counts_2V[side] > ratio * counts_2V[1 - side]):
            larger, smaller = int(counts_2V[side, place]), int(counts_2V[1 - side, place])
            share = ratio * (smaller + 1) / (larger + 1)
            if larger - smaller > _MIN_Z * sqrt(larger + smaller) and share < 1:
                yield (side, int(place)), share


def _one_sided(entailment: str, contradiction: str) -> tuple[set[str], set[str]]:
    """Return the words that the entailment alone has, and those that the contradiction alone has."""
    ours, theirs = (words_of(text[:MAX_CHARACTERS]) for text in (entailment, contradiction))
    return ours - theirs, theirs - ours


def _place(word: str) -> int:
    """Return the place of a word among the counts."""
    return hash_64(word) % _PLACES


def _draw(row_id: str) -> float:
    """Return the random number of a row, in [0, 1)."""
    return (hash_64(_SALT + row_id) >> 11) / 2**53  # as many bits as a float holds
