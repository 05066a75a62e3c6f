"""Comparison of sentences up to case, quotes and punctuation."""

import re
import unicodedata

_OPENING = "\"'`([{¿¡«»‹›“”„‟‘‚‛"
_CLOSING = "\"'`)]}.,;:!?…‥·«»‹›“”„‟‘’،؛؟۔।॥፡።"
"""Punctuation at the start and at the end of a word. Signs that change what is meant are not in it: minus,
comparisons, percent, currency, and the exclamation mark before a name in program code."""
_WIDE = re.compile("[。、，．！？：；「」『』（）《》〈〉【】・]")
"""Punctuation of scripts without spaces between words; it is removed anywhere."""
_APOSTROPHE = str.maketrans("’ʼ＇", "'''")


def comparable(text: str) -> str:
    """Return a form of the text that is equal for texts which differ in case, quotes and punctuation only.

    A text of punctuation alone is returned with its punctuation.
    """
    plain = unicodedata.normalize("NFKC", _WIDE.sub(" ", text)).translate(_APOSTROPHE).casefold()
    words = (word.lstrip(_OPENING).rstrip(_CLOSING) for word in plain.split())
    return " ".join(filter(None, words)) or text.strip()
