"""Curated rows as training sees them: distinct sentences, and triplets that point at them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multicsr.config import TrainConfig
from multicsr.errors import RunError
from multicsr.rows import normalise

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Triplets:
    """R rows over T distinct texts, S sentences a row (premise, entailment, contradiction; or premise)."""

    texts: list[str]
    text_RS: Ids
    """Index into `texts`."""
    key_T: Ids
    """Equal for texts that differ in nothing but case and white space: these never share a batch."""
    names: Sequence[str]
    """The R rows' ids, for messages."""
    num_left_out: int
    """Rows that repeat a sentence within themselves: no triplet at all."""

    @property
    def key_RS(self) -> Ids:
        return self.key_T[self.text_RS]


def read_triplets(table: pa.Table, config: TrainConfig) -> Triplets:
    """Number the sentences that the objective needs.

    Args:
        table: `rows.CURATED`, or any table with text, entailment and contradiction.
        config: `simcse_unsup` uses the premises alone.

    Raises:
        RunError: a column is missing, or a needed sentence is null.
    """
    columns = ["text"] if config.objective == "simcse_unsup" else ["text", "entailment", "contradiction"]
    for column in columns:
        if column not in table.column_names:
            raise RunError(f"triplets have no column {column!r}; they have {', '.join(table.column_names)}")
        if table[column].null_count:
            raise RunError(f"column {column!r} of the triplets has {table[column].null_count} empty rows")
    coded = pa.chunked_array(
        [chunk for column in columns for chunk in table[column].chunks], pa.string()
    ).combine_chunks()
    coded = coded.dictionary_encode()
    texts: list[str] = coded.dictionary.to_pylist()
    text_RS = coded.indices.to_numpy().reshape(len(columns), -1).T
    key_T = _keys(texts)
    whole_R = _distinct(key_T[text_RS])
    names = table["row_id"].to_pylist() if "row_id" in table.column_names else range(table.num_rows)
    return Triplets(
        texts=texts,
        text_RS=np.ascontiguousarray(text_RS[whole_R]),
        key_T=key_T,
        names=[str(name) for name, whole in zip(names, whole_R, strict=True) if whole],
        num_left_out=int((~whole_R).sum()),
    )


def _keys(texts: Sequence[str]) -> Ids:
    numbers: dict[str, int] = {}
    folded = (normalise(text).casefold() for text in texts)
    return np.fromiter((numbers.setdefault(text, len(numbers)) for text in folded), np.int32, len(texts))


def _distinct(key_RS: Ids) -> NDArray[np.bool_]:
    """bool [R], True where a row's sentences all differ."""
    ordered_RS = np.sort(key_RS, axis=1)
    return np.asarray((ordered_RS[:, 1:] != ordered_RS[:, :-1]).all(axis=1))
