"""Find texts that equal known texts, exactly or with one word changed, inserted or removed.

Both are found by equal hashes. A **frame** of a text is the text with a gap: in place of one of its words, or
between two of them. Two texts of which one word differs have one frame in common, that whose gap is where
they differ, and no other two texts have any. So the hashes of the frames of all known texts, some 20 of a
sentence, are an exact index, and a text is looked up by its own frames.

Texts are compared by their letters, marks and digits, in Unicode form NFKC and without case. In scripts that
put no blanks between words a gap has up to the characters of two average words.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from math import log2

import numpy as np
from numpy.typing import NDArray

from multicsr.hashing import checksum, hash_64
from multicsr.stages.ingest.words import characters_per_word

OVERLAP_RULE = 1
"""Version of the rule; raise it with every change of what it finds. It is part of fingerprints."""
LEAST_WORDS = 5
"""Minimum number of words around the gap."""
LEAST_BITS = 20.0
"""Minimum information of the words around the gap, in bits. Below it, different people write the same frame,
such as `A man is on a _.`: each of its words is in many of the known texts."""
_PRIOR_TEXTS = 1_000
"""Number of texts without a word that are added to the known texts in its frequency, so that few known texts
make no word common."""
_WORDS_IN_GAP = 2
"""Maximum width of a gap in a script without blanks, in average words."""
_GAP = "\0"
_BLOCK = 4096
"""Number of texts whose frames are in memory at a time."""

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int32]


@dataclass(frozen=True)
class Match:
    """A known text that a text equals."""

    known: str
    is_exact: bool
    """False: one word is changed, inserted or removed."""


class KnownTexts:
    """The texts of labelled sets, in memory as 64-bit hashes, about 300 bytes a sentence."""

    def __init__(self, sets: Mapping[str, Iterable[str]]) -> None:
        """Index the texts of each set, by its name."""
        self.names = [*sets]
        """Names of the sets."""
        number: dict[str, int] = {}
        self._texts: list[str] = []
        self._sets: list[dict[int, None]] = []
        for place, texts in enumerate(sets.values()):
            for text in texts:
                words = words_of(text)
                if not words:
                    continue
                new = number.setdefault("".join(words), len(number))
                if new == len(self._texts):
                    self._texts.append(text)
                    self._sets.append({})
                self._sets[new][place] = None
        self._exact = _Index(_hashes(number), np.arange(len(number), dtype=np.int32))
        self._bits = _information(self._texts)
        self._frames = _Index(*self._hash_frames(self._texts))

    def __len__(self) -> int:
        """Return the number of distinct texts."""
        return len(self._texts)

    def digest(self) -> str:
        """Return a hash of all that decides what is found: the texts without their sets, and the rule."""
        return checksum(self._exact.hashes.tobytes() + str(OVERLAP_RULE).encode())

    def find(self, texts: Sequence[str]) -> list[dict[str, Match]]:
        """Return for each text the known text that it equals in each set, by the name of the set.

        Of several known texts in a set, an exactly equal one is returned, or else the first.
        """
        blocks = (texts[start : start + _BLOCK] for start in range(0, len(texts), _BLOCK))
        return [matches for block in blocks for matches in self._find(block)]

    def _find(self, texts: Sequence[str]) -> list[dict[str, Match]]:
        found: list[dict[str, Match]] = [{} for _ in texts]
        forms = ["".join(words_of(text)) for text in texts]
        self._note(
            found, self._exact.find(_hashes(forms), np.arange(len(texts), dtype=np.int32)), is_exact=True
        )
        self._note(found, self._frames.find(*self._hash_frames(texts)), is_exact=False)
        return found

    def _hash_frames(self, texts: Iterable[str]) -> tuple[Hashes, Numbers]:
        """Return the hashes of all frames of the texts, and the number of the text that each belongs to."""
        hashes: list[int] = []
        numbers: list[int] = []
        for number, text in enumerate(texts):
            hashes += (of_text := [hash_64(frame) for frame in frames_of(words_of(text), self._bits)])
            numbers += [number] * len(of_text)
        return np.asarray(hashes, np.uint64), np.asarray(numbers, np.int32)

    def _note(self, found: list[dict[str, Match]], pairs: Iterable[tuple[int, int]], is_exact: bool) -> None:
        """Add matches, given as (row of a text, number of a known text), to the sets of the known texts."""
        for row, known in sorted(pairs):
            for place in self._sets[known]:
                found[row].setdefault(self.names[place], Match(self._texts[known], is_exact))


class _Index:
    """Numbers by hash, as sorted arrays."""

    def __init__(self, hashes: Hashes, numbers: Numbers) -> None:
        order = np.argsort(hashes, kind="stable")
        self.hashes, self._numbers = hashes[order], numbers[order]

    def find(self, hashes: Hashes, rows: Numbers) -> Iterator[tuple[int, int]]:
        """Yield (row, number) for each hash of a row that a number has."""
        starts, ends = (np.searchsorted(self.hashes, hashes, side) for side in ("left", "right"))
        for hit in np.flatnonzero(ends > starts).tolist():
            for number in self._numbers[starts[hit] : ends[hit]].tolist():
                yield int(rows[hit]), number


class _Letters(dict[int, str | int | None]):
    """A table for `str.translate` that keeps letters, marks and digits, and makes everything else a blank.

    Apostrophes and invisible characters vanish, so that "don't" is one word. A character of a script without
    blanks is a word.
    """

    def __missing__(self, code: int) -> str | int | None:
        character = chr(code)
        category = unicodedata.category(character)
        value: str | int | None = code
        if character in "'\u2019\u02bc" or category == "Cf":
            value = None
        elif characters_per_word(character) > 1:
            value = f" {character} "
        elif category[0] not in "LMN":
            value = " "
        self[code] = value
        return value


_LETTERS = _Letters()


def words_of(text: str) -> list[str]:
    """Return the words of a text as they are compared; empty for a text without letters and digits."""
    plain = text.casefold()
    if not plain.isascii():
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return plain.translate(_LETTERS).split()


def frames_of(words: Sequence[str], bits: Mapping[str, float]) -> Iterator[str]:
    """Yield the frames of a text that tell it from texts of other people.

    Args:
        words: words of the text, from `words_of`.
        bits: information of each word that the known texts have; no other word is in a frame of theirs.
    """
    tenths = [10 // characters_per_word(word[0]) for word in words]
    before = [0, *accumulate(tenths)]
    known_before = [0.0, *accumulate(bits.get(word, 0.0) for word in words)]
    unknown = [place for place, word in enumerate(words) if word not in bits]
    for start in range(unknown[0] + 1 if unknown else len(words) + 1):
        for end in range(start, len(words) + 1):
            width = before[end] - before[start]
            information = known_before[-1] - known_before[end] + known_before[start]
            is_word = end - start <= 1 or (width <= 10 * _WORDS_IN_GAP and max(tenths[start:end]) < 10)
            is_short = before[-1] - width < 10 * LEAST_WORDS or information < LEAST_BITS
            if not is_word or is_short:
                break
            if not unknown or unknown[-1] < end:
                yield " ".join(words[:start]) + _GAP + " ".join(words[end:])


def _information(texts: Sequence[str]) -> dict[str, float]:
    """Return the information of each word of some texts: -log2 of the share of texts that have it."""
    counts = Counter(chain.from_iterable({*words_of(text)} for text in texts))
    total = len(texts) + _PRIOR_TEXTS
    return {word: log2(total / (count + 1)) for word, count in counts.items()}


def _hashes(texts: Iterable[str]) -> Hashes:
    return np.fromiter(map(hash_64, texts), np.uint64)
