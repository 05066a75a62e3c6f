"""Rules of other packages for hypotheses: `generate.reject_reasons` names their entry points.

The name of the entry point is the reason of the rows that the rule rejects.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from multicsr.config.reject_reasons import REJECT_REASONS
from multicsr.errors import RunError
from multicsr.extensions import Extension
from multicsr.llm.base import Rejection


class HypothesisRule(Protocol):
    """The object that an entry point of the group `multicsr.reject_reasons` names: a pure function."""

    def __call__(self, premise: str, hypothesis: str, language: str, /) -> str | None:
        """Return the evidence against a hypothesis, such as the words in question; None if there is none.

        Args:
            premise: the sentence that the LLM wrote for. A rule should not fire on what it has itself.
            hypothesis: what the LLM wrote, after cleaning.
            language: language tag of the row.
        """


class PackageRules:
    """The rules that `generate.reject_reasons` names, in its order. Thread-safe."""

    def __init__(self, names: Sequence[str]) -> None:
        """Import the packages of the rules.

        Raises:
            ConfigError: no package has a rule, or it cannot be imported or is no function of three arguments.
        """
        self._rules = [_load(name) for name in names]
        self._lock = threading.Lock()

    def rejection(self, premise: str, language: str, hypotheses: dict[str, str]) -> Rejection | None:
        """Return the reason to reject a row, or None.

        Args:
            premise: the premise.
            language: language tag of the row.
            hypotheses: text of each hypothesis by its name.

        Raises:
            RunError: a rule raises an exception, or returns neither a text nor None. That ends the run: it
                would be wrong about the rows that follow, too.
        """
        with self._lock:
            return next(self._found(premise, language, hypotheses), None)

    def _found(self, premise: str, language: str, hypotheses: dict[str, str]) -> Iterator[Rejection]:
        for extension, rule in self._rules:
            for name, text in hypotheses.items():
                with extension.calling():
                    evidence = rule(premise, text, language)
                if evidence is None:
                    continue
                if not isinstance(evidence, str):
                    raise RunError(f"{extension} returned {evidence!r}; a rule returns a text or None")
                yield Rejection(extension.name, f"{name}: {evidence}" if evidence else name)


def deciding_rules(names: Sequence[str]) -> list[str]:
    """Return each rule with its package and version, in the order in which they are asked."""
    return [f"{name} of {REJECT_REASONS.require(name).origin}" for name in names]


def _load(name: str) -> tuple[Extension, HypothesisRule]:
    extension = REJECT_REASONS.require(name)
    found = extension.load()
    extension.require_callable(found, 3)
    return extension, cast(HypothesisRule, found)
