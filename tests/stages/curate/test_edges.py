"""Rows at the edge of the thresholds, against a search over all rows and moved thresholds."""

import random

import pytest

from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.edges import edge_rows
from multicsr.stages.curate.rule import decide
from multicsr.storage.store import Store
from tests.stages.curate.test_rule import NAN, make_rows, scored_artifact

_draw = random.Random(11)
SCORES = [(round(_draw.uniform(0, 5), 3), round(_draw.uniform(0, 5), 3)) for _ in range(300)]
SCORES += [(NAN, 1.0), (4.0, NAN)]


def moved(config: Curation, by: float) -> Curation:
    """Return the settings with every threshold stricter by so much; looser if it is negative."""
    update = {"alpha": config.alpha + by, "beta": config.beta - by}
    return config.model_copy(update=update | ({"gamma": config.gamma + by} if config.rule == "paper" else {}))


def is_kept(a: float, b: float, config: Curation) -> bool:
    return decide(make_rows([(a, b)]), config).rows.num_rows == 1


@pytest.mark.parametrize("rule", ["paper", "reference"])
def test_nearest_rows_of_both_sides_are_found(tmp_path, rule):
    store, table = Store.open(str(tmp_path)), make_rows(SCORES)
    scored = scored_artifact(store, [table.slice(0, 100), table.slice(100, 50), table.slice(150)])
    config = Curation(rule=rule)
    kept, lost = edge_rows(store, scored, config, number=5)
    assert len(kept) == len(lost) == 5
    for row in kept:
        assert is_kept(row.a, row.b, moved(config, row.distance - 2e-4))
        assert not is_kept(row.a, row.b, moved(config, row.distance + 2e-4))
    for row in lost:
        assert not is_kept(row.a, row.b, moved(config, 2e-4 - row.distance))
        assert is_kept(row.a, row.b, moved(config, -2e-4 - row.distance))
    nearer = {
        side: [
            (a, b)
            for a, b in SCORES[:300]
            if is_kept(a, b, config) is side
            and is_kept(a, b, moved(config, rows[-1].distance - 2e-4 if side else 2e-4 - rows[-1].distance))
            is not side
        ]
        for side, rows in ((True, kept), (False, lost))
    }
    assert all(len(rows) <= 5 for rows in nearer.values()), nearer


def test_sides_without_rows_are_empty(tmp_path):
    store = Store.open(str(tmp_path))
    scored = scored_artifact(store, [make_rows([(4.0, 1.0), (NAN, 1.0)])])
    kept, lost = edge_rows(store, scored, Curation())
    assert (len(kept), lost) == (1, [])
