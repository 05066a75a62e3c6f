"""Triplets in progress, and their conversion to and from rows of `rows.WRITTEN`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from multicsr.llm.base import Completion, Rejection
from multicsr.prompts.demonstrations import Demonstration
from multicsr.rows import WRITING_REASONS, WRITTEN, Reason, normalise
from multicsr.stages.generate.cleaning import CleanedText, clean
from multicsr.stages.generate.hypothesis_rules import JUDGED, HypothesisRules

DIRECTIONS = ("entailment", "contradiction")
"""Names of the two hypotheses, which begin the names of their columns."""


@dataclass(slots=True)
class HypothesisInProgress:
    """One hypothesis of a triplet in progress, and its scores with the premise.

    The column of `text` has the name of the hypothesis, that of another attribute this name before it, such
    as `entailment_expected`.
    """

    text: str | None = None
    """Text after cleaning."""
    raw: str | None = None
    """Text as the LLM wrote it."""
    prompt: int | None = None
    """Index of the instruction in the pool of the prompt set."""
    expected: float | None = None
    stated: float | None = None
    reply: str | None = None
    """Reply of the LLM from which the stated score was read."""
    model: float | None = None
    """Score of an encoder, an NLI model or a package."""

    def clean(self, raw: str, premise: str) -> CleanedText:
        """Set the raw text and the text after cleaning; return what cleaning did."""
        cleaned = clean(raw, premise)
        self.raw, self.text = raw, cleaned.text
        return cleaned

    def columns(self, name: str) -> dict[str, str | int | float | None]:
        """Return the values of its columns; `name` is `entailment` or `contradiction`."""
        return {
            name: self.text,
            f"{name}_raw": None if self.text and normalise(self.raw or "") == self.text else self.raw,
            f"{name}_prompt": self.prompt,
            f"{name}_expected": self.expected,
            f"{name}_stated": self.stated,
            f"{name}_reply": self.reply,
            f"{name}_model": self.model,
        }


@dataclass(slots=True)
class TripletInProgress:
    """Premise with two hypotheses that are being written and scored: one row of `WRITTEN`."""

    premise: str
    row_id: str
    language: str
    omega: float
    prompts: str
    llm: str
    entailment: HypothesisInProgress = field(default_factory=HypothesisInProgress)
    contradiction: HypothesisInProgress = field(default_factory=HypothesisInProgress)
    generated_tokens: int | None = None
    rejection: Rejection | None = None
    is_written: bool = False
    """True if the hypotheses exist, or if the row is rejected without them."""
    is_scored: bool = False
    """True if it has valid scores, so that it need not be scored again."""
    demonstrations: tuple[Demonstration, ...] = ()
    """Labelled triplets in its prompts."""
    cleaning: list[str] = field(default_factory=list)
    """Names of the cleaning rules that changed its texts."""

    @property
    def hypotheses(self) -> tuple[HypothesisInProgress, HypothesisInProgress]:
        """Return both hypotheses, in the order of `DIRECTIONS`."""
        return self.entailment, self.contradiction

    def row(self) -> dict[str, str | int | float | None]:
        """Return the columns of the row."""
        return {
            "row_id": self.row_id,
            **self.entailment.columns("entailment"),
            **self.contradiction.columns("contradiction"),
            "generated_tokens": self.generated_tokens,
            "omega": self.omega,
            "prompts": self.prompts,
            "llm": self.llm,
            "reason": str(self.rejection.reason) if self.rejection else None,
            "detail": self.rejection.detail if self.rejection else None,
        }

    def take_completions(
        self, entailment: Completion, contradiction: Completion, rules: HypothesisRules
    ) -> None:
        """Take what the LLM has written; reject the row if it is cut off or breaks a rule."""
        self.generated_tokens = entailment.num_tokens + contradiction.num_tokens
        cleaned = self._clean((entailment.text, contradiction.text), rules)
        if self.rejection and self.rejection.reason is Reason.THINK_BLOCK:
            return
        for name, completion, text in zip(DIRECTIONS, (entailment, contradiction), cleaned, strict=True):
            if not (completion.finished or text.is_complete):
                self.rejection = Rejection(
                    Reason.UNFINISHED_HYPOTHESIS, f"{name}: {completion.num_tokens} tokens"
                )
                return

    def take_rows(self, rows: Sequence[Mapping[str, Any]], rules: HypothesisRules) -> None:
        """Take the hypotheses of the first of some existing WRITTEN rows, and the scores of any of them.

        The row is rejected if no scoring can save it. Scores are taken from the first row that has some and
        whose texts are these after cleaning.
        """
        self._take_hypotheses(rows[0], rules)
        for row in rows:
            if self.is_written and not self.is_scored and self._has_texts_of(row):
                self._take_scores(row)

    def _take_hypotheses(self, row: Mapping[str, Any], rules: HypothesisRules) -> None:
        """Take the texts of a row.

        They are cleaned again, and a reason that follows from them is decided again. An empty text without a
        raw text is no hypothesis: it was written when a line break at the beginning still ended a text.
        """
        if any(row[name] == "" and row[f"{name}_raw"] is None for name in DIRECTIONS):
            return
        if row["prompts"] != self.prompts:
            return  # The language of the row was detected anew, and has other prompts.
        for name, hypothesis in zip(DIRECTIONS, self.hypotheses, strict=True):
            hypothesis.text, hypothesis.prompt = row[name], row[f"{name}_prompt"]
        self.generated_tokens = row["generated_tokens"]
        if row["entailment"] is not None and row["contradiction"] is not None:
            raw = (row[name] if row[f"{name}_raw"] is None else row[f"{name}_raw"] for name in DIRECTIONS)
            self._clean(raw, rules)
        if row["reason"] in WRITING_REASONS and row["reason"] not in JUDGED:
            self.rejection = Rejection(Reason(row["reason"]), row["detail"])
        self.is_written = self.rejection is not None or self.entailment.text is not None

    def _has_texts_of(self, row: Mapping[str, Any]) -> bool:
        """Return True if a row was not rejected and has the same two hypotheses."""
        return row["reason"] is None and all(
            each.text == row[name] for name, each in zip(DIRECTIONS, self.hypotheses, strict=True)
        )

    def _take_scores(self, row: Mapping[str, Any]) -> None:
        """Take the scores of a WRITTEN row that was not rejected."""
        for name, hypothesis in zip(DIRECTIONS, self.hypotheses, strict=True):
            hypothesis.expected, hypothesis.stated = row[f"{name}_expected"], row[f"{name}_stated"]
            hypothesis.reply, hypothesis.model = row[f"{name}_reply"], row[f"{name}_model"]
            found = (hypothesis.expected, hypothesis.reply, hypothesis.model)
            self.is_scored |= any(each is not None for each in found)

    def _clean(self, raw: Iterable[str], rules: HypothesisRules) -> list[CleanedText]:
        """Clean both texts, and reject the row if they break a rule; return what cleaning did."""
        texts = list(raw)
        cleaned = [
            hypothesis.clean(text, self.premise)
            for hypothesis, text in zip(self.hypotheses, texts, strict=True)
        ]
        self.cleaning = [rule for each in cleaned for rule in each.rules]
        named = dict(zip(DIRECTIONS, zip(texts, cleaned, strict=True), strict=True))
        self.rejection = rules.rejection(self.premise, self.language, named, self.demonstrations)
        return cleaned


def take_existing(
    triplets: Iterable[TripletInProgress], rows: pa.Table | None, rules: HypothesisRules
) -> None:
    """Take the hypotheses and scores that exist for these triplets, given as WRITTEN rows.

    Of several rows of one sentence, the first with a raw text has the hypotheses: those of artifacts have
    none. Any of them may have the scores: those in the LLM cache may have been made under other settings.
    """
    known: dict[str, list[dict[str, Any]]] = {}
    for row in [] if rows is None else rows.to_pylist():
        known.setdefault(row["row_id"], []).append(row)
    for triplet in triplets:
        if found := known.get(triplet.row_id):
            triplet.take_rows(sorted(found, key=_has_raw, reverse=True), rules)


def _has_raw(row: Mapping[str, Any]) -> bool:
    """Return True if a row has a raw text of a hypothesis."""
    return any(row[f"{name}_raw"] is not None for name in DIRECTIONS)


def to_table(triplets: Sequence[TripletInProgress]) -> pa.Table:
    """Return the triplets as WRITTEN rows, in order."""
    return pa.Table.from_pylist([triplet.row() for triplet in triplets], schema=WRITTEN)
