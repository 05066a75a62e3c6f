"""The checkpoints of a folder. The two newest are kept: of a damaged one, the one before it is taken."""

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

from multicsr.artifacts import LOG
from multicsr.errors import DamagedFileError
from multicsr.stages.train import distributed
from multicsr.stages.train.callbacks import TrainingCallback
from multicsr.stages.train.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

PATTERN = "checkpoint-*.pt"
"""Glob pattern of the names of checkpoint files."""
_NAME = re.compile(r"(?:.*/)?checkpoint-(\d{8,})\.pt")
_KEPT = 2
"""Number of checkpoints that are kept."""


class CheckpointWriter(TrainingCallback):
    """The callback that writes checkpoints to a folder."""

    def __init__(self, folder: Path, keep: Callable[..., None]) -> None:
        """Set the folder.

        Args:
            folder: the folder of the checkpoints and of the log.
            keep: function that is called with the names of the files that a later worker needs.
        """
        self._folder, self._keep = folder, keep

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint; for the exceptions see `save_checkpoint`."""
        self._keep(LOG, *save_checkpoint(checkpoint, self._folder))


class CheckpointSchedule:
    """The time of the next checkpoint, by worker 0's clock. It reaches the other workers as a signal."""

    def __init__(self, every_s: float) -> None:
        """Start the clock; `every_s` is the number of seconds between two checkpoints."""
        self._every_s = every_s
        self.restart()

    def restart(self) -> None:
        """Start the clock again, after a checkpoint."""
        self._started, self.is_due = time.monotonic(), False

    def signal(self) -> float:
        """Return 1 on worker 0 when the time has come, otherwise 0."""
        has_passed = time.monotonic() - self._started >= self._every_s
        return float(has_passed and distributed.rank() == 0)

    def receive(self, signals: float) -> None:
        """Take note of the sum of all workers' signals."""
        self.is_due = self.is_due or signals > 0


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> list[str]:
    """Write a checkpoint, keep the one before it and delete older ones.

    Returns:
        The names of the checkpoints in `folder` afterwards, the newest first.

    Raises:
        RunError: the file cannot be written.
    """
    checkpoint.write(checkpoint_path(folder, checkpoint.step))
    paths = _paths(folder)
    for old in paths[_KEPT:]:
        old.unlink(missing_ok=True)
    return [kept.name for kept in paths[:_KEPT]]


def common_checkpoint(folder: Path, run: str, kept_at: str | None = None) -> Checkpoint | None:
    """Return the checkpoint from which all workers resume, the one that worker 0 finds; None: start anew.

    All workers call this together; for arguments and exceptions see `newest_checkpoint`.
    """
    found = newest_checkpoint(folder, run, folder / LOG, kept_at) if distributed.rank() == 0 else None
    step = distributed.from_first(found.step if found else None)
    if step is None or found is not None:
        return found
    return Checkpoint.load(checkpoint_path(folder, step), run, kept_at)


def newest_checkpoint(folder: Path, run: str, log: Path, kept_at: str | None = None) -> Checkpoint | None:
    """Return the newest checkpoint that is intact together with its part of the log; None if there is none.

    A damaged checkpoint is deleted and reported in a warning.

    Args:
        folder: the folder of the checkpoints.
        run: hash of the settings and triplets of the present run.
        log: the log of the training.
        kept_at: the folder from which the checkpoints were copied, for messages.

    Raises:
        SchemaError: another version of this package wrote the newest checkpoint.
        RunError: the newest checkpoint belongs to another run.
    """
    paths = _paths(folder)
    for number, path in enumerate(paths, start=1):
        try:
            checkpoint = Checkpoint.load(path, run, kept_at)
            checkpoint.log.check(log)
        except DamagedFileError as error:
            has_older = number < len(paths)
            remedy = "trying the checkpoint before it" if has_older else "the training starts anew"
            logger.warning("%s; %s", error, remedy)
            path.unlink(missing_ok=True)
        else:
            return checkpoint
    return None


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint after a step."""
    return folder / f"checkpoint-{step:08}.pt"


def delete_checkpoints(folder: Path) -> None:
    """Delete all checkpoints of a folder."""
    for path in _paths(folder):
        path.unlink(missing_ok=True)


def step_of(name: str) -> int | None:
    """Return the step in the name of a checkpoint; None for any other file."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def _paths(folder: Path) -> list[Path]:
    """Return the paths of the checkpoints in a folder, the newest first."""
    steps = {path: step for path in folder.glob(PATTERN) if (step := step_of(path.name)) is not None}
    return sorted(steps, key=lambda path: steps[path], reverse=True)
