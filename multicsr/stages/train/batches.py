"""The batches of a training with their masks and scores. P embeds the next batch while one trains."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multicsr.stages.train import distributed
from multicsr.stages.train.data.loader import Batch
from multicsr.stages.train.data.plan import Plan
from multicsr.stages.train.data.source import RowNumbers
from multicsr.stages.train.job import TrainingJob
from multicsr.stages.train.mask_model.batch_masks import BatchMasks
from multicsr.stages.train.mask_model.read_mask import Mask
from multicsr.stages.train.mask_model.vector_cache import PendingBatch
from multicsr.stages.train.monitoring.step_timer import StepTimer


class LossBatch(NamedTuple):
    """A global batch with everything that its loss needs."""

    batch: Batch
    """Tokens of this worker's rows."""
    keep_NC: Tensor | None
    """Mask of this worker's anchors, bool, True = the cell stays; None: no mask."""
    score_N2: Tensor | None
    """Scores a and b of this worker's rows; None if the objective does not use them."""
    weight_G: Tensor | None
    """Weight of each row of the global batch; None: all rows have the same."""
    has_negative_G: Tensor | None
    """False for a row without a hard negative, bool; None: all rows have one."""
    keep_same_N2G: Tensor | None = None
    """Mask of premises with premises and positives with positives; None if the objective compares none."""


class BatchStream:
    """The remaining batches of one training. All workers iterate together."""

    def __init__(
        self, job: TrainingJob, plan: Plan, batches: Iterator[Batch], masks: BatchMasks | None
    ) -> None:
        """Set up the stream; nothing is read yet.

        Args:
            job: the training.
            plan: all batches of the run.
            batches: the remaining batches.
            masks: their masks; None: the objective has no mask.
        """
        self._job, self._plan, self._batches, self._masks = job, plan, batches, masks

    def ready(self, timer: StepTimer) -> Iterator[LossBatch]:
        """Yield every batch, after the vectors of the next one were requested; `timer` counts the waiting."""
        for batch, pending in self._asked_ahead(timer):
            mask, index = self._mask(batch, pending, timer), self._job.index
            own_N = batch.row_G[distributed.own_rows(len(batch.row_G))]
            yield LossBatch(
                batch,
                None if mask is None else mask.keep_NC,
                self._values(index.score_R2, own_N),
                self._values(index.weight_R, batch.row_G),
                self._values(index.has_negative_R, batch.row_G),
                None if mask is None else mask.keep_same_N2G,
            )

    def _asked_ahead(self, timer: StepTimer) -> Iterator[tuple[Batch, PendingBatch | None]]:
        """Yield every batch with its request to P, after the next batch was requested too."""
        before: tuple[Batch, PendingBatch | None] | None = None
        for batch in timer.waiting("ingest", self._batches):
            asked = batch, self._masks.ask(batch) if self._masks else None
            if before is not None:
                yield before
            before = asked
        if before is not None:
            yield before

    def _mask(self, batch: Batch, pending: PendingBatch | None, timer: StepTimer) -> Mask | None:
        """Return the mask of this worker's anchors, and count its cells in the first epoch; None: no mask."""
        if self._masks is None or pending is None:
            return None
        with timer.waiting_for("mask"):
            vector_GSD = self._masks.take(pending)
        is_first_epoch = bool(self._plan.epoch_B[batch.number] == 1)
        return self._masks.keep(batch, vector_GSD, is_counted=is_first_epoch)

    def _values(self, value_R: NDArray[np.generic] | None, rows: RowNumbers) -> Tensor | None:
        """Return the values of some rows on the device of the loss; None if there are none."""
        return None if value_R is None else torch.from_numpy(value_R[rows]).to(self._job.device)
