"""Words of a sentence, also in scripts that put no blanks between words."""

import re
from math import ceil

_EAST_ASIAN = (
    r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    r"\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    r"\u3105-\u312f\u31a0-\u31bf"  # Bopomofo
)
_SOUTHEAST_ASIAN = (
    r"\u0e01-\u0e4e\u0e81-\u0edf"  # Thai, Lao
    r"\u0f40-\u0fbc\u1000-\u1049\u1050-\u109f\u1780-\u17d3"  # Tibetan, Burmese, Khmer
)
WITHOUT_BLANKS = _EAST_ASIAN + _SOUTHEAST_ASIAN
"""Characters of scripts that put no blanks between words, with vowel signs, for a regular expression."""
_SCRIPTS = ((re.compile(f"[{_EAST_ASIAN}]"), 2), (re.compile(f"[{_SOUTHEAST_ASIAN}]"), 5))
"""Characters of scripts without blanks, and how many of them a word has on average, vowel signs included."""
WITHOUT_BLANKS_CHARACTER = re.compile(f"[{WITHOUT_BLANKS}]")
_HAS_WORD = re.compile(r"\w")


def characters_per_word(character: str) -> int:
    """Return the characters of an average word in a character's script; 1 if blanks separate its words."""
    return next((number for script, number in _SCRIPTS if script.match(character)), 1)


def count_words(text: str) -> int:
    """Return the number of words of a normalised text.

    Words are what blanks separate. In scripts without blanks their number is estimated from that of the
    characters: two of Chinese or Japanese are one word, five of Thai, Lao, Tibetan, Burmese or Khmer.
    """
    if text.isascii() or not WITHOUT_BLANKS_CHARACTER.search(text):
        return text.count(" ") + 1
    estimate = sum(len(script.findall(text)) / characters for script, characters in _SCRIPTS)
    others = [part for part in WITHOUT_BLANKS_CHARACTER.sub(" ", text).split() if _HAS_WORD.search(part)]
    return ceil(estimate) + len(others)
