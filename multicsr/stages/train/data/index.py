"""An index of the rows as numbers, enough to plan every batch and to find every vector without text.

    R rows     S sentences a row     T distinct sentences

A worker holds only about sixty bytes a row of the whole corpus.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from multicsr.errors import RunError
from multicsr.execution.shard_report import count_reasons
from multicsr.rows import normalise
from multicsr.stages.train.objectives.load import load_objective

Ids = NDArray[np.int32]
"""Numbers of sentences."""
Digests = NDArray[np.uint64]
"""Hashes of texts, from `digest`."""


@dataclass(frozen=True)
class Index:
    """The sentences of each row, as numbers."""

    row_R: Digests
    """`digest` of each row's id."""
    text_RS: Ids
    """Number of each sentence by its exact text, from 0 to T - 1."""
    key_RS: Ids
    """Number of each sentence, equal for sentences that differ only in case and white space. Sentences with
    equal numbers never share a batch."""
    sentence_T: Digests
    """`digest` of the sentence with each number of `text_RS`."""
    score_R2: NDArray[np.float32] | None
    """Scores a and b of MultiCSR Eq. 3; None if the objective does not use them."""
    num_left_out: int
    """Number of rows left out because they contain the same sentence twice and so are no triplet."""
    withheld: Mapping[str, int] = field(default_factory=dict)
    """Number of rows that are kept from training, by reason."""
    has_negative_R: NDArray[np.bool_] | None = None
    """False where a row has no hard negative: its positive stands in that place in `text_RS` and `key_RS`.
    None: all rows have one, or the objective reads none."""
    weight_R: NDArray[np.float32] | None = None
    """Weight of each row in the mean of the loss; None: all rows have the same."""

    def __len__(self) -> int:
        """Return the number of rows, R."""
        return len(self.row_R)


def digest(text: str) -> int:
    """Return a 64-bit hash of a text (BLAKE2b)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def columns_of(objective: str) -> list[str]:
    """Return the names of the columns of curated rows that an objective reads besides `row_id`."""
    wanted = load_objective(objective)
    return [*wanted.sentences, *(["a", "b"] if wanted.uses_scores else [])]


def digest_rows(table: pa.Table, objective: str, withheld_R: pa.Array | None = None) -> pa.Table:
    """Return one part of an index: the digests of each row's id and of each of its sentences.

    Args:
        table: curated rows.
        objective: name of the objective, which decides the columns.
        withheld_R: reason for which each row is kept from training, null where it is not; None: no row is.

    Returns:
        Columns `row`, `text0`, `text1`, ... (exact text), `key0`, `key1`, ... (normalised text), if the
        objective uses the scores, `a` and `b`, and `reason` if `withheld_R` is given.

    Raises:
        RunError: a column is missing, or a value that is needed is null.
    """
    sentences = load_objective(objective).sentences
    for column in ("row_id", *columns_of(objective)):
        if column not in table.column_names:
            raise RunError(f"triplets have no column {column!r}; they have {', '.join(table.column_names)}")
        if table[column].null_count:
            raise RunError(f"column {column!r} of the triplets has {table[column].null_count} empty rows")
    digests = {"row": _digests(table["row_id"].to_pylist())}
    for number, column in enumerate(sentences):
        texts = table[column].to_pylist()
        digests[f"text{number}"] = _digests(texts)
        digests[f"key{number}"] = _digests(normalise(text).casefold() for text in texts)
    scores = [name for name in ("a", "b") if load_objective(objective).uses_scores]
    columns = {**digests, **{name: table[name].cast(pa.float32()) for name in scores}}
    return pa.table(columns if withheld_R is None else {**columns, "reason": withheld_R})


def digest_labelled(table: pa.Table, objective: str, withheld_R: pa.Array | None = None) -> pa.Table:
    """Return one part of an index, for labelled triplets.

    Args:
        table: rows in the schema `rows.LABELLED`.
        objective: name of the objective, which decides the columns; it uses no scores.
        withheld_R: see `digest_rows`.

    Returns:
        The columns of `digest_rows`, and `weight` and, if the objective reads hard negatives, `has_negative`.
    """
    part = digest_rows(with_negatives(table), objective, withheld_R).append_column("weight", table["weight"])
    if "contradiction" not in load_objective(objective).sentences:
        return part
    return part.append_column("has_negative", pc.is_valid(table["contradiction"]))


def with_negatives(table: pa.Table) -> pa.Table:
    """Return rows whose positive also stands in the place of a hard negative that is missing."""
    if "contradiction" not in table.column_names or not table["contradiction"].null_count:
        return table
    filled = pc.coalesce(table["contradiction"], table["entailment"])
    return table.set_column(table.column_names.index("contradiction"), "contradiction", filled)


def join_index(parts: Sequence[pa.Table]) -> Index:
    """Return the index of all rows, without those that are withheld or contain the same sentence twice.

    Args:
        parts: parts from `digest_rows`, in the order of the rows.
    """
    table = pa.concat_tables(parts, promote_options="default")
    withheld: dict[str, int] = {}
    if "reason" in table.column_names:
        withheld = count_reasons(table.filter(pc.is_valid(table["reason"])))
        table = table.filter(pc.is_null(table["reason"]))
    has_negative_R = _filled(table, "has_negative", True).astype(bool)
    weight_R = _filled(table, "weight", 1.0).astype(np.float32)
    num_sentences = sum(name.startswith("text") for name in table.column_names)
    text_RS = _stack(table, [f"text{number}" for number in range(num_sentences)])
    key_RS = _stack(table, [f"key{number}" for number in range(num_sentences)])
    ordered_RS = np.sort(key_RS, axis=1)
    num_different_R = 1 + (ordered_RS[:, 1:] != ordered_RS[:, :-1]).sum(axis=1)
    whole_R = num_different_R == num_sentences - ~has_negative_R
    sentence_T, text_numbers = np.unique(text_RS[whole_R], return_inverse=True)
    _, key_numbers = np.unique(key_RS[whole_R], return_inverse=True)
    shape = (int(whole_R.sum()), num_sentences)
    return Index(
        row_R=table["row"].to_numpy()[whole_R],
        text_RS=text_numbers.reshape(shape).astype(np.int32),
        key_RS=key_numbers.reshape(shape).astype(np.int32),
        sentence_T=sentence_T,
        score_R2=_stack(table, ["a", "b"])[whole_R] if "a" in table.column_names else None,
        num_left_out=int((~whole_R).sum()),
        withheld=withheld,
        has_negative_R=None if has_negative_R.all() else has_negative_R[whole_R],
        weight_R=None if (weight_R == 1).all() else weight_R[whole_R],
    )


def _filled(table: pa.Table, column: str, default: float) -> NDArray[np.generic]:
    """Return a column that only parts with labelled triplets have; `default` is the value of other rows."""
    if column not in table.column_names:
        return np.full(table.num_rows, default)
    filled = table[column].fill_null(default)
    return np.asarray(filled)


def _digests(texts: Iterable[str]) -> Digests:
    """Return the digest of each text."""
    return np.fromiter((digest(text) for text in texts), np.uint64)


def _stack(table: pa.Table, columns: Sequence[str]) -> NDArray[np.generic]:
    """Return some columns as one array, [R, len(columns)]."""
    return np.stack([table[column].to_numpy() for column in columns], axis=1)
