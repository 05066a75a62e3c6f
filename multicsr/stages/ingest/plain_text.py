"""Recognition of texts that no reader, converter or filter would change, many at a time.

Most records of most corpora are such texts, and NumPy finds them in a fraction of the time that the functions
for one record take. Those functions see all other records. They would return a plain text as it is
(`tests/stages/ingest/test_plain_text.py`), so the division cannot be seen in the result.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from multicsr.config import Config
from multicsr.stages.ingest.redaction import DIGITS, SIGN
from multicsr.stages.ingest.words import WITHOUT_BLANKS_CHARACTER

_BATCH_ROWS = 4096
"""Records that are examined at once: few enough for a core's caches."""
MAX_PLAIN_BYTES = 2**14
"""Size above which a record is examined alone, so that a batch has at most 64 MiB."""
_BLOCKS = (range(0x21, 0x1100), range(0x1200, 0x3000), range(0xAC00, 0xD7A4))
"""Characters that may be plain: all below CJK, and the syllables of Hangul, without its combining letters."""
_PLAIN_CATEGORIES = "LNPS"
"""General categories that may be plain: letters, numbers, punctuation, symbols. Marks combine with letters,
and the others are white space, invisible or unassigned."""
_MARKUP_CHARACTERS = "<&"
_DELETE = 0x7F
PlainTest = Callable[[Sequence[bytes]], NDArray[np.bool_]]
"""Function that returns for each of some records, in UTF-8, whether it is a plain text."""


def plain_test(config: Config, *, has_html: bool) -> PlainTest:
    """Return the test for plain texts under a configuration.

    A plain text has words of known characters, each separated from the next one by one blank, as many as the
    filters allow. It has no sign of markup or of personal data where these are looked for. Bytes that are
    not UTF-8 are never plain, nor are texts above `MAX_PLAIN_BYTES`.

    Args:
        config: the configuration of the run.
        has_html: whether markup is looked for.
    """
    if has_html and config.input.html is True:  # the text of every record is converted
        return lambda raw: np.zeros(len(raw), dtype=bool)
    left_out = (_MARKUP_CHARACTERS if has_html else "") + (DIGITS if config.ingest.redact else "")

    def test(raw: Sequence[bytes]) -> NDArray[np.bool_]:
        spaced = b" ".join([b"", *raw, b""])  # so that each word ends with a blank
        num_words_N = _num_words(raw, spaced, left_out)
        is_plain_N = (config.ingest.min_words <= num_words_N) & (num_words_N <= config.ingest.max_words)
        foreign = [] if spaced.isascii() else [row for row, text in enumerate(raw) if not text.isascii()]
        is_plain_N[foreign] &= _matches(rf"\A{plain_characters(left_out)}+\z", [raw[row] for row in foreign])
        if config.ingest.redact:
            is_plain_N &= ~_matches(SIGN, raw)
        return is_plain_N

    def test_in_batches(raw: Sequence[bytes]) -> NDArray[np.bool_]:
        raw = [text if len(text) <= MAX_PLAIN_BYTES else b"" for text in raw]  # an empty one is never plain
        batches = [raw[start : start + _BATCH_ROWS] for start in range(0, len(raw), _BATCH_ROWS)]
        return np.concatenate([np.zeros(0, dtype=bool), *map(test, batches)])

    return test_in_batches


def _num_words(raw: Sequence[bytes], spaced: bytes, left_out: str) -> NDArray[np.int64]:
    """Return the number of words of each text; 0 if one of its ASCII characters is not plain.

    Blanks that are not between two words, control characters and those of `left_out` are not plain.

    Args:
        raw: the texts in UTF-8.
        spaced: the texts, each with a blank before and after it.
        left_out: characters that no plain text has.
    """
    bytes_B = np.frombuffer(spaced, np.uint8)
    lengths_N = np.fromiter(map(len, raw), np.int64, len(raw))
    stops_N = np.cumsum(lengths_N + 1)
    blanks_W = np.flatnonzero(bytes_B == ord(" "))
    num_words_N = np.diff(np.searchsorted(blanks_W, stops_N), prepend=0)
    is_odd_B = (bytes_B < ord(" ")) | (bytes_B == _DELETE)
    for character in filter(str.isascii, left_out):
        is_odd_B |= bytes_B == ord(character)
    second_blanks_W = blanks_W[1:][np.diff(blanks_W) == 1]
    for odd_M in (np.flatnonzero(is_odd_B), second_blanks_W):
        num_words_N[np.searchsorted(stops_N, odd_M)] = 0
    return num_words_N


def _matches(pattern: str, raw: Sequence[bytes]) -> NDArray[np.bool_]:
    """Return for each text in UTF-8 whether it has a match of a pattern of RE2; invalid UTF-8 has none."""
    texts = pa.array(raw, pa.large_binary()).view(pa.large_string())  # a cast would fail on invalid UTF-8
    return np.asarray(pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False), dtype=bool)


@cache
def plain_characters(left_out: str = "") -> str:
    """Return a class of characters, for a regular expression, that may be in a plain text, with the blank.

    Every text of these characters is in NFC. Scripts that put no blanks between words are left out.
    """
    ranges = "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in _ranges(_plain_codes(left_out)))
    return f"[ {ranges}]"


def _plain_codes(left_out: str) -> Iterator[int]:
    for code in (code for block in _BLOCKS for code in block):
        character = chr(code)
        if (
            unicodedata.category(character)[0] in _PLAIN_CATEGORIES
            and unicodedata.is_normalized("NFC", character)
            and not WITHOUT_BLANKS_CHARACTER.match(character)
            and character not in left_out
        ):
            yield code


def _ranges(codes: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last number of each run of consecutive numbers."""
    first = last = next(codes)
    for code in codes:
        if code > last + 1:
            yield first, last
            first = code
        last = code
    yield first, last
