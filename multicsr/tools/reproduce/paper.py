"""Types of the registry: a table or figure of the paper with its rows, columns and numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from multicsr.tools.methods import SEEDED, Method


class Origin(StrEnum):
    """Origins of the triplets that a row is trained on or that its method reads."""

    NONE = "none"
    PREMISES = "premises"
    """Sentences alone; no LLM writes anything."""
    SCORED = "scored"
    """All triplets that the LLM wrote, without stage 2."""
    CURATED = "curated"
    """The triplets that stage 2 keeps (MultiCSR Eq. 4)."""
    LABELLED = "labelled"
    """Human triplets alone."""
    LABELLED_AND_CURATED = "labelled and curated"
    """Both together (MultiCSR Appendix G)."""


WRITING = (Origin.PREMISES, Origin.SCORED, Origin.CURATED, Origin.LABELLED_AND_CURATED)
"""Origins that read unlabelled sentences."""
WRITTEN = (Origin.SCORED, Origin.CURATED, Origin.LABELLED_AND_CURATED)
"""Origins that an LLM writes for."""


class Measure(StrEnum):
    """The ways from the settings of a row to its figures."""

    TASKS = "tasks"
    """Encoders, trained or not, on labelled tasks; and an LLM that scores the pairs of these tasks."""
    CURATION = "curation"
    """Shares and scores of what an LLM wrote, without a training."""
    MASK = "mask"
    """Cosines under P between the rows of one batch."""
    COST = "cost"
    """Time and memory of a training."""
    EXAMPLES = "examples"
    """Hypotheses that the LLM writes for the premises of the paper."""


class Backbone(NamedTuple):
    """An encoder of the paper and the encoder P of its mask."""

    title: str
    encoder: str
    mask: str
    mask_pooling: str | None = "cls"
    """Pooling of P, as `train.mask.pooling`; None: its own modules."""


BACKBONES: Mapping[str, Backbone] = MappingProxyType(
    {
        "bert": Backbone(
            "BERT base", "google-bert/bert-base-uncased", "princeton-nlp/unsup-simcse-bert-base-uncased"
        ),
        "roberta": Backbone(
            "RoBERTa base", "FacebookAI/roberta-base", "princeton-nlp/unsup-simcse-roberta-base"
        ),
        "bert-supervised": Backbone(
            "BERT base, supervised",
            "google-bert/bert-base-uncased",
            "princeton-nlp/sup-simcse-bert-base-uncased",
        ),
        "roberta-supervised": Backbone(
            "RoBERTa base, supervised", "FacebookAI/roberta-base", "princeton-nlp/sup-simcse-roberta-base"
        ),
        "simcse-bert": Backbone(
            "SimCSE, BERT base",
            "princeton-nlp/unsup-simcse-bert-base-uncased",
            "princeton-nlp/unsup-simcse-bert-base-uncased",
        ),
        "simcse-roberta": Backbone(
            "SimCSE, RoBERTa base",
            "princeton-nlp/unsup-simcse-roberta-base",
            "princeton-nlp/unsup-simcse-roberta-base",
        ),
        "multilingual": Backbone(
            "multilingual BERT",
            "google-bert/bert-base-multilingual-cased",
            "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
            mask_pooling=None,
        ),
    }
)
"""Encoders of the paper by the names that rows give them. The paper names no encoder for Tagalog."""


class PaperNumber(NamedTuple):
    """A number of the paper, with the words of its text that hold it."""

    value: float
    quote: str


class PaperColumn(NamedTuple):
    """A column of a table: a task, or the mean of others."""

    name: str
    tasks: tuple[str, ...] = ()
    """Names of the files of the task, in small letters and without punctuation (`columns.plain`)."""
    parts: bool = False
    """Take the mean of all tasks whose name, or that of a folder, begins with one of `tasks`."""
    mean: bool = False
    """Take the mean of the columns before it, if all of them were measured."""


@dataclass(frozen=True)
class PaperRow:
    """A row: the settings by which it differs from the base of its table, and the paper's numbers."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings of the configuration by dotted name."""
    origin: Origin = Origin.CURATED
    method: Method = Method.MULTICSR
    encoder: str = "roberta"
    """Key of `BACKBONES`."""
    llm: str = "Flan-T5-XL"
    """LLM of the paper: Flan-T5-XL or ChatGPT."""
    source: str = "premises"
    """Unlabelled sentences: `premises`, `wikipedia`, `tagalog`, or `examples`, those of Table 12."""
    demonstrations: tuple[int, float] | None = None
    """Number L and least similarity lambda of the labelled triplets in the prompts (Table 10)."""
    copies: int = 0
    """Number of copies of one labelled triplet that are added to the others (Figure 4)."""
    scores_pairs: bool = False
    """The LLM itself scores the pairs of the tasks; nothing is trained."""
    line: str = ""
    """Name of the line of a figure that the row is a point of."""
    x: float | None = None
    """Position of that point."""
    numbers: Mapping[str, PaperNumber] = field(default_factory=dict)
    """Numbers of the paper's text by column."""
    missing: str = ""
    """Reason for which this package cannot run the row."""


@dataclass(frozen=True)
class PaperEntry:
    """A table or figure of the paper."""

    name: str
    """`table-1` to `table-13`, `figure-4` to `figure-7`."""
    title: str
    shows: str
    """Finding of the paper that it supports."""
    data: str
    """Data that it needs, and where they are published."""
    cost: str
    """Time at full scale."""
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]
    measure: Measure = Measure.TASKS
    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings of all rows, beside those of the scale."""
    on_dev: bool = False
    """Measured on `train.dev`, as the paper does, and not on the test sets."""
    sample: int | None = None
    """Number of sentences that are drawn from a source; None: all of them."""
    notes: tuple[str, ...] = ()
    """Statements about how far this is the paper's table."""
    stated: tuple[PaperNumber, ...] = ()
    """Numbers of the paper's text that belong to no single cell."""
    x_label: str = ""
    """Label of the x axis of a figure."""

    @property
    def needs_labelled(self) -> bool:
        """Return True if a row reads human triplets."""
        return any(row.origin in (Origin.LABELLED, Origin.LABELLED_AND_CURATED) for row in self.rows)

    def runnable(self) -> list[PaperRow]:
        """Return the rows that this package can run."""
        return [row for row in self.rows if not row.missing]

    @property
    def trains(self) -> bool:
        """Return True if an encoder is trained with every seed and measured."""
        rows = [row for row in self.runnable() if not row.scores_pairs]
        return self.measure == Measure.TASKS and any(row.method in SEEDED for row in rows)
