"""Cleaning of what an LLM wrote: the sentence itself, without what models write around it.

The rules are applied in the order of `CleaningRule`, and those for a line until none changes it. A rule that
would change the premise, too, is not applied to its hypotheses: in a corpus of quotes, lists, tickets or
program code these forms belong to the sentences. The raw text is kept in the LLM cache, so that new rules
need no new text of the LLM.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from multicsr.rows import normalise
from multicsr.stages.generate.comparison import comparable
from multicsr.stages.generate.labels import is_label_alone, label_length, names_premise

_MOST_PASSES = 5
"""Maximum number of times that the rules for a line are applied: wrappers are rarely nested deeper."""


class CleaningRule(StrEnum):
    """The rules by which texts are cleaned, in the order of their application."""

    THINK_BLOCK = "think_block"
    """A closed block `<think>...</think>`, its end alone, or a switch such as `/no_think` is removed."""
    SPECIAL_TOKEN = "special_token"
    """The text ends before a special token that was written as text, such as `<|im_end|>`."""
    PREAMBLE = "preamble"
    """A line that only announces the sentence or repeats the premise is skipped."""
    FIRST_LINE = "first_line"
    """The first line that is left is taken, the rest is dropped."""
    MARKDOWN = "markdown"
    """Marks of emphasis, headings, quotations and of the first item of a list are removed."""
    LABEL = "label"
    """Words that announce the sentence are removed up to their colon, such as `Output sentence:`."""
    QUOTES = "quotes"
    """Quotation marks around the whole sentence are removed, also one whose partner is missing."""


@dataclass(frozen=True, slots=True)
class CleanedText:
    """A text after cleaning."""

    text: str
    """One normalised line."""
    rules: tuple[CleaningRule, ...]
    """The rules that changed it, each once."""
    is_complete: bool
    """True if the LLM wrote more after this line, so that the token limit did not cut it off."""


_THINK = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>", re.IGNORECASE | re.DOTALL)
_THINK_END = re.compile(r"^.*</(?:think|thinking|thought|reasoning)>", re.IGNORECASE | re.DOTALL)
_THINK_SWITCH = re.compile(r"^\s*/(?:no_?)?think\b|/(?:no_?)?think\s*$", re.IGNORECASE)
_SPECIAL_TOKEN = re.compile(r"(?:<\|[A-Za-z_]+\|>|</s>|\[/?INST\]|<(?:end|start)_of_turn>).*", re.DOTALL)
_THINK_SIGN = re.compile(r"</?(?:think|thinking|thought|reasoning)>|/(?:no_?)?think\b", re.IGNORECASE)
_DECORATION = re.compile(r"\s*(?:```\w*|~~~\w*|[-*_=]{3,})\s*")
"""A line that holds a code fence or a rule and no text."""
_INTERJECTIONS = ("", "sure", "certainly", "of course", "okay", "ok", "absolutely")
"""Lines that only begin an answer."""
_LINE_MARK = re.compile(r"(?:#{1,6}|>|[-*•–—])\s+(?=\S)")
_FIRST_ITEM = re.compile(r"(1[.)]|\(1\)|\(?a\))\s+(?=\S)")
_STRONG = re.compile(r"(?<![\w*])\*\*(?=\S)([^*]+)(?<=\S)\*\*(?![\w*])")
_WRAPPED = re.compile(r"(\*{1,3}|_{1,3}|`{1,3})(\S[^*_`]*\s[^*_`]*\S)\1([.!?]?)")
_PARTNERS = {
    '"': '"',
    "'": "'",
    "“": "”",
    "‘": "’",
    "„": "“”",
    "«": "»",
    "»": "«",
    "‹": "›",
    "「": "」",
    "『": "』",
}
"""Opening quotation mark -> the marks that close it."""
_ORPHANS = '"“”„«»「」『』'
"""Quotation marks that are removed without a partner; others are apostrophes, too."""


def clean(raw: str, premise: str) -> CleanedText:
    """Return the sentence in what an LLM wrote.

    Args:
        raw: the text as the LLM wrote it.
        premise: the normalised premise; forms that it has itself are not removed.
    """
    fired: dict[CleaningRule, None] = {}
    for rule, cut, sign in _FOR_TEXTS:
        shorter = cut(raw)
        if shorter != raw and not sign.search(premise):
            raw, fired[rule] = shorter, None
    parts = re.split(r"[\r\n]+", raw)
    lines = [part for part in parts if part.strip() and not _DECORATION.fullmatch(part)]
    for number, line in enumerate(lines):
        text, rules = _clean_line(line, premise)
        is_last = number == len(lines) - 1
        if not is_last and _is_preamble(line, text, rules, premise):
            fired[CleaningRule.PREAMBLE] = None
            continue
        if not is_last:
            fired[CleaningRule.FIRST_LINE] = None
        fired |= dict.fromkeys(rules)
        return CleanedText(text, tuple(fired), not is_last or not parts[-1].strip())
    return CleanedText("", tuple(fired), is_complete=False)


def _cut_thought(text: str) -> str:
    """Remove closed think blocks, everything up to an end without a start, and switches."""
    return _THINK_SWITCH.sub("", _THINK_END.sub("", _THINK.sub("", text)))


def _cut_special(text: str) -> str:
    """Remove the first special token that was written as text, and what follows it."""
    return _SPECIAL_TOKEN.sub("", text)


def _is_preamble(line: str, text: str, rules: tuple[CleaningRule, ...], premise: str) -> bool:
    """Return True if a line only announces the sentence, or repeats the premise under a label.

    Args:
        line: the line as it was written.
        text: the line after cleaning.
        rules: the rules that changed it.
        premise: the premise.
    """
    if is_label_alone(text, premise) or comparable(text).strip(".:!,") in _INTERJECTIONS:
        return True
    return CleaningRule.LABEL in rules and names_premise(line) and comparable(text) == comparable(premise)


def _clean_line(line: str, premise: str) -> tuple[str, tuple[CleaningRule, ...]]:
    """Return a line after the rules for lines, and the rules that changed it."""
    text = normalise(line)
    fired: dict[CleaningRule, None] = {}
    for _ in range(_MOST_PASSES):
        before = text
        for rule, strip in _FOR_LINES:
            shorter = strip(text, premise).strip()
            if shorter != text and strip(premise, "") == premise:
                text, fired[rule] = shorter, None
        if text == before:
            break
    return text, tuple(fired)


def _strip_markdown(text: str, premise: str) -> str:
    """Remove marks of Markdown that concern the whole line, and strong emphasis anywhere."""
    if item := _FIRST_ITEM.match(text):
        text = text if item[1] in premise else text[item.end() :]
    elif mark := _LINE_MARK.match(text):
        text = text[mark.end() :]
    text = _STRONG.sub(r"\1", text)
    if wrapped := _WRAPPED.fullmatch(text):
        text = wrapped[2] + wrapped[3]
    return text


def _strip_label(text: str, premise: str) -> str:
    """Remove words that announce the sentence, up to their colon."""
    return text[label_length(text, premise) :]


def _strip_quotes(text: str, premise: str) -> str:
    """Remove quotation marks around the whole text, or one at an end whose partner is missing."""
    if len(text) < 2:
        return text
    partners = _PARTNERS.get(text[0], "")
    body, end = (text[1:-1], text[-1]) if text[-1] in ".,!?。！？" else (text[1:], "")
    if body and body[-1] in partners and not _quotes_within(body[:-1], text[0] + partners):
        inner = body[:-1]
        return inner if inner[-1:] in ".!?。！？" else inner + end.replace(",", "")
    marks = [mark for mark in text if mark in _ORPHANS]
    if len(marks) != 1 or text[-2:-1].isdigit():  # 5" is a length
        return text
    if text[0] == marks[0]:
        return text[1:]
    return text[:-1] if text[-1] == marks[0] else text


def _quotes_within(text: str, marks: str) -> bool:
    """Return True if one of these quotation marks occurs in the text other than as an apostrophe."""
    return any(
        mark in marks and not (mark in "'’" and 0 < place < len(text) - 1 and text[place - 1].isalnum())
        for place, mark in enumerate(text)
    )


_FOR_TEXTS: tuple[tuple[CleaningRule, Callable[[str], str], re.Pattern[str]], ...] = (
    (CleaningRule.THINK_BLOCK, _cut_thought, _THINK_SIGN),
    (CleaningRule.SPECIAL_TOKEN, _cut_special, _SPECIAL_TOKEN),
)
"""Rules for the whole text, each with the sign whose presence in the premise forbids it."""
_FOR_LINES: tuple[tuple[CleaningRule, Callable[[str, str], str]], ...] = (
    (CleaningRule.MARKDOWN, _strip_markdown),
    (CleaningRule.LABEL, _strip_label),
    (CleaningRule.QUOTES, _strip_quotes),
)
