"""Rules by which rows are rejected for the texts of their hypotheses alone."""

from multicsr.llm.base import Completion, Rejection
from multicsr.rows import Reason, normalise

HYPOTHESIS_RULES = 1
"""Version of the rules; raise it with every change of what they decide. It is among the settings of scoring:
after a change, hypotheses are checked again and not written again."""
JUDGED = (Reason.EMPTY_HYPOTHESIS, Reason.COPIED_HYPOTHESIS, Reason.SAME_HYPOTHESES)
"""Reasons that follow from the texts alone, so that existing hypotheses can be checked again."""


def hypothesis_rejection(premise: str, entailment: Completion, contradiction: Completion) -> Rejection | None:
    """Return the reason to reject a row by its hypotheses alone, or None.

    If several reasons apply, return the worst: empty, then unfinished, copied, both the same.
    """
    words = [normalise(text).casefold() for text in (premise, entailment.text, contradiction.text)]
    for name, text in (("entailment", words[1]), ("contradiction", words[2])):
        if not text:
            return Rejection(Reason.EMPTY_HYPOTHESIS, name)
    for name, completion in (("entailment", entailment), ("contradiction", contradiction)):
        if not completion.finished:
            return Rejection(Reason.UNFINISHED_HYPOTHESIS, f"{name}: {completion.num_tokens} tokens")
    for name, text in (("entailment", words[1]), ("contradiction", words[2])):
        if text == words[0]:
            return Rejection(Reason.COPIED_HYPOTHESIS, name)
    return Rejection(Reason.SAME_HYPOTHESES) if words[1] == words[2] else None
