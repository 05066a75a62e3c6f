"""Triplets in progress, and their conversion to and from rows of `rows.WRITTEN`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from multicsr.llm.base import Completion, Rejection
from multicsr.rows import WRITING_REASONS, WRITTEN, Reason
from multicsr.stages.generate.hypothesis_rules import JUDGED, hypothesis_rejection

DIRECTIONS = ("entailment", "contradiction")
"""Names of the two hypotheses, which begin the names of their columns."""


@dataclass(slots=True)
class HypothesisInProgress:
    """One hypothesis of a triplet in progress, and its scores with the premise.

    The column of `text` has the name of the hypothesis, that of another attribute this name before it, such
    as `entailment_expected`.
    """

    text: str | None = None
    prompt: int | None = None
    """Index of the instruction in the pool of the prompt set."""
    expected: float | None = None
    stated: float | None = None
    reply: str | None = None
    """Reply of the LLM from which the stated score was read."""

    def columns(self, name: str) -> dict[str, str | int | float | None]:
        """Return the values of its columns; `name` is `entailment` or `contradiction`."""
        return {
            name: self.text,
            f"{name}_prompt": self.prompt,
            f"{name}_expected": self.expected,
            f"{name}_stated": self.stated,
            f"{name}_reply": self.reply,
        }


@dataclass(slots=True)
class TripletInProgress:
    """Premise with two hypotheses that are being written and scored: one row of `WRITTEN`."""

    premise: str
    row_id: str
    omega: float
    prompts: str
    llm: str
    entailment: HypothesisInProgress = field(default_factory=HypothesisInProgress)
    contradiction: HypothesisInProgress = field(default_factory=HypothesisInProgress)
    generated_tokens: int | None = None
    rejection: Rejection | None = None
    is_written: bool = False
    """True if the hypotheses exist, or if the row is rejected without them."""

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
            "reason": self.rejection.reason.value if self.rejection else None,
            "detail": self.rejection.detail if self.rejection else None,
        }

    def take_hypotheses(self, row: Mapping[str, Any]) -> None:
        """Take over the hypotheses of an existing WRITTEN row, and reject it if no scoring can save it.

        Its scores are not taken over. A reason that follows from the texts alone is decided again.
        """
        for name, hypothesis in zip(DIRECTIONS, self.hypotheses, strict=True):
            hypothesis.text, hypothesis.prompt = row[name], row[f"{name}_prompt"]
        self.generated_tokens = row["generated_tokens"]
        if row["reason"] in WRITING_REASONS and row["reason"] not in JUDGED:
            self.rejection = Rejection(Reason(row["reason"]), row["detail"])
        elif row["entailment"] is not None:
            texts = (Completion(row[name], 0, finished=True) for name in DIRECTIONS)
            self.rejection = hypothesis_rejection(self.premise, *texts)
        self.is_written = self.rejection is not None or self.entailment.text is not None


def take_existing(triplets: Iterable[TripletInProgress], rows: pa.Table | None) -> None:
    """Take over the hypotheses that exist for these triplets, given as WRITTEN rows."""
    known = {} if rows is None else {row["row_id"]: row for row in rows.to_pylist()}
    for triplet in triplets:
        if triplet.row_id in known:
            triplet.take_hypotheses(known[triplet.row_id])


def to_table(triplets: Sequence[TripletInProgress]) -> pa.Table:
    """Return the triplets as WRITTEN rows, in order."""
    return pa.Table.from_pylist([triplet.row() for triplet in triplets], schema=WRITTEN)
