"""The gradient of a batch: embed sentences by G, gather candidates, mask, compute the loss, differentiate.

N own rows     G rows of the global batch     C = 2G candidates     S sentences a row     D width
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError, RunError
from multicsr.stages.train import distributed
from multicsr.stages.train.data.loader import Batch, Chunk
from multicsr.stages.train.engines.base import TrainEngine
from multicsr.stages.train.objectives.losses import OBJECTIVES, LossInputs

_SHORTEST = 1e-6
"""Length below which a vector counts as zero. Encoders give lengths of 1 to 30; float32 has seven digits."""


class BatchLoss(NamedTuple):
    """The loss and mask share of one global batch, the same on every worker."""

    loss: float
    """Loss of the global batch, before the division by `accumulate`."""
    masked: float
    """Share of the G x C cells that the mask removed."""
    signal: float
    """Sum of the `signal` arguments of all workers."""


class Gradients:
    """Gradient computation, which adds the gradients of batches to an engine's parameters."""

    def __init__(self, config: TrainConfig, engine: TrainEngine) -> None:
        """Set up the computation for the objective of `config`."""
        self._config, self._engine = config, engine
        self._objective = OBJECTIVES[config.objective]

    def add(
        self, batch: Batch, keep_NC: Tensor | None, score_N2: Tensor | None, signal: float = 0
    ) -> BatchLoss:
        """Add the gradient of a global batch, divided by `accumulate`. All workers call this method together.

        With `grad_cache`, the sentences pass through the encoder twice: first without gradient, to
        differentiate the loss by the embeddings, then chunk by chunk, to carry that gradient to the
        parameters.

        Args:
            batch: the global batch.
            keep_NC: the mask from `mask_model/read_mask.py`, on the engine's device; None: no mask.
            score_N2: a and b of this worker's rows, on the same device; None if the objective uses no scores.
            signal: a number that is summed over the workers in the same exchange.

        Raises:
            RunError: the loss is not finite, or a vector is zero. All workers raise it; it names the rows.
            ConfigError: the mask removes all other rows' hypotheses of the first batch.
        """
        if self._config.grad_cache:
            with torch.no_grad():
                embedding_SND = self._embed(batch.chunks)
            embedding_SND.requires_grad_()
            result, share = self._loss(batch, embedding_SND, keep_NC, score_N2, signal)
            torch.autograd.backward(share)
            for chunk, gradient_SMD in self._with_gradients(batch.chunks, embedding_SND):
                self._engine.backward((self._embed([chunk]) * gradient_SMD).sum())
        else:
            embedding_SND = self._embed(batch.chunks)
            result, share = self._loss(batch, embedding_SND, keep_NC, score_N2, signal)
            self._engine.backward(share)
        return result

    def _embed(self, chunks: list[Chunk]) -> Tensor:
        """Return the embeddings of some chunks, [S, rows of the chunks, D]."""
        parts = []
        for chunk in chunks:
            embedding_BD = self._engine.embed(chunk.sequences, chunk.seed)
            parts.append(embedding_BD.view(-1, chunk.num_rows, embedding_BD.shape[-1]))
        return torch.cat(parts, dim=1)

    def _with_gradients(self, chunks: list[Chunk], embedding_SND: Tensor) -> Iterator[tuple[Chunk, Tensor]]:
        """Return each chunk with its part [S, rows of the chunk, D] of the gradient of the embeddings."""
        if embedding_SND.grad is None:
            raise AssertionError("the loss was not differentiated")
        return zip(chunks, torch.split(embedding_SND.grad, [c.num_rows for c in chunks], dim=1), strict=True)

    def _loss(
        self,
        batch: Batch,
        embedding_SND: Tensor,
        keep_NC: Tensor | None,
        score_N2: Tensor | None,
        signal: float,
    ) -> tuple[BatchLoss, Tensor]:
        """Return the loss of the global batch, and this worker's share of it, which is differentiated."""
        num_rows = len(batch.row_G)
        candidate_GSD = distributed.gather(embedding_SND[1:].transpose(0, 1), num_rows)
        share = self._objective.loss(
            LossInputs(
                anchor_ND=embedding_SND[0],
                positive_GD=candidate_GSD[:, 0],
                negative_GD=candidate_GSD[:, 1] if candidate_GSD.shape[1] > 1 else None,
                temperature=self._config.temperature,
                anchor_offset=distributed.own_rows(num_rows).start,
                keep_NC=keep_NC,
                score_N2=score_N2,
            )
        )
        masked = 0 if keep_NC is None else int((~keep_NC).sum())
        is_broken = not torch.isfinite(share) or bool(_is_zero(embedding_SND).any())
        loss, all_masked, broken, signals = distributed.add_numbers(share.item(), masked, is_broken, signal)
        if broken:
            raise RunError(_blame(batch, embedding_SND, is_broken))
        self._check_mask(batch.number, int(all_masked), num_rows)
        result = BatchLoss(loss, all_masked / (2 * num_rows**2), signals)
        return result, share / self._config.accumulate

    def _check_mask(self, number: int, masked: int, num_rows: int) -> None:
        """Raise ConfigError if the mask removes all other rows' hypotheses of the first batch."""
        if number == 0 and masked >= 2 * num_rows * (num_rows - 1) and self._config.mask is not None:
            raise ConfigError(
                f"train.mask.sigma: at {self._config.mask.sigma:g} the mask removes every other row of the "
                "first batch, so there is nothing to learn from; raise it"
            )


def _is_zero(embedding_SND: Tensor) -> Tensor:
    """Return bool [S, N], True for a vector too short to have a direction: its cosine's gradient explodes."""
    norm_SN: Tensor = torch.linalg.vector_norm(embedding_SND.detach(), dim=-1)
    return norm_SN < _SHORTEST


def _blame(batch: Batch, embedding_SND: Tensor, is_broken: bool) -> str:
    """Return a message that names the rows at fault.

    These are the rows with a zero vector; if there are none, the rows with a vector that is not finite; if
    there are none either, all rows of the workers whose share of the loss is not finite.
    """
    zero_N = _is_zero(embedding_SND).any(dim=0)
    infinite_N = ~torch.isfinite(embedding_SND).all(dim=-1).all(dim=0)
    mine = [
        [name for name, is_bad in zip(batch.own.row_ids, bad_N.tolist(), strict=True) if is_bad]
        for bad_N in (zero_N, infinite_N)
    ]
    found = distributed.from_all((*mine, batch.own.row_ids if is_broken else []))
    zeros, infinite, suspected = (
        [name for of_worker in found for name in of_worker[kind]] for kind in range(3)
    )
    if zeros:
        return (
            f"the encoder gives a zero vector, which has no cosine, at rows {_row_names(zeros)}; "
            "take another train.encoder or train.pooling, or look at these rows"
        )
    return (
        f"the loss is not finite at rows {_row_names(infinite or suspected)}; lower train.learning_rate, "
        "or look at these rows"
    )


def _row_names(row_ids: Sequence[str]) -> str:
    """Return the first three row ids and the number of the others, for a message."""
    more = f" and {len(row_ids) - 3} more" if len(row_ids) > 3 else ""
    return ", ".join(row_ids[:3]) + more
