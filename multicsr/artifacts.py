"""The names of files in artifacts, and the records in these files."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

ENCODER = "encoder"
"""Directory of the model, in the format of sentence-transformers."""
LABELLED_TRIPLETS = "labelled"
"""Directory of the triplets of `train.extra_triplets`, beside the encoder in the artifact `model`."""
LOG = "train.jsonl"
"""Log of a training, with one line for every step, every evaluation on dev, and every candidate between the
encoder as it was and the trained one."""
MASKED_PAIRS = "masked_pairs.json"
"""File of examples of masked pairs, a list of `MaskedPair`."""
MERGES = "merges.json"
"""File of the candidates between the encoder as it was and the trained one, a `Merges`."""
LABELLED_ROWS = "labelled_rows"
"""Counter of the labelled triplets that a model was trained on."""
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
    """True if the score is better than all earlier scores of the training; always False at step 0, the
    encoder as it was, which competes only when the training is done."""


class CandidateScore(FileRecord):
    """The record of one candidate between the encoder as it was and the trained one, when it is measured."""

    candidate: int
    """Number of the candidate, counted from 1."""
    candidates: int
    """Number of all candidates."""
    weight: float
    """Share of the trained parameters."""
    dev: float
    """Score on the data that choose."""

    def __str__(self) -> str:
        """Return the record as a line of progress."""
        return (
            f"candidate {self.candidate} of {self.candidates}, {self.weight:.0%} trained parameters: "
            f"{self.dev:.2f} on the data that choose"
        )


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


class MergeCandidate(FileRecord):
    """The record of one candidate for the encoder that a training gives."""

    weight: float
    """Share of the trained parameters: 0 the encoder as it was, 1 the trained one."""
    dev: float
    """Score on dev, or on held-out triplets, on which the best candidate is chosen."""
    kept: dict[str, float] = {}
    """Score on each task of `train.keep`."""
    same_similarities: float
    """100 x Spearman correlation of its cosines with those of the encoder as it was, over pairs of premises;
    100 where no pair changed its place. It has no part in the choice."""
    is_allowed: bool = True
    """False if it is worse on a task of `train.keep` than is tolerated."""


class Merges(FileRecord):
    """The candidates between the encoder as it was and the trained one, and the choice among them."""

    candidates: list[MergeCandidate]
    """Candidates by rising weight; the first is the encoder as it was, the last the trained one."""
    chosen: float
    """Weight of the candidate with the best score on dev among those that are allowed; the lowest weight if
    several are equal."""
    chosen_on: str = "dev"
    """Data that chose: dev, or triplets that were held out of the training."""
    low: float | None = None
    """Lower end of the interval at 95% of the difference that the winner makes on dev, by paired bootstrap
    over the examples; None: the encoder as it was has won."""
    high: float | None = None
    """Upper end of that interval."""
    tolerance: float | None = None
    """Points that a candidate may lose on a task of `train.keep`; None: there is no such task."""

    @property
    def winner(self) -> MergeCandidate:
        """Return the candidate that was chosen."""
        return next(each for each in self.candidates if each.weight == self.chosen)

    @property
    def has_helped(self) -> bool:
        """Return True if a trained or merged candidate was chosen."""
        return self.chosen > 0

    def sentence(self) -> str:
        """Return the choice as one sentence."""
        before, trained, winner = self.candidates[0].dev, self.candidates[-1].dev, self.winner.dev
        if not self.has_helped:
            among = "" if all(each.is_allowed for each in self.candidates) else " that train.keep allows"
            return (
                f"The training did not help: on {self.chosen_on} no candidate{among} is better than the "
                f"encoder as it was ({before:.2f}; trained {trained:.2f}), which is published unchanged."
            )
        what, alone = "The trained encoder", ""
        if self.chosen < 1:
            what = f"A merge of {self.chosen:.0%} trained and {1 - self.chosen:.0%} original parameters"
            alone = f", trained alone {trained:.2f}"
        return (
            f"{what} is the best on {self.chosen_on}: {winner:.2f}, before the training {before:.2f}"
            f"{alone}{self._chance()}."
        )

    def _chance(self) -> str:
        """Return whether the difference may be chance, as the end of a sentence."""
        if self.low is None or self.high is None:
            return ""
        interval = f"95% interval {self.low:+.2f} to {self.high:+.2f}"
        if self.low <= 0:
            return f"; the difference is within chance ({interval})"
        return f"; the difference has the {interval}"


def read_log(path: Path) -> list[Step | DevScore]:
    """Return the records of a log in order; a last line that is still being written is left out."""
    return parse_log(path.read_text(encoding="utf-8"))


def parse_log(text: str) -> list[Step | DevScore]:
    """Return the records of steps and evaluations in a log's text; see `read_log`.

    Candidates are left out: `Merges` has them.
    """
    complete = text.rpartition("\n")[0]
    records = [_Line.validate_json(line) for line in complete.splitlines()]
    return [record for record in records if not isinstance(record, CandidateScore)]


_Line: TypeAdapter[Step | DevScore | CandidateScore] = TypeAdapter(Step | DevScore | CandidateScore)
"""Parser of a line of the log."""
