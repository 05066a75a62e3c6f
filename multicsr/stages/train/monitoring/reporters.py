"""The callbacks that report a training: its log, its trackers, and its progress on the terminal."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from multicsr.artifacts import LOG, CandidateScore, DevScore, Step
from multicsr.observability.progress import Progress
from multicsr.stages.train import distributed
from multicsr.stages.train.callbacks import TrainingCallback
from multicsr.stages.train.job import TrainingJob
from multicsr.stages.train.monitoring.log import TrainLog
from multicsr.stages.train.monitoring.trackers import RayMetrics, Tracker, open_trackers


class ProgressReporter(TrainingCallback):
    """The callback that reports steps to a `Progress`."""

    def __init__(self, progress: Progress) -> None:
        """Set the receiver."""
        self._progress = progress

    def on_step(self, step: Step) -> None:
        """Report a step with its loss."""
        self._progress.advance(1, f"loss {step.loss:.3f}")

    def on_candidate(self, score: CandidateScore) -> None:
        """Report a candidate in a line of its own: no step is done."""
        self._progress.announce(str(score))


class TrackerReporter(TrainingCallback):
    """The callback that reports steps and scores to trackers."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        """Set the trackers."""
        self._trackers = trackers

    def on_step(self, step: Step) -> None:
        """Report a step."""
        self._write(step)

    def on_evaluation(self, score: DevScore) -> None:
        """Report a score."""
        self._write(score)

    def _write(self, record: Step | DevScore) -> None:
        """Write a record to every tracker."""
        for tracker in self._trackers:
            tracker.write([record])


@contextmanager
def open_reporters(
    job: TrainingJob, num_steps: int, done: int, log_bytes: int
) -> Iterator[list[TrainingCallback]]:
    """Yield the callbacks that write the log and the trackers; only worker 0 has any.

    When the block ends, the trackers are closed with the way in which it ended.

    Args:
        job: the training.
        num_steps: number of optimizer steps of the whole run.
        done: number of steps that are done already.
        log_bytes: size of the part of the log that describes them.

    Raises:
        ConfigError: see `open_trackers`.
        OSError: a file cannot be written.
    """
    if distributed.rank() != 0:
        yield []
        return
    with TrainLog(job.out / LOG, log_bytes) as log, ExitStack() as closing:
        trackers: list[Tracker] = []
        for tracker in _open_trackers(job, num_steps, done):
            closing.push(partial(_close_tracker, tracker))
            trackers.append(tracker)
        yield [log, TrackerReporter(trackers)]


def _open_trackers(job: TrainingJob, num_steps: int, done: int) -> Iterator[Tracker]:
    """Open and yield the trackers of a training, one after another."""
    yield RayMetrics(num_steps, done)
    yield from open_trackers(
        job.config,
        run=f"{job.name}-{job.run}",
        settings={**job.config.model_dump(mode="json"), "seed": job.seed},
        folder=job.events,
        resume_after=done,
    )


def _close_tracker(tracker: Tracker, kind: type[BaseException] | None, *_: object) -> None:
    """Close a tracker with the way in which the training ended.

    After a failed training, an OSError of the tracker is suppressed, so that it does not hide the first
    error.
    """
    if kind is None:
        tracker.close("FINISHED")
        return
    with suppress(OSError):
        tracker.close("FAILED" if issubclass(kind, Exception) else "KILLED")
