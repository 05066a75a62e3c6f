"""Demonstrations in a generation prompt: labelled premises with their hypotheses (MultiCSR Appendix G)."""

import re
from collections.abc import Sequence
from typing import NamedTuple

DEMONSTRATION_LAYOUT = 1
"""Version of the layout; raise it with every change of a prompt that has demonstrations."""
_QUOTES = {"'": "'", '"': '"', "“": "”", "\u2018": "\u2019", "«": "»", "「": "」"}
"""Quotation marks that an answer may stand in: the first one to the last one."""
_BREAK = re.compile(r"\n[ \t]*\n")
"""Blank line, which ends a paragraph."""


class Demonstration(NamedTuple):
    """A labelled triplet that is shown to the LLM."""

    premise: str
    entailment: str
    contradiction: str


def split_at_question(template: str, premise: re.Pattern[str]) -> tuple[str, str]:
    """Return a generation prompt as the text before its question, and the question.

    The question is the paragraph with the first field of the premise, and all that follows. Examples that a
    prompt set has itself stand before it.

    Args:
        template: a generation prompt whose fields are not filled.
        premise: matches the field of the premise.
    """
    field = premise.search(template)
    end = len(template) if field is None else field.start()
    start = max((match.end() for match in _BREAK.finditer(template, 0, end)), default=0)
    return template[:start], template[start:]


def answer_quotes(head: str, question: str, premise: re.Pattern[str]) -> tuple[str, str]:
    """Return the quotation marks around the answer of the last example of a prompt set; empty if it has none.

    Args:
        head: the text before the question, with the examples of the set.
        question: the question, whose field is not filled.
        premise: matches the field of the premise.
    """
    lead = premise.split(question)[-1].strip()
    if not lead or lead not in head:
        return "", ""
    answer = head.rpartition(lead)[2].strip().partition("\n")[0].rstrip()
    closing = _QUOTES.get(answer[:1], "")
    return (answer[0], closing) if closing and len(answer) > 1 and answer.endswith(closing) else ("", "")


def answered(question: str, hypothesis: str, stops: Sequence[str]) -> str:
    """Return a question with its answer, and a blank line.

    An answer that begins behind a quotation mark, which as a stop string would end what the LLM writes, is
    followed by it.
    """
    closing = next((stop for stop in stops if stop.strip() and question.endswith(stop)), "")
    blank = "" if closing or question[-1:].isspace() else " "
    return f"{question}{blank}{hypothesis}{closing}\n\n"
