"""The masks of a training's batches, computed from P's vectors, with statistics of the first epoch."""

from torch import Tensor

from multicsr.stages.train.data.loader import Batch
from multicsr.stages.train.job import TrainingJob
from multicsr.stages.train.mask_model.model import Embedder, mask_model_fingerprint
from multicsr.stages.train.mask_model.read_mask import Mask, read_mask
from multicsr.stages.train.mask_model.statistics import MaskStatistics
from multicsr.stages.train.mask_model.vector_cache import MaskVectors, PendingBatch
from multicsr.storage.store import Store


class BatchMasks:
    """The masks of one training. All workers call `ask` and `take` together."""

    def __init__(
        self, job: TrainingJob, embedder: Embedder, store: Store | None, mask_statistics: MaskStatistics
    ) -> None:
        """Read the vectors of earlier runs.

        Args:
            job: the training; its objective must have a mask.
            embedder: embeds sentences by P.
            store: store that keeps P's vectors for other runs; None: they are not kept.
            mask_statistics: the statistics so far.
        """
        if job.config.mask is None:
            raise AssertionError("a mask without P")
        self.mask_statistics = mask_statistics
        """Statistics of this worker's anchors."""
        self._job, self._store = job, store
        self._vectors = MaskVectors(embedder, len(job.index.sentence_T), job.config.mask.cache_gib)
        self._model = mask_model_fingerprint(job.config.mask, job.device)
        if store:
            self._vectors.read(store, self._model, job.index.sentence_T)

    def ask(self, batch: Batch) -> PendingBatch:
        """Request the vectors of a batch."""
        return self._vectors.ask(self._job.index.text_RS[batch.row_G], batch.own.sentences)

    def take(self, pending: PendingBatch) -> Tensor:
        """Wait for the vectors of a batch and return them, fp16 [G, S, D] on the CPU."""
        return self._vectors.take(pending)

    def keep(self, batch: Batch, vector_GSD: Tensor, *, is_counted: bool) -> Mask:
        """Return the mask of this worker's anchors.

        Args:
            batch: the global batch.
            vector_GSD: its vectors, from `take`.
            is_counted: True if the cells are added to the statistics.
        """
        # The mask is exact on any device, so it is computed where the loss is. One CPU thread needs 7 ms for
        # 512 x 1,024 cells.
        mask = read_mask(self._job.config, vector_GSD.to(self._job.device))
        if is_counted:
            index = self._job.index
            has_negative_G = None if index.has_negative_R is None else index.has_negative_R[batch.row_G]
            self.mask_statistics.add(batch.row_G, mask, index.row_R, has_negative_G)
        return mask

    def write_vectors(self) -> None:
        """Write the new vectors to the store, if there is one. Only one worker calls it."""
        if self._store:
            self._vectors.write(self._store, self._model, self._job.index.sentence_T)
