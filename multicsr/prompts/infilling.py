"""Sentences with masked words, which an LLM is asked to fill (CLAIF, Cheng et al. 2023).

What is masked is a function of sentence and rate, so that it depends on neither batch nor restart.
"""

from collections.abc import Iterator
from itertools import pairwise

from multicsr.hashing import hash_64

MASK = "<mask>"
"""Sign in place of a masked word."""


def mask_words(text: str, percent: int) -> str:
    """Return a text with a part of its words replaced by `MASK`, that part rounded up.

    In every second text, by chance, adjacent masks become one.

    Args:
        text: words between blanks.
        percent: part of the words to mask, in percent.
    """
    words = text.split()
    number = -(-len(words) * percent // 100)
    places = sorted(range(len(words)), key=lambda place: hash_64(f"{percent}:{place}:{text}"))
    masked = set(places[:number])
    signs = [MASK if place in masked else word for place, word in enumerate(words)]
    return " ".join(_merged(signs) if hash_64(f"{percent}:merge:{text}") % 2 else signs)


def _merged(signs: list[str]) -> Iterator[str]:
    """Yield the words with one mask for each run of masks."""
    yield from signs[:1]
    yield from (sign for before, sign in pairwise(signs) if not before == sign == MASK)
