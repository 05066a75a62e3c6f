"""Cosines under P between premises and the hypotheses of other rows in one batch (Figure 7)."""

from collections.abc import Sequence

import numpy as np
import torch

from multicsr.errors import ConfigError, NothingKept
from multicsr.hashing import hash_64
from multicsr.models.cosines import exact_cosines
from multicsr.models.frozen_encoder import Vectors
from multicsr.stages.train.mask_model.model import MaskModel
from multicsr.stages.train.objectives.mask import keep_cells
from multicsr.tools.reproduce.figures import ABOVE, MASK_SIMILARITY
from multicsr.tools.reproduce.measures.work import RowMeasurer, TableWork
from multicsr.tools.reproduce.plan import RowPlan, config_of
from multicsr.tools.reproduce.result import MeasuredCell, RowFigures

MASKED = "removed by the mask, %"
"""Name of the figure that the paper does not have: the share of cosines from sigma on."""
_ROWS = 256
"""Number of rows in the paper's batch."""
_EDGES = np.linspace(-1, 1, 41)
"""Edges of the bins."""


def mask_measurer(work: TableWork) -> RowMeasurer:
    """Return the function that draws a batch of a row's triplets and measures its cosines."""

    def measure(plan: RowPlan) -> RowFigures:
        config = config_of(plan)
        mask = config.train.mask
        if mask is None:
            raise ConfigError("train.mask: the figure shows cosines under P; set a mask")
        triplets = work.reader.table(plan)
        rows = sorted(triplets.to_pylist(), key=lambda row: hash_64(f"{config.seed}:{row['row_id']}"))[:_ROWS]
        if len(rows) < 2:
            raise NothingKept(f"{len(rows)} triplets are left; cosines between rows need two")
        device = "cuda" if config.train.gpus_per_worker > 0 else "cpu"
        model = MaskModel(mask, device)
        premise_ND, *sides = (
            model.embed([row[name] for row in rows]) for name in ("text", "entailment", "contradiction")
        )
        cosine_M = other_cosines(*(vector_ND.astype(np.float32) for vector_ND in (premise_ND, *sides)))
        share = 100 * float(np.mean(cosine_M >= MASK_SIMILARITY))
        counts = np.histogram(cosine_M.clip(-1, 1), _EDGES)[0]
        centres = (_EDGES[:-1] + _EDGES[1:]) / 2
        points = [
            (round(float(centre), 3), 100 * float(count) / len(cosine_M))
            for centre, count in zip(centres, counts, strict=True)
        ]
        cells = {
            name: MeasuredCell(values=[value], metric="% of cosines", num_rows=len(cosine_M))
            for name, value in (
                (ABOVE.name, share),
                (MASKED, 100 * num_masked(premise_ND, sides, mask.sigma) / len(cosine_M)),
            )
        }
        return RowFigures(num_triplets=len(triplets), cells=cells, points={"% of the cosines": points})

    return measure


def num_masked(premise_ND: Vectors, sides: Sequence[Vectors], sigma: float) -> int:
    """Return the number of hypotheses of other rows that the mask removes in a batch of N rows (Eq. 6).

    Args:
        premise_ND: P's vectors of the premises, fp16.
        sides: those of the entailments, and of the contradictions.
        sigma: cosine from which a hypothesis of another row is removed.
    """
    candidate_CD = torch.from_numpy(np.concatenate(sides))
    keep_NC = keep_cells(exact_cosines(torch.from_numpy(premise_ND), candidate_CD), sigma)
    return int((~keep_NC).sum())


def other_cosines(
    premise_ND: np.ndarray, entailment_ND: np.ndarray, contradiction_ND: np.ndarray
) -> np.ndarray:
    """Return the 2 N (N - 1) cosines of N premises with both hypotheses of the other rows."""
    others_NN = ~np.eye(len(premise_ND), dtype=bool)
    return np.concatenate(
        [(premise_ND @ side_ND.T)[others_NN] for side_ND in (entailment_ND, contradiction_ND)]
    )
