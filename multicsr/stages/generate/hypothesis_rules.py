"""Rules by which rows are rejected for the texts of their hypotheses alone.

Each rule has a reason of its own. A rule is judged relative to the premise: what the premise has itself is no
fault of its hypotheses.
"""

import re
from collections.abc import Sequence

from multicsr.llm.base import Rejection
from multicsr.prompts import PromptSet
from multicsr.prompts.demonstrations import Demonstration
from multicsr.rows import Reason
from multicsr.stages.generate.cleaning import CleanedText
from multicsr.stages.generate.comparison import comparable, is_beginning, is_copy, is_near_copy
from multicsr.stages.generate.demonstrations import demonstrations, forms_of
from multicsr.stages.generate.languages import ENGLISH_TAGS, other_language, primary_tag
from multicsr.stages.generate.phrases import find_declining, find_talk
from multicsr.stages.generate.rules_of_packages import PackageRules

HYPOTHESIS_RULES = 4
"""Version of the rules, of cleaning and of judging; raise it with every change of what they decide. It is
among the settings of scoring: after a change, hypotheses are cleaned and checked again. They are not written
again, and scored only if their texts change."""
JUDGED = (
    Reason.THINK_BLOCK,
    Reason.EMPTY_HYPOTHESIS,
    Reason.CONTROL_CHARACTERS,
    Reason.DEMONSTRATION_COPIED,
    Reason.DECLINED,
    Reason.META_TALK,
    Reason.LIST,
    Reason.COPIED_HYPOTHESIS,
    Reason.WRONG_LANGUAGE,
    Reason.SAME_HYPOTHESES,
)
"""Reasons that follow from the texts alone, so that existing hypotheses can be checked again."""
_ORDER: dict[str, int] = {reason: place for place, reason in enumerate(JUDGED)}
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd\ufffe\uffff]")
"""Control characters that are not white space, U+FFFD (bytes that are no text), and noncharacters."""
_LETTER = re.compile(r"[^\W\d_]")
_THINK_TAG = re.compile(r"</?(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_ITEM = re.compile(r"(?:^|[\r\n]|(?<=[.!?;:] ))\s*(?:[-*•–]|\(?(?:\d{1,2}|[a-d])[.)])\s+(?=\S)")
"""Start of an item of a list: at the start of a line, or after the end of a sentence."""


class HypothesisRules:
    """The rules for the hypotheses that were written with one prompt set, and those of other packages."""

    def __init__(self, prompts: PromptSet, reject_reasons: Sequence[str] = ()) -> None:
        """Prepare the rules.

        Args:
            prompts: the prompt set.
            reject_reasons: names of rules of other packages.

        Raises:
            ConfigError: see `PackageRules`.
        """
        self._demonstrations = demonstrations(prompts)
        self._of_packages = PackageRules(reject_reasons)

    def rejection(
        self,
        premise: str,
        language: str,
        hypotheses: dict[str, tuple[str, CleanedText]],
        shown: Sequence[Demonstration] = (),
    ) -> Rejection | None:
        """Return the reason to reject a row by its hypotheses alone, or None.

        If several reasons apply, the first one in the order of `JUDGED` is returned; those of packages
        come last.

        Args:
            premise: the premise.
            language: language tag of the row.
            hypotheses: the raw and the cleaned text of each hypothesis, by its name.
            shown: demonstrations in the prompts of the row.
        """
        examples = self._demonstrations | forms_of(text for each in shown for text in each)
        found = [
            (_ORDER[rejection.reason], rejection)
            for name, (raw, cleaned) in hypotheses.items()
            if (rejection := _judge(name, premise, language, raw, cleaned.text, examples))
        ]
        if found:
            return min(found, key=lambda each: each[0])[1]
        forms = {comparable(cleaned.text) for _, cleaned in hypotheses.values()}
        if len(forms) < len(hypotheses):
            return Rejection(Reason.SAME_HYPOTHESES)
        texts = {name: cleaned.text for name, (_, cleaned) in hypotheses.items()}
        return self._of_packages.rejection(premise, language, texts)


def _judge(
    name: str, premise: str, language: str, raw: str, text: str, examples: frozenset[str]
) -> Rejection | None:
    """Return the first reason against one hypothesis; the detail names hypothesis and evidence."""
    if rejection := _unusable(name, premise, raw, text):
        return rejection
    form = comparable(text)
    if form in examples and comparable(premise) not in examples:
        return Rejection(Reason.DEMONSTRATION_COPIED, name)
    if evidence := find_declining(text, premise):
        return Rejection(Reason.DECLINED, f"{name}: {evidence}")
    if evidence := find_talk(text, premise):
        return Rejection(Reason.META_TALK, f"{name}: {evidence}")
    if (items := len(_ITEM.findall(raw))) > 1 and not _ITEM.search(premise):
        return Rejection(Reason.LIST, f"{name}: {items} items")
    is_english = primary_tag(language) in ENGLISH_TAGS
    if is_copy(text, premise) or (is_english and is_near_copy(text, premise)):
        return Rejection(Reason.COPIED_HYPOTHESIS, name)
    if name == "contradiction" and is_english and is_beginning(text, premise):
        return Rejection(Reason.COPIED_HYPOTHESIS, f"{name}: the beginning of the sentence")
    if found := other_language(premise, text, language):
        return Rejection(Reason.WRONG_LANGUAGE, f"{name}: {found}")
    return None


def _unusable(name: str, premise: str, raw: str, text: str) -> Rejection | None:
    """Return the reason to reject a hypothesis that is no text of words, or None."""
    if _THINK_TAG.search(text) and not _THINK_TAG.search(premise):
        return Rejection(Reason.THINK_BLOCK, name)
    if not comparable(text):
        reason = Reason.THINK_BLOCK if _THINK_TAG.search(raw) else Reason.EMPTY_HYPOTHESIS
        return Rejection(reason, name)
    if control := _CONTROL.search(text):
        return Rejection(Reason.CONTROL_CHARACTERS, f"{name}: U+{ord(control.group()):04X}")
    if _LETTER.search(premise) and not _LETTER.search(text):
        return Rejection(Reason.EMPTY_HYPOTHESIS, f"{name}: no letter")
    return None
