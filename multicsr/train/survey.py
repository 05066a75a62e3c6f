"""What the mask sees: how similar P finds other rows' hypotheses, and examples of what it removes.

Counted while the first epoch trains, each worker its own anchors. An example is drawn by a hash of its cell,
so that the sample does not depend on the number of workers or on restarts.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from multicsr.train import world
from multicsr.train.gradient import Mask
from multicsr.train.index import Digests
from multicsr.train.log import HISTOGRAM, MASKED_PAIRS, Histogram, MaskedPair
from multicsr.train.mask import own_row
from multicsr.train.source import RowNumbers, Source

_NUM_PAIRS = 20
_NUM_BINS = 80
_EDGES = np.linspace(-1, 1, _NUM_BINS + 1)

Cell = tuple[int, int, int, int, float]
"""(drawn number, anchor's row, candidate's row, 0 positive or 1 hard negative, cosine)."""


@dataclass
class Survey:
    """Over some batches; masked cells sampled without regard to their similarity."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_NUM_BINS, dtype=np.int64))
    cells: list[Cell] = field(default_factory=list)

    def add(self, row_G: RowNumbers, mask: Mask, digest_R: Digests) -> None:
        """Look at the cells of this worker's anchors with other rows.

        Args:
            row_G: the global batch.
            mask: of this worker's anchors.
            digest_R: of every row.
        """
        num_rows, own = len(row_G), world.own_rows(len(row_G))
        cosine_NC, keep_NC = mask.cosine_NC.cpu(), mask.keep_NC.cpu()
        others_NC = ~own_row(own.stop - own.start, 2 * num_rows, own.start, keep_NC.device)
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

    def of_all_workers(self) -> "Survey":
        """What all have seen together."""
        parts = world.from_all(self)
        cells = sorted(cell for part in parts for cell in part.cells)
        return Survey(np.sum([part.counts for part in parts], axis=0), cells[:_NUM_PAIRS])

    def write(self, folder: Path, source: Source) -> None:
        """As `masked_pairs.json` and `mask_similarities.json`; `source` gives the words of the sample."""
        pairs = TypeAdapter(list[MaskedPair]).dump_json(self._pairs(source), indent=1)
        (folder / MASKED_PAIRS).write_bytes(pairs + b"\n")
        histogram = Histogram(edges=_EDGES.round(6).tolist(), counts=self.counts.tolist())
        (folder / HISTOGRAM).write_text(histogram.model_dump_json() + "\n", encoding="utf-8")

    def _pairs(self, source: Source) -> list[MaskedPair]:
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
    """Splitmix64: spreads a difference in one bit over all of them."""
    with np.errstate(over="ignore"):
        value_M = value_M + np.uint64(0x9E3779B97F4A7C15)
        value_M = (value_M ^ (value_M >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value_M = (value_M ^ (value_M >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value_M ^ (value_M >> np.uint64(31))
