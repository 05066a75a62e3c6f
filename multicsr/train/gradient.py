"""From a batch to its gradient: sentences through G, candidates of all workers, mask, loss, and back.

N own rows     G rows of the global batch     C = 2G candidates     S sentences a row     D width
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError, RunError
from multicsr.train import world
from multicsr.train.engine import Engine
from multicsr.train.feed import Batch, Chunk
from multicsr.train.loss import LossInputs
from multicsr.train.mask_vectors import exact_cosines
from multicsr.train.objectives import OBJECTIVES
from multicsr.train.plan import row_names


class BatchLoss(NamedTuple):
    """What one global batch gave, the same on every worker."""

    loss: float
    masked: float
    """Share of the G x C cells that the mask removed."""
    signal: float
    """Sum of what the workers passed on."""


class Mask(NamedTuple):
    """What P makes of this worker's rows."""

    cosine_NC: Tensor
    """float64."""
    keep_NC: Tensor
    """bool, True = stays."""


def read_mask(config: TrainConfig, vector_GSD: Tensor) -> Mask:
    """The mask of this worker's anchors against all candidates (MultiCSR Eq. 6).

    Args:
        vector_GSD: P's vectors of the global batch, fp16; the mask is made on their device.
    """
    keep = OBJECTIVES[config.objective].keep
    if keep is None or config.mask is None:
        raise AssertionError("asked for the mask of an objective that has none")
    own = world.own_rows(len(vector_GSD))
    candidate_CD = torch.cat([*vector_GSD[:, 1:].unbind(dim=1)])
    cosine_NC = exact_cosines(vector_GSD[own, 0], candidate_CD)
    return Mask(cosine_NC, keep(cosine_NC, config.mask.sigma, own.start))


class Gradients:
    """Adds the gradients of batches to an engine's parameters."""

    def __init__(self, config: TrainConfig, engine: Engine) -> None:
        self._config, self._engine = config, engine
        self._objective = OBJECTIVES[config.objective]

    def add(
        self, batch: Batch, keep_NC: Tensor | None, score_N2: Tensor | None, signal: float = 0
    ) -> BatchLoss:
        """Add the gradient of a global batch, divided by `accumulate`. All workers call it together.

        Args:
            keep_NC: of `read_mask`, on the engine's device; None: no mask.
            score_N2: a and b of this worker's rows, there too, where the objective reads them.
            signal: a number to tell the other workers by the way.

        Raises:
            RunError: the loss is not finite; raised on all workers, and names the rows.
            ConfigError: the mask leaves nothing to learn from.
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
        """[S, rows of the chunks, D]."""
        parts = []
        for chunk in chunks:
            embedding_BD = self._engine.embed(chunk.sequences, chunk.seed)
            parts.append(embedding_BD.view(-1, chunk.num_rows, embedding_BD.shape[-1]))
        return torch.cat(parts, dim=1)

    def _with_gradients(self, chunks: list[Chunk], embedding_SND: Tensor) -> Iterator[tuple[Chunk, Tensor]]:
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
        """(the loss of the global batch, this worker's share of it to differentiate)."""
        num_rows = len(batch.row_G)
        candidate_GSD = world.gather(
            embedding_SND[1:].transpose(0, 1),
            num_rows,
            with_gradient=self._config.gather == "with_gradient",
        )
        share = self._objective.loss(
            LossInputs(
                anchor_ND=embedding_SND[0],
                positive_GD=candidate_GSD[:, 0],
                negative_GD=candidate_GSD[:, 1] if candidate_GSD.shape[1] > 1 else None,
                temperature=self._config.temperature,
                anchor_offset=world.own_rows(num_rows).start,
                keep_NC=keep_NC,
                score_N2=score_N2,
            )
        )
        masked = 0 if keep_NC is None else int((~keep_NC).sum())
        is_broken = not torch.isfinite(share)
        loss, all_masked, broken, signals = world.add_numbers(share.item(), masked, is_broken, signal)
        if broken:
            raise RunError(_blame(batch, embedding_SND, is_broken))
        self._check_mask(batch.number, int(all_masked), num_rows)
        result = BatchLoss(loss, all_masked / (2 * num_rows**2), signals)
        return result, share / self._config.accumulate

    def _check_mask(self, number: int, masked: int, num_rows: int) -> None:
        if number == 0 and masked >= 2 * num_rows * (num_rows - 1) and self._config.mask is not None:
            raise ConfigError(
                f"train.mask.sigma: at {self._config.mask.sigma:g} the mask removes every other row of the "
                "first batch, so there is nothing to learn from; raise it"
            )


def _blame(batch: Batch, embedding_SND: Tensor, is_broken: bool) -> str:
    """Names the rows whose embeddings are not finite, or those of the losses that are not."""
    broken_N = ~torch.isfinite(embedding_SND).all(dim=-1).all(dim=0).cpu()
    mine = [name for name, broken in zip(batch.own.row_ids, broken_N.tolist(), strict=True) if broken]
    found = world.from_all((mine, batch.own.row_ids if is_broken else []))
    names = [n for mine, _ in found for n in mine] or [n for _, suspected in found for n in suspected]
    return (
        f"the loss is not finite at rows {row_names(names)}; lower train.learning_rate, or look at these rows"
    )
