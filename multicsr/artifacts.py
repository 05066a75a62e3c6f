"""The names of files in artifacts, and the records in these files."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

ENCODER = "encoder"
"""Directory of the model, in the format of sentence-transformers."""
LOG = "train.jsonl"
"""Log of a training, with one line for every step and one for every evaluation on dev."""
MASKED_PAIRS = "masked_pairs.json"
"""File of examples of masked pairs, a list of `MaskedPair`."""
HISTOGRAM = "mask_similarities.json"
"""File of the distribution of P's cosines, a `Histogram`."""


class FileRecord(BaseModel):
    """A record that is written to a file. It is immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Step(FileRecord):
    """The record of one optimizer step."""

    step: int
    """Number of the step, counted from 1."""
    epoch: int
    """Number of the epoch, counted from 1."""
    loss: float
    """Loss of the global batch; the mean if the step has several batches."""
    masked: float
    """Share of the N x 2N cells that the mask removed."""
    learning_rate: float
    """Learning rate of this step."""
    seconds: float
    """Wall time of this step in seconds."""
    ingest_wait_s: float = 0.0
    """Part of the wall time spent waiting for the batch to be read."""
    mask_wait_s: float = 0.0
    """Part of the wall time spent waiting for P's vectors."""


class DevScore(FileRecord):
    """The record of one evaluation on dev."""

    step: int
    """Number of steps done before the evaluation."""
    dev: float
    """100 x Spearman correlation, or the percentage of triplets that are ordered correctly."""
    best: bool
    """True if the score is better than all earlier scores, step 0 excepted; always False at step 0."""


class MaskedPair(FileRecord):
    """A premise and another row's hypothesis that the mask treated as a false negative."""

    anchor: str
    """The premise."""
    candidate: str
    """The hypothesis."""
    similarity: float
    """Cosine under P."""


class Histogram(FileRecord):
    """The distribution of the cosines under P of premises with other rows' hypotheses."""

    edges: list[float]
    """Edges of the bins, one more than there are bins."""
    counts: list[int]
    """Number of cosines in each bin."""


def read_log(path: Path) -> list[Step | DevScore]:
    """Return the records of a log in order; a last line that is still being written is left out."""
    return parse_log(path.read_text(encoding="utf-8"))


def parse_log(text: str) -> list[Step | DevScore]:
    """Return the records of a log's text; see `read_log`."""
    complete = text.rpartition("\n")[0]
    return [_Line.validate_json(line) for line in complete.splitlines()]


_Line: TypeAdapter[Step | DevScore] = TypeAdapter(Step | DevScore)
"""Parser of a line of the log."""
