"""The description of one training on one worker, and its result, as plain data."""

from dataclasses import dataclass
from pathlib import Path

from multicsr.artifacts import Merges
from multicsr.config import TrainConfig
from multicsr.stages.train.data.index import Index


@dataclass(frozen=True)
class TrainingJob:
    """The settings, the rows and the folders of one training on one worker."""

    config: TrainConfig
    seed: int
    """Seed of the batches, the dropout and the head."""
    run: str
    """Hash of everything that decides the model. A checkpoint of another run is rejected."""
    index: Index
    """Index of all rows."""
    device: str
    """Device of the training, such as `cpu` or `cuda`."""
    name: str
    """Name of the run, for trackers."""
    out: Path
    """Folder of `model/`, `train.jsonl`, the mask statistics and, during training, the checkpoints."""
    events: Path
    """Folder of this run's TensorBoard files."""
    kept_at: str | None = None
    """Folder to which files in `out` are copied for later workers, for messages; None: they are not."""
    encoder: Path | None = None
    """Directory of the encoder that `config.encoder` names; None: it is found by its name."""


@dataclass(frozen=True)
class FitResult:
    """The result of a finished training."""

    model_dir: Path
    """Sentence-transformers directory of the model."""
    steps: int
    """Number of optimizer steps done."""
    best_step: int
    """Step whose parameters are the trained ones; the last step if there is no dev evaluation."""
    best_dev: float | None
    """Dev score of these parameters; None if there is no dev evaluation."""
    num_left_out: int
    """Number of triplets left out because they contain the same sentence twice."""
    merges: Merges | None = None
    """Candidates from which dev chose, on worker 0; None: the trained parameters are kept."""

    def summary(self) -> str:
        """Return one line about the training."""
        best = f"{self.steps:,} steps"
        if self.best_dev is not None:
            best += f", best dev {self.best_dev:.2f} at step {self.best_step:,}"
        return f"{best}. {self.merges.sentence()}" if self.merges else best
