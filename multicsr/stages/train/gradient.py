"""The gradient of a batch: embed sentences by G, gather candidates, mask, compute the loss, differentiate.

N own rows     G rows of the global batch     C candidates     S sentences a row     D width
H hard negatives: C = G + H, and H = G unless rows have none
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError, RunError
from multicsr.stages.train import distributed
from multicsr.stages.train.batches import LossBatch
from multicsr.stages.train.data.loader import Batch, Chunk
from multicsr.stages.train.engines.base import TrainEngine
from multicsr.stages.train.objectives.load import load_objective
from multicsr.stages.train.objectives.losses import LossInputs, mean_over_widths

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
        self._objective = load_objective(config.objective)

    def add(self, ready: LossBatch, signal: float = 0) -> BatchLoss:
        """Add the gradient of a global batch, divided by `accumulate`. All workers call this method together.

        With `grad_cache`, the sentences pass through the encoder twice: first without gradient, to
        differentiate the loss by the embeddings, then chunk by chunk, to carry that gradient to the
        parameters.

        Args:
            ready: the global batch with its mask, scores and weights on the engine's device.
            signal: a number that is summed over the workers in the same exchange.

        Raises:
            RunError: the loss is not finite, or a vector is zero. All workers raise it; it names the rows.
            ConfigError: the mask removes all other rows' sentences of the first batch.
        """
        chunks = ready.batch.chunks
        if self._config.grad_cache:
            with torch.no_grad():
                embedding_SND = self._embed(chunks)
            embedding_SND.requires_grad_()
            result, share = self._loss(ready, embedding_SND, signal)
            torch.autograd.backward(share)
            for chunk, gradient_SMD in self._with_gradients(chunks, embedding_SND):
                self._engine.backward((self._embed([chunk]) * gradient_SMD).sum())
        else:
            embedding_SND = self._embed(chunks)
            result, share = self._loss(ready, embedding_SND, signal)
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

    def _loss(self, ready: LossBatch, embedding_SND: Tensor, signal: float) -> tuple[BatchLoss, Tensor]:
        """Return the loss of the global batch, and this worker's share of it, which is differentiated."""
        batch, has_negative_G = ready.batch, ready.has_negative_G
        num_rows = len(batch.row_G)
        premise_GD = None
        if self._objective.compares_same:
            embedding_GSD = distributed.gather(embedding_SND.transpose(0, 1), num_rows)
            premise_GD, candidate_GSD = embedding_GSD[:, 0], embedding_GSD[:, 1:]
        else:
            candidate_GSD = distributed.gather(embedding_SND[1:].transpose(0, 1), num_rows)
        negative_HD = candidate_GSD[:, 1] if candidate_GSD.shape[1] > 1 else None
        keep_NC = ready.keep_NC
        if has_negative_G is not None and negative_HD is not None:
            # Another sentence stands where a hard negative is missing: it is no candidate of any anchor.
            negative_HD = negative_HD[has_negative_G]
            if keep_NC is not None:
                keep_NC = keep_NC[:, torch.cat([torch.ones_like(has_negative_G), has_negative_G])]
        inputs = LossInputs(
            anchor_ND=embedding_SND[0],
            positive_GD=candidate_GSD[:, 0],
            negative_GD=negative_HD,
            temperature=self._config.temperature,
            anchor_offset=distributed.own_rows(num_rows).start,
            keep_NC=keep_NC,
            score_N2=ready.score_N2,
            weight_G=ready.weight_G,
            label_smoothing=self._config.label_smoothing,
            random_pairs=self._config.random_pairs,
            premise_GD=premise_GD,
            keep_same_N2G=ready.keep_same_N2G,
        )
        share = mean_over_widths(self._objective.loss, inputs, self._config.matryoshka)
        num_candidates = num_rows + (0 if negative_HD is None else len(negative_HD))
        masked = 0 if keep_NC is None else int((~keep_NC).sum())
        is_broken = not torch.isfinite(share) or bool(_is_zero(embedding_SND).any())
        is_equal = self._is_unaugmented(batch.number, embedding_SND)
        same_kept = 0 if ready.keep_same_N2G is None else int(ready.keep_same_N2G.sum())
        loss, all_masked, all_same_kept, broken, equal, signals = distributed.add_numbers(
            share.item(), masked, same_kept, is_broken, is_equal, signal
        )
        if broken:
            raise RunError(_blame(batch, embedding_SND, is_broken))
        is_nothing_left = all_masked >= num_candidates * (num_rows - 1) and not all_same_kept
        if batch.number == 0 and is_nothing_left:
            self._raise_nothing_left()
        if equal:
            raise ConfigError(
                "train.objective: simcse_unsup takes a second pass with other dropout as the positive, and "
                f"{self._config.encoder} has no dropout; take another encoder or objective"
            )
        result = BatchLoss(loss, all_masked / (num_rows * num_candidates), signals)
        return result, share / self._config.accumulate

    def _is_unaugmented(self, number: int, embedding_SND: Tensor) -> bool:
        """Return True if both passes over the first batch's premises give the same vectors."""
        is_encoded_twice = self._objective.sentences == ("text",)
        return number == 0 and is_encoded_twice and torch.equal(embedding_SND[0], embedding_SND[1])

    def _raise_nothing_left(self) -> None:
        """Raise ConfigError because the mask removes all other rows' sentences of the first batch."""
        if self._config.mask is None:
            return
        if self._objective.compares_same:
            raise ConfigError(
                f"train.mask.model: under {self._config.mask.model} every other row of the first batch is "
                "nearer than the row's own positive, so there is nothing to learn from; name another model"
            )
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
