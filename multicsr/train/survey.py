"""What the mask sees: how similar P finds other rows' hypotheses, and examples of what it removes."""

from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from multicsr.train.log import HISTOGRAM, MASKED_PAIRS, Histogram, MaskedPair
from multicsr.train.mask import keep_cells, own_row
from multicsr.train.objective import mask_similarity
from multicsr.train.triplets import Triplets

_NUM_PAIRS = 20
_NUM_BINS = 80


@dataclass(frozen=True)
class Survey:
    """Over some batches; masked cells sampled without regard to their similarity."""

    pairs: list[MaskedPair]
    histogram: Histogram

    def write(self, folder: Path) -> None:
        """As `masked_pairs.json` and `mask_similarities.json`."""
        pairs = TypeAdapter(list[MaskedPair]).dump_json(self.pairs, indent=1)
        (folder / MASKED_PAIRS).write_bytes(pairs + b"\n")
        (folder / HISTOGRAM).write_text(self.histogram.model_dump_json() + "\n", encoding="utf-8")


def survey(
    triplets: Triplets, mask_TD: Tensor, sigma: float, batches: Iterable[NDArray[np.int64]], seed: int
) -> Survey:
    """Look at the cells of other rows in some batches.

    Args:
        triplets: the training set.
        mask_TD: P's vectors of `triplets.texts`.
        sigma: of the mask.
        batches: row numbers [N] each; one epoch says enough.
        seed: draws the examples.
    """
    draw = np.random.default_rng(seed)
    edges = np.linspace(-1, 1, _NUM_BINS + 1)
    counts = np.zeros(_NUM_BINS, dtype=np.int64)
    sample: list[tuple[float, MaskedPair]] = []
    for batch_N in batches:
        cosine_NC = mask_similarity(triplets, mask_TD, batch_N)
        others_NC = ~own_row(len(batch_N), 2 * len(batch_N), 0, cosine_NC.device)
        counts += np.histogram(cosine_NC[others_NC].clamp(-1, 1).numpy(), edges)[0]
        cells = (~keep_cells(cosine_NC, sigma)).nonzero().numpy()
        # Every masked cell draws a number; those with the smallest of all are the sample.
        numbers = draw.random(len(cells))
        for index in np.argsort(numbers)[:_NUM_PAIRS]:
            sample.append((numbers[index], _pair(triplets, batch_N, cosine_NC, *cells[index])))
        sample = sorted(sample, key=itemgetter(0))[:_NUM_PAIRS]
    histogram = Histogram(edges=edges.round(6).tolist(), counts=counts.tolist())
    return Survey([pair for _, pair in sample], histogram)


def _pair(
    triplets: Triplets, batch_N: NDArray[np.int64], cosine_NC: Tensor, anchor: int, candidate: int
) -> MaskedPair:
    sign, row = divmod(candidate, len(batch_N))
    return MaskedPair(
        anchor=triplets.texts[triplets.text_RS[batch_N[anchor], 0]],
        candidate=triplets.texts[triplets.text_RS[batch_N[row], 1 + sign]],
        similarity=round(float(cosine_NC[anchor, candidate]), 4),
    )
