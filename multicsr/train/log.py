"""What a training leaves beside its model; the log has one line a step, one line a dev evaluation."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, TypeAdapter

ENCODER = "encoder"
"""The model itself, a sentence-transformers directory."""
LOG = "train.jsonl"
MASKED_PAIRS = "masked_pairs.json"
HISTOGRAM = "mask_similarities.json"


class Step(BaseModel):
    """One optimizer step."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    step: int
    """From 1."""
    epoch: int
    """From 1."""
    loss: float
    masked: float
    """Share of the N x 2N cells that the mask removed."""
    learning_rate: float
    seconds: float
    """Wall time of this step."""
    ingest_wait_s: float = 0.0
    """Of it, waiting for the batch to be read."""
    mask_wait_s: float = 0.0
    """Of it, waiting for P's vectors."""


class DevScore(BaseModel):
    """One evaluation on dev."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    step: int
    """Steps done before."""
    dev: float
    """100 x Spearman, or % of triplets ordered rightly."""
    best: bool
    """Better than all before."""


class MaskedPair(BaseModel):
    """A premise and another row's hypothesis that the mask took for a false negative."""

    anchor: str
    candidate: str
    similarity: float
    """Cosine under P."""


class Histogram(BaseModel):
    """Cosines under P of premises with other rows' hypotheses."""

    edges: list[float]
    """Of the bins, one more than there are bins."""
    counts: list[int]


class TrainLog:
    """Appends to a file; used as a context manager."""

    def __init__(self, path: Path, resume_after: int) -> None:
        """Open `path`, dropping what came after step `resume_after` (0: all of it): it will be done again."""
        old = read_log(path) if resume_after and path.exists() else []
        kept = [line for line in old if line.step <= resume_after]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(f"{line.model_dump_json()}\n" for line in kept), encoding="utf-8")
        temporary.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write_all(self, lines: Sequence[Step | DevScore]) -> None:
        self._file.writelines(line.model_dump_json() + "\n" for line in lines)
        self._file.flush()


def read_log(path: Path) -> list[Step | DevScore]:
    """Every complete line of a log, in order; a last line that is still being written is left out."""
    return parse_log(path.read_text(encoding="utf-8"))


def parse_log(text: str) -> list[Step | DevScore]:
    """The same of a log's text."""
    complete = text.rpartition("\n")[0]
    return [_Line.validate_json(line) for line in complete.splitlines()]


_Line: TypeAdapter[Step | DevScore] = TypeAdapter(Step | DevScore)
