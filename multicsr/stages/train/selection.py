"""The selection of the best parameters on dev, and early stopping."""

from collections.abc import Callable

from multicsr.artifacts import DevScore
from multicsr.stages.train import distributed
from multicsr.stages.train.checkpoint import Best, Checkpoint
from multicsr.stages.train.engines.base import Tensors
from multicsr.stages.train.monitoring.dev_evaluation import Evaluator


class ModelSelection:
    """The dev evaluations of one training. Worker 0 evaluates; the other workers only ask `is_over`."""

    def __init__(
        self, evaluator: Callable[[], Evaluator] | None, patience: int | None, checkpoint: Checkpoint | None
    ) -> None:
        """Start the evaluation on worker 0.

        Args:
            evaluator: function that starts it; None: nothing is evaluated, and the last parameters are kept.
            patience: number of evaluations without improvement after which the training ends; None: never.
            checkpoint: the state that is resumed; None: a new start.
        """
        self.is_active = evaluator is not None
        """True if the parameters are evaluated, on all workers."""
        self.best: Best | None = checkpoint.best if checkpoint else None
        """Parameters with the best score so far, on worker 0; None: no score yet."""
        self.num_not_better = checkpoint.not_better if checkpoint else 0
        """Number of evaluations since the best one."""
        self._patience = patience
        self._evaluator = evaluator() if evaluator and distributed.rank() == 0 else None
        self._pending: tuple[int, Tensors] | None = None

    def start(self, step: int, weights: Tensors) -> None:
        """Start the evaluation of the parameters after `step` steps."""
        if self._evaluator is not None:
            self._evaluator.start(weights)
            self._pending = step, weights

    def is_ready(self) -> bool:
        """Return True if an evaluation has finished; always False on other workers than worker 0."""
        return self._pending is not None and self._evaluator is not None and self._evaluator.is_ready()

    def finish(self) -> DevScore | None:
        """Wait for the pending evaluation and keep its parameters if they are the best so far.

        Returns:
            The score; None if no evaluation was pending.
        """
        if self._pending is None or self._evaluator is None:
            return None
        (step, weights), self._pending = self._pending, None
        dev = self._evaluator.result()
        # The encoder as it was (step 0) competes when the training is done (`merging.py`). Until then it must
        # neither end the run nor be kept as its best state.
        is_best = step > 0 and (self.best is None or dev > self.best.dev)
        if is_best:
            self.best, self.num_not_better = Best(step, dev, weights), 0
        elif step > 0:
            self.num_not_better += 1
        return DevScore(step=step, dev=dev, best=is_best)

    def is_over(self) -> bool:
        """Return True if the score has not improved for `patience` evaluations. All workers call it."""
        if self._patience is None:
            return False
        return distributed.from_first(self.num_not_better >= self._patience)
