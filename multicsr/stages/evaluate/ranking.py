"""Ranks that encoders share if the examples cannot distinguish them."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
LEVEL = 0.05
"""Level of the tests: probability of a difference that is found where there is none."""


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Correct p values for the number of tests (Holm 1979), so that they are valid all together.

    Args:
        p_values: p value of each test.

    Returns:
        Corrected p value of each test, in ascending order.
    """
    corrected: dict[Key, float] = {}
    largest = 0.0
    for place, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p))
        corrected[key] = largest
    return corrected


def shared_ranks(values: Sequence[float], p_values: Mapping[tuple[int, int], float]) -> list[int]:
    """Rank scores; the rank of a score is one more than the number of scores that are higher by a test.

    Args:
        values: scores, higher is better.
        p_values: p value of each pair of scores, by their numbers.
    """
    distinct = [pair for pair, p in holm(p_values).items() if p <= LEVEL]
    worse = [min(pair, key=lambda number: values[number]) for pair in distinct]
    return [1 + worse.count(number) for number in range(len(values))]
