"""Mask statistics: a histogram of P's cosines with other rows' hypotheses, and examples of masked pairs.

They are collected during the first epoch; each worker counts its own anchors. Examples are drawn by a hash of
the cell, so that the sample does not depend on the number of workers or on restarts.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from multicsr.artifacts import HISTOGRAM, MASKED_PAIRS, Histogram, MaskedPair
from multicsr.stages.train import distributed
from multicsr.stages.train.data.index import Digests
from multicsr.stages.train.data.source import RowNumbers, Source
from multicsr.stages.train.mask_model.read_mask import Mask
from multicsr.stages.train.objectives.mask import own_row

_NUM_PAIRS = 20
"""Number of examples."""
_NUM_BINS = 80
"""Number of bins of the histogram."""
_EDGES = np.linspace(-1, 1, _NUM_BINS + 1)
"""Edges of the bins."""

Cell = tuple[int, int, int, int, float]
"""A masked cell: (drawn number, anchor's row, candidate's row, 0 positive or 1 hard negative, cosine)."""


@dataclass
class MaskStatistics:
    """Mask statistics over some batches. Masked cells are sampled independently of their similarity."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_NUM_BINS, dtype=np.int64))
    """Number of cosines in each bin of the histogram."""
    cells: list[Cell] = field(default_factory=list)
    """Sample of masked cells: those with the lowest drawn numbers, in their order."""

    def add(
        self,
        row_G: RowNumbers,
        mask: Mask,
        digest_R: Digests,
        has_negative_G: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count the cells of this worker's anchors with other rows.

        Args:
            row_G: row numbers of the global batch.
            mask: the mask of this worker's anchors.
            digest_R: digest of every row's id.
            has_negative_G: False for the rows without a hard negative, whose cells are no cells; None: all
                rows have one.
        """
        num_rows, own = len(row_G), distributed.own_rows(len(row_G))
        cosine_NC, keep_NC = mask.cosine_NC.cpu(), mask.keep_NC.cpu()
        others_NC = ~own_row(own.stop - own.start, 2 * num_rows, own.start, keep_NC.device)
        if has_negative_G is not None:
            is_candidate_C = torch.from_numpy(np.concatenate([np.ones_like(has_negative_G), has_negative_G]))
            others_NC &= is_candidate_C
            keep_NC = keep_NC | ~is_candidate_C
        self.counts += np.histogram(cosine_NC[others_NC].clamp(-1, 1).numpy(), _EDGES)[0]
        anchor_M, candidate_M = (~keep_NC).nonzero().numpy().T
        sign_M, at_M = np.divmod(candidate_M, num_rows)
        anchor_row_M, row_M = row_G[own][anchor_M], row_G[at_M]
        drawn_M = _mix(digest_R[anchor_row_M] ^ _mix(digest_R[row_M] + sign_M.astype(np.uint64)))
        cosine_M = cosine_NC.numpy()[anchor_M, candidate_M]
        few = np.argsort(drawn_M)[:_NUM_PAIRS]
        columns = (column[few].tolist() for column in (drawn_M, anchor_row_M, row_M, sign_M, cosine_M))
        found: list[Cell] = [*zip(*columns, strict=True)]
        self.cells = sorted([*self.cells, *found])[:_NUM_PAIRS]

    def of_all_workers(self) -> "MaskStatistics":
        """Return the statistics of all workers together, on every worker."""
        parts = distributed.from_all(self)
        cells = sorted(cell for part in parts for cell in part.cells)
        return MaskStatistics(np.sum([part.counts for part in parts], axis=0), cells[:_NUM_PAIRS])

    def write(self, folder: Path, source: Source) -> None:
        """Write `masked_pairs.json` and `mask_similarities.json`.

        Args:
            folder: the folder of both files.
            source: reads the sentences of the sample.
        """
        pairs = TypeAdapter(list[MaskedPair]).dump_json(self._pairs(source), indent=1)
        (folder / MASKED_PAIRS).write_bytes(pairs + b"\n")
        histogram = Histogram(edges=_EDGES.round(6).tolist(), counts=self.counts.tolist())
        (folder / HISTOGRAM).write_text(histogram.model_dump_json() + "\n", encoding="utf-8")

    def _pairs(self, source: Source) -> list[MaskedPair]:
        """Return the sample with its sentences."""
        if not self.cells:
            return []
        rows = sorted({row for _, anchor, other, _, _ in self.cells for row in (anchor, other)})
        (of_rows,) = source([[np.asarray(rows, dtype=np.int64)]])
        sentences = dict(zip(rows, zip(*of_rows.sentences, strict=True), strict=True))
        return [
            MaskedPair(
                anchor=sentences[anchor][0],
                candidate=sentences[other][1 + sign],
                similarity=round(cosine, 4),
            )
            for _, anchor, other, sign, cosine in self.cells
        ]


def _mix(value_M: Digests) -> Digests:
    """Return hashes by splitmix64, which spreads a difference in one bit over all bits."""
    with np.errstate(over="ignore"):
        value_M = value_M + np.uint64(0x9E3779B97F4A7C15)
        value_M = (value_M ^ (value_M >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value_M = (value_M ^ (value_M >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value_M ^ (value_M >> np.uint64(31))
