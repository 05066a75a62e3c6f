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
_ARTICLE = re.compile(r"\b(?:an?|the) ")
_MOST_LABEL_WORDS = 3
"""Maximum number of words before a colon behind which a copy is looked for."""
_ANNOUNCING = frozenset({"sentence", "phrase", "is", "new", "input", "output", "original", "this"})
"""Words that announce a copy without a colon."""


def comparable(text: str) -> str:
    """Return a form of the text that is equal for texts which differ in case, quotes and punctuation only.

    A text of punctuation alone is returned with its punctuation.
    """
    plain = unicodedata.normalize("NFKC", _WIDE.sub(" ", text)).translate(_APOSTROPHE).casefold()
    words = (word.lstrip(_OPENING).rstrip(_CLOSING) for word in plain.split())
    return " ".join(filter(None, words)) or text.strip()


def is_copy(text: str, premise: str) -> bool:
    """Return True if a text is the premise up to case, quotes, punctuation and articles.

    It may stand behind a label of a few words (`French: ...`) or an announcement (`The sentence is ...`).
    """
    wanted, form = _without_articles(premise), _without_articles(text)
    if form.endswith(wanted) and _ANNOUNCING.issuperset(form.removesuffix(wanted).split()):
        return True
    label, _, rest = text.partition(":")
    return len(label.split()) <= _MOST_LABEL_WORDS and _without_articles(rest) == wanted


def _without_articles(text: str) -> str:
    """Return the comparable form without English articles."""
    return _ARTICLE.sub("", comparable(text))
