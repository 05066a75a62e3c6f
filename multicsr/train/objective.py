"""From a batch of rows to its loss: sentences through G once, mask from P's vectors, loss."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multicsr.config import TrainConfig
from multicsr.errors import RunError
from multicsr.train.encoder import Encoder
from multicsr.train.loss import masked_infonce, simcse_unsup
from multicsr.train.mask import keep_cells, similarity
from multicsr.train.triplets import Triplets


class BatchLoss(NamedTuple):
    """What one batch gave."""

    loss: Tensor
    """Scalar, with its graph."""
    masked: float
    """Share of the cells that the mask removed."""


def mask_similarity(triplets: Triplets, mask_TD: Tensor, batch_N: NDArray[np.int64]) -> Tensor:
    """Cosines under P of the premises of rows `batch_N` with all their hypotheses, float64 [N, 2N].

    `mask_TD`: P's vectors of `triplets.texts`.
    """
    premise_N, *hypotheses = torch.from_numpy(triplets.text_RS[batch_N]).long().unbind(dim=1)
    return similarity(mask_TD[premise_N], mask_TD[torch.cat(hypotheses)])


class Objective:
    """The loss of `train.objective` on batches of `triplets`."""

    def __init__(
        self, config: TrainConfig, triplets: Triplets, encoder: Encoder, mask_TD: Tensor | None
    ) -> None:
        """`mask_TD`: P's vectors of `triplets.texts`; None: no cell is masked."""
        self._config = config
        self._triplets = triplets
        self._encoder = encoder
        self._mask_TD = mask_TD

    def __call__(self, batch_N: NDArray[np.int64]) -> BatchLoss:
        """Loss of the rows `batch_N`.

        Raises:
            RunError: the loss is not finite; names the rows.
        """
        is_unsup = self._config.objective == "simcse_unsup"
        text_SN = self._triplets.text_RS[batch_N].T
        # SimCSE's augmentation is dropout: the same sentences go through twice.
        text_B = np.concatenate([text_SN, text_SN] if is_unsup else [*text_SN], axis=None)
        embedding_BD = self._encoder(self._encoder.tokenize([self._triplets.texts[text] for text in text_B]))
        anchor_ND, candidate_CD = embedding_BD[: len(batch_N)], embedding_BD[len(batch_N) :]
        if is_unsup:
            loss, masked = simcse_unsup(anchor_ND, candidate_CD, self._config.temperature), 0.0
        else:
            keep_NC = self.keep(batch_N).to(embedding_BD.device)
            loss = masked_infonce(anchor_ND, candidate_CD, keep_NC, self._config.temperature)
            masked = 1 - keep_NC.double().mean().item()
        if not torch.isfinite(loss):
            raise RunError(self._blame(batch_N, embedding_BD))
        return BatchLoss(loss, masked)

    def keep(self, batch_N: NDArray[np.int64]) -> Tensor:
        """keep_NC of the rows `batch_N`, bool [N, 2N] on the CPU, True = stays (Eq. 6)."""
        if self._config.mask is None or self._mask_TD is None:
            return torch.ones(len(batch_N), 2 * len(batch_N), dtype=torch.bool)
        cosine_NC = mask_similarity(self._triplets, self._mask_TD, batch_N)
        return keep_cells(cosine_NC, self._config.mask.sigma)

    def _blame(self, batch_N: Sequence[int] | NDArray[np.int64], embedding_BD: Tensor) -> str:
        broken_B = ~torch.isfinite(embedding_BD).all(dim=-1).cpu()
        broken_N = broken_B.reshape(-1, len(batch_N)).any(dim=0)
        rows = np.asarray(batch_N)[broken_N.numpy()] if broken_N.any() else np.asarray(batch_N)
        names = ", ".join(self._triplets.names[row] for row in rows[:3])
        more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
        return (
            f"the loss is not finite at rows {names}{more}; lower train.learning_rate, or look at these rows"
        )
