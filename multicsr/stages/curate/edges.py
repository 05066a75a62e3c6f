"""Rows at the edge of the thresholds: those that are just kept and those that are just lost.

They show better than counts whether a threshold is right: if the rows just lost are good, it is too strict.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from multicsr.config import Config, CurateConfig
from multicsr.messages.triplet_lines import triplet_lines
from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.rule import Booleans, Scores, rejections_of, score_columns
from multicsr.stages.curate.thresholds import ordered_scores, with_absolute_thresholds
from multicsr.stages.score.scorer import DECIMALS
from multicsr.storage.id_span import IdSpan
from multicsr.storage.manifest import Manifest, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current

_TEXTS = ["text", "entailment", "contradiction"]
_SHOWN = 3
"""Rows that are shown on each side."""


class _Place(NamedTuple):
    """Place of a scored row near the thresholds; places are ordered by the distance."""

    distance: float
    row_id: str
    file: int
    """Index of its file in the artifact."""
    a: float
    b: float


@dataclass(frozen=True)
class EdgeRow:
    """A scored row near the thresholds."""

    distance: float
    """Points by which the nearest threshold would have to move to decide otherwise about the row."""
    row_id: str
    text: str
    entailment: str
    contradiction: str
    a: float
    b: float


def edge_lines(config: Config) -> Iterator[str]:
    """Yield lines of text with the rows at both sides of the thresholds of a configuration.

    Raises:
        ConfigError: the rows were scored without the score that `curate.score` selects.
        RunError: no thresholds keep the share that `curate.keep_share` asks for.
    """
    store = Store.of(config)
    scored = current(store).manifest("scored")
    curation = with_absolute_thresholds(Curation.of(config, store, scored), store, scored)
    kept, lost = edge_rows(store, scored, curation)
    for title, rows in (("just kept", kept), ("just lost", lost)):
        yield f"\n{title} with the present thresholds"
        for row in rows:
            yield from triplet_lines(row.text, row.entailment, row.contradiction, row.a, row.b)
        if not rows:
            yield "  no row"


def edge_rows(
    store: Store, scored: Manifest, curation: Curation, number: int = _SHOWN
) -> tuple[list[EdgeRow], list[EdgeRow]]:
    """Return the kept and the lost rows that are nearest to the thresholds, the nearest first.

    One file is in memory at a time. Rows without both scores are left out.

    Args:
        store: the store of the rows.
        scored: manifest of the artifact `scored`.
        curation: settings with absolute thresholds.
        number: maximum number of rows on each side.
    """
    sides: tuple[list[_Place], list[_Place]] = ([], [])
    for file, table in enumerate(iter_tables(store, scored, ["row_id", *score_columns(curation)])):
        a_N, b_N = ordered_scores(table, curation)
        lost_N = np.logical_or.reduce([each_N for _, each_N in rejections_of(a_N, b_N, curation)])
        has_both_N = np.isfinite(a_N) & np.isfinite(b_N)
        distance_N = _distances(a_N, b_N, lost_N, curation)
        for side, mask_N in zip(sides, (has_both_N & ~lost_N, has_both_N & lost_N), strict=True):
            at_M = np.flatnonzero(mask_N)
            nearest_K = at_M[np.argsort(distance_N[at_M], kind="stable")[:number]]
            ids = table["row_id"].take(pa.array(nearest_K)).to_pylist()
            distances, as_, bs = (each_N[nearest_K].tolist() for each_N in (distance_N, a_N, b_N))
            found = map(_Place, distances, ids, repeat(file), as_, bs)
            side[:] = heapq.nsmallest(number, [*side, *found])
    kept, lost = ([_with_texts(store, scored, place) for place in side] for side in sides)
    return kept, lost


def _distances(a_N: Scores, b_N: Scores, lost_N: Booleans, config: CurateConfig) -> Scores:
    """Return for each row how far it is from the other side of the thresholds.

    A kept row is lost as soon as one threshold moves past it; a lost row must pass all that reject it. What
    `rule: reference` rejects beside the thresholds, equal scores and two high ones, is at distance 0.
    """
    margins = [a_N - config.alpha, config.beta - b_N]
    if config.rule == "paper":
        margins.append(a_N - b_N - config.gamma)
    least_N = np.minimum.reduce(margins)
    return np.asarray(np.round(np.where(lost_N, np.maximum(-least_N, 0.0), least_N), DECIMALS))


def _with_texts(store: Store, scored: Manifest, place: _Place) -> EdgeRow:
    """Read the texts of a row. Those of all other rows, most of what a file holds, are not read."""
    span = IdSpan(place.row_id, place.row_id)
    [row] = store.read_table(scored.files[place.file], _TEXTS, filters=span.rows).to_pylist()
    return EdgeRow(place.distance, place.row_id, **row, a=place.a, b=place.b)
