"""MultiCSR Eq. 3 from text: the number a model states when asked for a score between 0.0 and 5.0.

Accepted, in this order, after mentions of the scale itself ("out of 5", "between 0.0 and 5.0") are gone:

    a number that opens the reply        4 | 4.5 | 4,5 | **4.5** | 4.0. They agree on 2 points | (a) 4
    a number after a label               Score: 4 | The similarity is about 3.5 | rated 4
    the only number in the reply         I would say 4
    a number word that is all of it      four

Not accepted: ranges, other scales (8/10, 80%), values outside [0, 5], several numbers without a label.
The authors' code accepts only `4` and `4.5` and drops all else uncounted.
"""

import re
from enum import StrEnum


class Unparsable(StrEnum):
    """Why a reply states no score."""

    NO_NUMBER = "no number"
    SEVERAL_NUMBERS = "several numbers"
    RANGE = "a range"
    OTHER_SCALE = "another scale"
    OUT_OF_RANGE = "outside 0 to 5"


_NUMBER = r"(?<![\w.,])[-+\u2212]?(?:\d+(?:[.,]\d+)?|\.\d+)(?!\w|[.,]\d)"
_ZERO = r"\b0(?:[.,]0+)?"
_FIVE = r"(?:5(?:[.,]0+)?|five)(?![\w%]|[.,]\d)"
_SCALE = re.compile(
    rf"(?:/|\b(?:out of|of|on))\s*(?:a\s+)?(?:(?:possible|maximum)\s+)?{_FIVE}(?:\s*points?\b)?"
    r"|(?:\b(?:on|using)\s+)?(?:\b(?:a|the)\s+)?(?:\bscale\s*)?(?:\b(?:of|from|between)\s*)?"
    rf"{_ZERO}\s*(?:-|\u2013|to|and)\s*{_FIVE}(?:\s+scale\b)?",
    re.IGNORECASE,
)
_OPENING = re.compile(rf"(?:\([ab]\)|[^\w.+\u2212-])*({_NUMBER})")
_LABELLED = re.compile(
    r"\b(?:score|scored|similarity|rating|rated|rate|answer)\b[^\d.+\u2212-]{0,40}?"
    rf"({_NUMBER})",
    re.IGNORECASE,
)
_RANGE = re.compile(r"\s*(?:-|\u2013|to|or|and)\s*\d", re.IGNORECASE)
_OTHER_SCALE = re.compile(r"\s*(?:%|percent\b|/\s*\d|out of\b)", re.IGNORECASE)
_WORDS = {word: float(i) for i, word in enumerate(("zero", "one", "two", "three", "four", "five"))}


def parse_score(reply: str) -> float | Unparsable:
    """The score a reply states, in [0, 5], or why it states none."""
    text = _SCALE.sub(" ", reply)
    match = _OPENING.match(text) or _LABELLED.search(text)
    if match is None:
        found = list(re.finditer(f"({_NUMBER})", text))
        if not found:
            return _WORDS.get(text.strip(" .*\n").lower(), Unparsable.NO_NUMBER)
        if len({number.group(1) for number in found}) > 1:
            return Unparsable.SEVERAL_NUMBERS
        match = found[0]
    rest = text[match.end(1) :]
    if _RANGE.match(rest):
        return Unparsable.RANGE
    if _OTHER_SCALE.match(rest):
        return Unparsable.OTHER_SCALE
    value = float(match.group(1).replace(",", ".").replace("\u2212", "-"))
    return value if 0 <= value <= 5 else Unparsable.OUT_OF_RANGE
