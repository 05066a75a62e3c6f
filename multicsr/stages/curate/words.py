"""Words of a hypothesis, in any script."""

import re
import unicodedata
from functools import cache

from multicsr.stages.ingest.words import WITHOUT_BLANKS

MAX_CHARACTERS = 1_000
"""Characters that are read of a hypothesis, so that a broken text cannot fill the memory."""
_MAX_WORD = 40
"""Characters that are read of a word, likewise."""


def words_of(text: str) -> set[str]:
    """Return the words of a text in lower case; in scripts without blanks, its characters."""
    lowered = unicodedata.normalize("NFC", text.lower()).replace("\u2019", "'")
    return {word[:_MAX_WORD] for word in _word_pattern().findall(lowered)}


@cache
def _word_pattern() -> re.Pattern[str]:
    """Return the pattern of a word: letters and digits with their marks, which `re` counts as no letters."""
    alone = re.compile(f"[{WITHOUT_BLANKS}]")
    marks = "".join(
        character
        for character in map(chr, range(0x300, 0x1F000))
        if unicodedata.category(character) in ("Mn", "Mc") and not alone.match(character)
    )
    letters = rf"[^\W_{WITHOUT_BLANKS}]"
    part = rf"{letters}+(?:[{marks}]+{letters}*)*"
    return re.compile(rf"[{WITHOUT_BLANKS}]|{part}(?:'{part})*")
