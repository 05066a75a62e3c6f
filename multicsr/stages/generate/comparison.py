"""Comparison of sentences: up to case, quotes and punctuation, and of copies with trivial changes."""

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
_IDLE = frozenset({"a", "an", "the", "am", "is", "are", "was", "were", "be", "been", "being", "indeed"})
"""English words that change nothing, or the tense alone."""
_TENSE = re.compile(r"(?<=[a-z]{3})(?:ing|ed)$")
"""Ending of an English verb."""
_HYPHEN = re.compile(r"(?<=[a-z])[-\u2010\u2011](?=[a-z])")
_RESTRICTING = frozenset(
    {"except", "excluding", "but", "unless", "if", "until", "only", "without", "other", "before"}
)
"""English words by which the rest of a sentence can take its beginning back."""
_LEAST_BEGINNING = 3
"""Least number of words, without idle ones, of a beginning that is looked at."""
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


def is_near_copy(text: str, premise: str) -> bool:
    """Return True if an English text is the premise up to idle words, tense, hyphens and blanks.

    No word of number, name, negation or role is lost: `A man sawed wood.` is a near copy of `A man is sawing
    wood.`, and `A man sawed no wood.` is none.
    """
    return "".join(_telling(text)) == "".join(_telling(premise)) != ""


def is_beginning(text: str, premise: str) -> bool:
    """Return True if an English text is a beginning of the premise, so that it follows from it.

    `All trains were late` is no beginning of `All trains were late except ours` in this sense.
    """
    words, whole = _telling(text), _telling(premise)
    is_start = _LEAST_BEGINNING <= len(words) < len(whole) and whole[: len(words)] == words
    return is_start and _RESTRICTING.isdisjoint(whole[len(words) :])


def _telling(text: str) -> list[str]:
    """Return the words of an English text that are not idle, verbs without the endings of tenses."""
    words = _HYPHEN.sub(" ", comparable(text)).split()
    return [re.sub("y$", "i", _TENSE.sub("", word)) for word in words if word not in _IDLE]


def _without_articles(text: str) -> str:
    """Return the comparable form without English articles."""
    return _ARTICLE.sub("", comparable(text))
