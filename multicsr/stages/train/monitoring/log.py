"""The log of a running training. Its records are defined in `multicsr/artifacts.py`."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from multicsr.artifacts import CandidateScore, DevScore, Step
from multicsr.stages.train.callbacks import TrainingCallback


class TrainLog(TrainingCallback):
    """The callback that appends steps and scores to the log; a context manager, which closes the file."""

    def __init__(self, path: Path, num_bytes: int = 0) -> None:
        """Open the log and drop the lines after a checkpoint, because their steps will be done again.

        Args:
            path: the log.
            num_bytes: size of the part that is kept; 0: the log begins empty.
        """
        kept = path.read_bytes()[:num_bytes] if num_bytes else b""
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(kept)
        temporary.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        """Return the log."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def on_step(self, step: Step) -> None:
        """Append the record of a step."""
        self.write_all([step])

    def on_evaluation(self, score: DevScore) -> None:
        """Append the record of an evaluation."""
        self.write_all([score])

    def on_candidate(self, score: CandidateScore) -> None:
        """Append the record of a candidate."""
        self.write_all([score])

    def write_all(self, records: Sequence[Step | DevScore | CandidateScore]) -> None:
        """Append these records, one line each, and flush."""
        self._file.writelines(record.model_dump_json() + "\n" for record in records)
        self._file.flush()
