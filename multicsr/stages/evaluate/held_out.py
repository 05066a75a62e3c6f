"""Tasks without labels: curated triplets whose premises were held out of the training.

The LLM that wrote the triplets also scored them. So these tasks show whether the encoder has learned what the
LLM wrote, on premises that it has not seen. They do not show whether the encoder is better for its users.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multicsr.errors import RunError
from multicsr.stages.curate.held_out import is_held_out
from multicsr.stages.evaluate.kinds.alignment import PositivePairsTask
from multicsr.stages.evaluate.kinds.triplets import TripletTask
from multicsr.stages.evaluate.task import Task
from multicsr.storage.manifest import Manifest, iter_tables
from multicsr.storage.store import Store

TRIPLETS = "held-out triplets"
"""Name of the task that measures how often the entailment is nearer than the contradiction."""
PAIRS = "held-out pairs"
"""Name of the task that measures alignment and uniformity of premises and entailments."""
_MOST_ROWS = 5_000
"""Number of triplets that are measured; of more, those with the least hashes of their ids."""
_COLUMNS = ("text", "entailment", "contradiction")


CHOOSING_PART = 0.5
"""Part of the held-out share that chooses among merges without `train.dev`; the rest is measured."""


def choosing_share(model: Manifest) -> float:
    """Return the share of the premises whose triplets chose among the merges of a model; 0: none did."""
    train = model.settings.get("train")
    is_merged = isinstance(train, dict) and bool(train.get("merge"))
    return CHOOSING_PART * held_out_share(model) if is_merged and "dev" not in model.settings else 0.0


def held_out_share(model: Manifest) -> float:
    """Return the share of the premises that was held out of the training of a model."""
    share = model.settings.get("held_out", 0.0)
    return share if isinstance(share, float) else 0.0


def rows_trained_on(model: Manifest) -> str:
    """Return the name of the artifact whose rows a model was trained on: `curated` or `sentences`."""
    train = model.settings.get("train")
    is_of_sentences = isinstance(train, dict) and train.get("rows") == "sentences"
    return "sentences" if is_of_sentences else "curated"


@dataclass(frozen=True)
class HeldOut:
    """Curated triplets that the training did not see; all lists have the same length."""

    premises: list[str]
    entailments: list[str]
    contradictions: list[str]

    def tasks(self) -> list[Task]:
        """Return the tasks that are measured on them."""
        return [
            TripletTask(TRIPLETS, self.premises, self.entailments, self.contradictions),
            PositivePairsTask(PAIRS, self.premises, self.entailments),
        ]

    def texts(self) -> list[str]:
        """Return the distinct texts, triplet by triplet."""
        triplets = zip(self.premises, self.entailments, self.contradictions, strict=True)
        return list(dict.fromkeys(chain.from_iterable(triplets)))


def read_held_out(store: Store, curated: Manifest, share: float, above: float = 0.0) -> HeldOut:
    """Return the curated triplets that a training with this share did not see, `_MOST_ROWS` or about so many.

    Args:
        store: the store.
        curated: manifest of the curated triplets.
        share: share of the premises that was held out.
        above: share of the premises whose triplets are left out, because they chose.

    Raises:
        RunError: there are none.
    """
    measured = min(share, above + _MOST_ROWS / max(curated.rows_out, 1))
    triplets = pa.concat_tables(
        rows.filter(pa.array(is_between(rows["row_id"].to_pylist(), above, measured))).select(_COLUMNS)
        for rows in iter_tables(store, curated, ["row_id", *_COLUMNS])
    )
    if not triplets.num_rows:
        raise RunError(
            f"evaluate.held_out: none of {curated.rows_out:,} curated triplets is held out at {share:g}; set "
            "it higher, or curate less strictly"
        )
    return HeldOut(*(triplets[name].to_pylist() for name in _COLUMNS))


def is_between(row_ids: Sequence[str], above: float, share: float) -> NDArray[np.bool_]:
    """Return for each row whether it is held out at `share` and not at the smaller share `above`."""
    return is_held_out(row_ids, share) & ~is_held_out(row_ids, above)
