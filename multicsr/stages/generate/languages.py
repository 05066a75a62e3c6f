"""Check that a hypothesis is in the language of its premise, without a model of languages.

Two signs are certain enough: another script, and English function words in a corpus that is not English,
because English is what LLMs fall back into. Only texts that are long enough are judged.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from multicsr.stages.generate.labels import words

_LEAST_LETTERS = 10
"""Minimum number of letters of a text whose script is judged, vowel signs included."""
_LEAST_HAN = 15
"""Minimum number of letters of a text without kana beside a Japanese one: headlines may have none."""
_MAIN_SHARE = 0.7
"""Minimum share of the letters that are in the main script of a hypothesis."""
_FOREIGN_SHARE = 0.1
"""Share of the premise's letters below which a script is foreign to it."""
_GROUPS = {"HIRAGANA": "KANA", "KATAKANA": "KANA", "KATAKANA-HIRAGANA": "KANA", "HALFWIDTH": "KANA"}
_JAPANESE, ENGLISH_TAGS = ("ja", "jpn"), ("en", "eng")
_LEAST_WORDS = 5
"""Minimum number of words of a text whose English words are counted."""
_ENGLISH_SHARE = 0.4
"""Minimum share of function words in an English sentence that is judged."""
_NOT_ENGLISH_SHARE = 0.15
"""Maximum share of these words in a premise that is not English: some are words of other languages, too."""
_ENGLISH = frozenset(
    re.findall(
        r"\w+",
        """the a an and or of to in on at with from by for is are was were be been has have had not no this
        that these those there they their he she his her it its who which will would can could""",
    )
)


def other_language(premise: str, text: str, language: str) -> str | None:
    """Return the script or language of a hypothesis if it is surely another one than the premise's, or None.

    Args:
        premise: the premise.
        text: the hypothesis.
        language: language tag of the row.
    """
    tag = primary_tag(language)
    script = _foreign_script(premise, text)
    if script and not (script == "KANA" and tag in _JAPANESE):
        return script.capitalize()
    is_english = _english(text) >= _ENGLISH_SHARE and 0 <= _english(premise) <= _NOT_ENGLISH_SHARE
    return "English" if is_english and tag not in ENGLISH_TAGS else None


def primary_tag(language: str) -> str:
    """Return the language of a language tag, without script and region: `en` of `en-GB`."""
    return language.partition("-")[0].lower()


def _foreign_script(premise: str, text: str) -> str | None:
    """Return the main script of a hypothesis if the premise has hardly a letter in it, or None.

    Chinese and Japanese share characters: kana in one of two long texts only makes it the other language's.
    """
    theirs, ours = _scripts(premise), _scripts(text)
    for counts in (theirs, ours):
        if counts["KANA"] >= _FOREIGN_SHARE * counts.total():
            counts["KANA"] += counts.pop("CJK", 0)
    if min(theirs.total(), ours.total()) < _LEAST_LETTERS:
        return None
    script, number = ours.most_common(1)[0]
    if script == "CJK" and theirs["KANA"] and number < _LEAST_HAN:
        return None
    is_main = number >= _MAIN_SHARE * ours.total()
    return script if is_main and theirs[script] < _FOREIGN_SHARE * theirs.total() else None


def _scripts(text: str) -> Counter[str]:
    """Return the number of letters and vowel signs of each script."""
    scripts = Counter(map(_script, text))
    del scripts[""]
    return scripts


@lru_cache(maxsize=65_536)
def _script(character: str) -> str:
    """Return the script of a letter or vowel sign, as its Unicode name begins; else an empty text."""
    if unicodedata.category(character)[0] not in "LM":
        return ""
    name = unicodedata.name(unicodedata.normalize("NFKC", character)[0], "").partition(" ")[0]
    return "" if name in ("COMBINING", "MODIFIER", "VARIATION") else _GROUPS.get(name, name)


def _english(text: str) -> float:
    """Return the share of English function words; -1 for a text that is too short to be judged."""
    found = words(text)
    return sum(word in _ENGLISH for word in found) / len(found) if len(found) >= _LEAST_WORDS else -1.0
