"""Stated scores, MultiCSR Eq. 3: parse the number in a reply to a prompt for a score between 0.0 and 5.0.

A number counts only if it cannot mean anything else. First, text that is not a score is removed from the
reply: mentions of the scale ("out of 5", "between 0.0 and 5.0", "(0 = none, 5 = same)"), quotations and
emphasis. Then these numbers count:

    label      a number after a label that leads to it   Score: 4 | The similarity (0-5) is about 3.5
    statement  a number after a verb of saying           I would say 4 | I'd give it a 4.5
    line       a number that is a whole line             4 | 4.5. | about 4 | (a) 4
    opening    a number that opens the reply and is      4.0. They agree on 2 points | 4 because both ... |
               set off from an explanation               4 - they mean almost the same
    word       a number word that is the whole reply     four

A number must be followed by the end of a line or a sentence, or by an explanation ("because"), and not by a
noun ("2 sentences"). A whole number with a dot, bracket or colon at the start of a line may number a list
("1. The first") and does not count. All numbers that count must be equal; a reply with different ones, a
range, another scale or a value outside the scale states no score. The scale is 0 to 5, or 0 to the
`score_scale` of the prompt set. The authors' code accepts only whole replies of the form `4` or `4.5`.
"""

import re
from enum import StrEnum
from functools import cache

PARSER = 2
"""Version of this grammar; raise it with every change. It is among the settings that decide the scores."""
OTHER_SCALES = 1
"""Version of what is different where the scale does not end at 5; it counts for prompt sets with such a scale
only, so that a change of it leaves the scores of the others as they are."""


class Unparsable(StrEnum):
    """Reason why a reply states no score."""

    NO_NUMBER = "no number"
    SEVERAL_NUMBERS = "several numbers"
    AMBIGUOUS = "a number that need not be a score"
    RANGE = "a range"
    OTHER_SCALE = "another scale"
    OUT_OF_RANGE = "outside 0 to 5"


_NUMBER = (
    r"(?<![\w.,/:$\u20ac\u00a3#-])[-+\u2212]?(?:[0-9]+(?:[.,][0-9]{1,2}(?![0-9]))?|\.[0-9]+)"
    r"(?![\w\u2070-\u209c]|[.,:][0-9])"
)
_ZERO = r"\b0(?:[.,]0+)?"
_LEGEND = re.compile(r"\([^()\n]*[0-9]\s*(?:=|:|means\b|is\b|being\b)[^()\n]*\)", re.IGNORECASE)
_QUOTED = re.compile(
    r"(?<!\w)\'(?=[^\'\n]*[^\W\d_])[^\n]*?\'(?!\w)"
    r'|"(?=[^"\n]*[^\W\d_])[^"\n]*"(?!\s*:)'
    "|\u201c[^\u201d\\n]*\u201d|\u2018[^\u2019\\n]*\u2019|\u00ab[^\u00bb\\n]*\u00bb"
    "|\u201e[^\u201c\u201d\\n]*[\u201c\u201d]|\u300c[^\u300d\\n]*\u300d"
)
_EMPHASIS = re.compile(r"[*_`~\u2248]+|^[ \t]*(?:#+|>+)[ \t]+", re.MULTILINE)
_QUOTE_MARKS = "\"'\u201c\u201d\u2018\u2019\u00ab\u00bb"
_ABOUT = r"(?:(?:about|around|approximately|approx\.?|roughly|an?|exactly)\s+)?"
_OPEN, _CLOSE = rf"[{_QUOTE_MARKS}(\[{{<]*", rf"[{_QUOTE_MARKS})\]}}>]*"
_BECAUSE = r"(?:because|since|due to|given that)"
_END = (
    rf"(?={_CLOSE}\s*(?:points?\b|stars?\b)?{_CLOSE}\s*"
    rf"(?:\Z|\n|[.!?;](?:\s|\Z)|,\s*(?![-+.0-9])|\s(?:as they|{_BECAUSE})\b|\s[-\u2013\u2014]\s|\())"
)
_LED = rf"[^0-9.!?;\n]{{0,80}}?(?:[:=]|\b(?:is|at|of|as|be|with|a)\b|(?<=\w))\s*{_OPEN}\s*{_ABOUT}"
_LABEL = re.compile(
    r"\b(?P<label>score|scored|similarity|rating|rated|rate|answer|grade)\b"
    rf"(?P<between>{_LED})(?P<number>{_NUMBER}){_END}",
    re.IGNORECASE,
)
_STATEMENT = re.compile(
    r"\b(?P<label>say|give|assign|estimate|guess|choose|pick)\b"
    rf"(?P<between>[^0-9.!?;\n]{{0,40}}?\s{_OPEN})(?P<number>{_NUMBER}){_END}",
    re.IGNORECASE,
)
_LINE = re.compile(
    rf"^\s*(?:\([ab]\)\s*)?[:=]?\s*{_OPEN}\s*{_ABOUT}(?P<number>{_NUMBER})"
    rf"{_CLOSE}\s*(?:points?|stars?)?{_CLOSE}\s*[.!]?\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_OPENING = re.compile(
    rf"\A\s*{_OPEN}{_ABOUT}(?P<number>{_NUMBER}){_CLOSE}\s*(?P<after>[.,;](?=\s)|\s*[-\u2013\u2014]\s"
    rf"|\([^()\n]*\)\.?\s*\Z|(?:points?,?\s+)?{_BECAUSE}\b)",
    re.IGNORECASE,
)
_OTHER_MEANING = re.compile(
    r"\b(?:not|never|if|less|more|fewer|lower|higher|below|above|under|over|least|most|than|minus|could|might"
    r"|should)\b|\bsentences?\s*$|n\'t\b|[<>]\s*$",
    re.IGNORECASE,
)
_RANGE = re.compile(r"[0-9]\s*(?:-|\u2013|\bto\b|\bor\b)\s*[0-9]", re.IGNORECASE)
_OTHER_SCALE = re.compile(r"[0-9]\s*(?:%|percent\b|/\s*[0-9]|out of\b)", re.IGNORECASE)
_ANY = re.compile(_NUMBER)
_LONGEST = 2000
"""Number of characters of a reply that are read."""
_REFERENCE = re.compile(r"[0-5](?:\.[0-9])?")
"""Replies from which the authors' public code reads a score."""
HIGHEST = 5.0
"""Highest score."""
_WORDS = {word: float(i) for i, word in enumerate(("zero", "one", "two", "three", "four", "five"))}


def parse_score(reply: str, scale: float = HIGHEST) -> float | Unparsable:
    """Return the score that a reply states, in [0, `scale`], or the reason why it states none."""
    without_scale = _mention_of_scale(scale).sub(" ", reply[:_LONGEST])
    text = _QUOTED.sub(" X ", _EMPHASIS.sub("", _LEGEND.sub(" ", without_scale)))
    word = _WORDS.get(text.strip(f" .!:\n{_QUOTE_MARKS}").lower())
    values = {_value(number) for number in _stated(text)} if word is None else {word}
    if len(values) == 1:
        [value] = values
        return value if 0 <= value <= scale else Unparsable.OUT_OF_RANGE
    return Unparsable.SEVERAL_NUMBERS if values else _why_not(text)


def parse_reference_score(reply: str, scale: float = HIGHEST) -> float | Unparsable:
    """Return the score of a reply as the authors' public code reads it: `4` or `4.5`, and nothing else.

    The code also takes 5.1 to 5.9 for scores. They are above the scale of the prompt, so here they are none.
    """
    if not _REFERENCE.fullmatch(reply):
        return _why_not(reply[:_LONGEST])
    return float(reply) if float(reply) <= scale else Unparsable.OUT_OF_RANGE


@cache
def _mention_of_scale(scale: float) -> re.Pattern[str]:
    """Return the pattern of text that names the scale or its upper end."""
    # "of" and "on" alone lead to the upper end of another scale too seldom: "a score of 1" is a score.
    leads = r"out of|of|on" if scale == HIGHEST else r"out of"
    words = "".join(f"|{word}" for word, value in _WORDS.items() if value == scale)
    whole, _, decimals = f"{scale:g}".partition(".")
    digits = rf"{whole}[.,]{decimals}0*" if decimals else rf"{whole}(?:[.,]0+)?"
    top = rf"(?:{digits}{words})(?![\w%]|[.,][0-9])"
    return re.compile(
        rf"(?:/|\b(?:{leads}))\s*(?:a\s+)?(?:(?:possible|maximum)\s+)?{top}(?:\s*(?:points?|stars?)\b)?"
        r"|(?:\b(?:on|using)\s+)?(?:\b(?:a|the)\s+)?(?:\bscale\s*)?(?:\b(?:of|from|between)\s*)?"
        rf"{_ZERO}\s*(?:-|\u2013|to|and)\s*{top}(?:\s+scale\b)?",
        re.IGNORECASE,
    )


def _stated(text: str) -> list[str]:
    """Return the numbers that can only be scores."""
    labelled = [
        match["number"]
        for pattern in (_LABEL, _STATEMENT)
        for match in pattern.finditer(text)
        if not _OTHER_MEANING.search(_sentence_before(match, text)) and not _may_number_a_list(match, text)
    ]
    lines = [match["number"] for match in _LINE.finditer(text) if not _may_head_a_list(match, text)]
    opening = _OPENING.match(text)
    if opening is not None and _is_set_off(opening, text):
        lines.append(opening["number"])
    return labelled + lines


def _sentence_before(match: re.Match[str], text: str) -> str:
    """Return the text before a number in its sentence."""
    return re.split(r"[.!?;\n]\s", text[: match.start("number")])[-1]


def _may_number_a_list(match: re.Match[str], text: str) -> bool:
    """Return True if a match may be the number of a list item, like "Answer: 1. The first ..."."""
    is_whole = match["number"].isdigit()
    return (
        is_whole and match["label"].lower() == "answer" and bool(re.match(r"[.)]\s+\w", text[match.end() :]))
    )


def _may_head_a_list(match: re.Match[str], text: str) -> bool:
    """Return True if a line "1." may number the text on the next line."""
    is_whole = match["number"].isdigit()
    return is_whole and match[0].rstrip().endswith(".") and bool(text[match.end() :].strip())


def _is_set_off(match: re.Match[str], text: str) -> bool:
    """Return True if the number that opens a reply can only be a score.

    It must not be able to number a list, to count things, or to be one of several numbers.
    """
    number, after = match["number"], match["after"].strip()
    if after[:1].isalpha():
        return True
    if after == ".":
        return not number.isdigit()
    is_alone = not _ANY.search(text[match.end("number") :])
    return is_alone and not (after in ("-", "\u2013", "\u2014") and number in ("0", "1"))


def _why_not(text: str) -> Unparsable:
    """Return the reason why no number of a reply counts."""
    numbers = _ANY.findall(text)
    if _OTHER_SCALE.search(text):
        return Unparsable.OTHER_SCALE
    if _RANGE.search(text):
        return Unparsable.RANGE
    if not numbers:
        return Unparsable.NO_NUMBER
    return Unparsable.AMBIGUOUS if len(set(numbers)) == 1 else Unparsable.SEVERAL_NUMBERS


def _value(number: str) -> float:
    """Return the value of a number, whose decimal mark may be a comma."""
    return float(number.replace(",", ".").replace("\u2212", "-")) + 0.0  # -0 is 0
