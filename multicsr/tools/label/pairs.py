"""The pairs that `multicsr label` shows, out of a file or out of the store of a run."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.hashing import hash_64
from multicsr.stages.evaluate.held_out import CHOOSING_PART, choosing_share, held_out_share, is_between
from multicsr.storage.manifest import iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import Snapshot, current
from multicsr.tools.task.table import Part, read_table

_ROWS_PER_PAIR = 20
"""Triplets of a store that are read for a pair that is shown, so that all scores occur among them."""
_MOST_SHARE = 0.5
"""Share of the premises that are read at most if none is held out."""
_COLUMNS = ("row_id", "text", "entailment", "contradiction", "a", "b")
_Pairs = list[tuple[str, str]]


def pairs_of_file(path: Path, most: int) -> _Pairs:
    """Return pairs of a CSV or TSV file in random order, the same one every time.

    Args:
        path: a file with two columns of texts, such as sentence1 and sentence2.
        most: greatest number of pairs.

    Raises:
        ConfigError, RunError: see `read_table`; or the file has no pairs.
    """
    table = read_table(path, {})
    is_search = "query" in table.columns
    first: Part = "query" if is_search else "text"
    second: Part = "document" if is_search else "text2"
    if second not in table.columns:
        raise ConfigError(
            f"{path} has no second text in a row; it needs columns such as sentence1, sentence2"
        )
    pairs = {(row.values[first], row.values[second]): None for row in table.rows}
    return _shuffled(pairs)[:most]


def pairs_of_store(config: Config, most: int) -> _Pairs:
    """Return premises with a hypothesis each, spread evenly over the scores that these have from 0 to 5.

    The judgements may be a task: only triplets are taken that were held out of the training and that choose
    among no merges. If nothing is held out, they are any triplets.

    Raises:
        ConfigError: the store has no curated triplets.
    """
    snapshot = current(Store.of(config))
    if "curated" not in snapshot:
        raise ConfigError("there are no curated triplets yet; run `multicsr run CONFIG --until curate` first")
    curated = snapshot.manifest("curated")
    above, share = _held_out(config, snapshot)
    share = min(share or _MOST_SHARE, above + _ROWS_PER_PAIR * most / max(curated.rows_out, 1))
    tables = [
        rows.filter(pa.array(is_between(rows["row_id"].to_pylist(), above, share), pa.bool_()))
        for rows in iter_tables(snapshot.store, curated, _COLUMNS)
    ]
    scored = [
        (row[score], (row["text"], row[hypothesis]))
        for row in pa.concat_tables(tables).to_pylist()
        for hypothesis, score in (("entailment", "a"), ("contradiction", "b"))
    ]
    scored.sort(key=lambda pair: pair[0])
    places = np.unique(np.linspace(0, len(scored) - 1, min(most, len(scored))).round().astype(int))
    return _shuffled(scored[place][1] for place in places)


def _held_out(config: Config, snapshot: Snapshot) -> tuple[float, float]:
    """Return the shares of the premises between which triplets neither are trained on nor choose; 0, 0: none.

    They are those of the model, and those of the configuration before there is one.
    """
    if "model" in snapshot:
        model = snapshot.manifest("model")
        return choosing_share(model), held_out_share(model)
    share = config.evaluate.held_out
    may_choose = config.train.dev is None and config.train.merge != []
    return CHOOSING_PART * share if may_choose else 0.0, share


def _shuffled(pairs: Iterable[tuple[str, str]]) -> _Pairs:
    """Return the pairs in an order that depends on nothing but their texts."""
    return sorted(pairs, key=lambda pair: hash_64("\t".join(pair)))
