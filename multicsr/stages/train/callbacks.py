"""The protocol of callbacks, which the training loop calls after a step, an evaluation and a checkpoint."""

from collections.abc import Sequence
from typing import Protocol

from multicsr.artifacts import CandidateScore, DevScore, Step
from multicsr.stages.train.checkpoint import Checkpoint


class TrainingCallback(Protocol):
    """A receiver of the events of a training on one worker.

    A subclass overrides the methods that concern it. Evaluations and checkpoints are reported on worker 0
    only, candidates too, so these methods must not communicate with other workers.
    """

    def on_step(self, step: Step) -> None:
        """Handle a finished optimizer step."""
        return

    def on_evaluation(self, score: DevScore) -> None:
        """Handle a finished evaluation on dev."""
        return

    def on_candidate(self, score: CandidateScore) -> None:
        """Handle a measured candidate between the encoder as it was and the trained one."""
        return

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Handle the state from which a later worker can resume."""
        return


class CallbackList(TrainingCallback):
    """Several callbacks, called in their order."""

    def __init__(self, callbacks: Sequence[TrainingCallback]) -> None:
        """Set the callbacks."""
        self._callbacks = callbacks

    def on_step(self, step: Step) -> None:
        """Implement `TrainingCallback.on_step`."""
        for callback in self._callbacks:
            callback.on_step(step)

    def on_evaluation(self, score: DevScore) -> None:
        """Implement `TrainingCallback.on_evaluation`."""
        for callback in self._callbacks:
            callback.on_evaluation(score)

    def on_candidate(self, score: CandidateScore) -> None:
        """Implement `TrainingCallback.on_candidate`."""
        for callback in self._callbacks:
            callback.on_candidate(score)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Implement `TrainingCallback.on_checkpoint`."""
        for callback in self._callbacks:
            callback.on_checkpoint(checkpoint)
