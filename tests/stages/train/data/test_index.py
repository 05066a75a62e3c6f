from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from multicsr.errors import RunError
from multicsr.stages.train.data.index import digest, digest_labelled, digest_rows, join_index

TABLE = pa.table(
    {
        "row_id": ["r0", "r1", "r2", "r3", "r4"],
        "text": ["A dog runs.", "a  dog runs.", "It rains.", "Same.", "Two men eat."],
        "entailment": ["An animal moves.", "It moves.", "It is wet.", "same.", "Men eat."],
        "contradiction": ["It sleeps.", "It sleeps.", "It is dry.", "Other.", "It is dry."],
        "a": [5.0, 4.0, 3.0, 2.0, 1.5],
        "b": [0.0, 0.5, 1.0, 1.5, 2.0],
    }
)
WHOLE = [0, 1, 2, 4]
"""Rows that do not repeat a sentence."""


def index_of(*parts: pa.Table, objective: str = "masked_infonce"):
    return join_index([digest_rows(part, objective) for part in parts])


def test_rows_point_at_distinct_texts():
    index = index_of(TABLE)
    assert len(set(index.sentence_T.tolist())) == len(index.sentence_T) == 10
    rows = TABLE.select(["text", "entailment", "contradiction"]).take(WHOLE).to_pylist()
    assert index.sentence_T[index.text_RS].tolist() == [
        [digest(text) for text in row.values()] for row in rows
    ]
    assert index.row_R.tolist() == [digest(f"r{row}") for row in WHOLE]


def test_a_digest_is_the_same_in_every_process():
    """Workers and later runs find vectors by it; Python's own hash would differ."""
    assert digest("It rains.") == 18014031804729099875
    assert digest("it rains.") != digest("It rains.")


def test_texts_that_differ_in_case_and_space_share_a_key():
    key = index_of(TABLE).key_RS
    assert key[0, 0] == key[1, 0]
    assert key[0, 2] == key[1, 2]
    assert len(set(key.ravel().tolist())) == 12 - 3


@pytest.mark.parametrize(
    "same", [("text", "entailment"), ("text", "contradiction"), ("entailment", "contradiction")]
)
def test_a_row_that_repeats_a_sentence_is_left_out(same):
    rows = TABLE.take(WHOLE).to_pylist()
    rows[2][same[1]] = f" {rows[2][same[0]].upper()} "
    index = index_of(pa.Table.from_pylist(rows))
    assert index.num_left_out == 1
    assert index.row_R.tolist() == [digest("r0"), digest("r1"), digest("r4")]
    assert len(index) == len(index.text_RS) == len(index.key_RS) == 3


def test_withheld_rows_are_left_out_and_counted_by_reason():
    reasons = pa.array([None, "held out", None, "leaked", "held out"], pa.string())
    index = join_index([digest_rows(TABLE, "masked_infonce", reasons)])
    assert dict(index.withheld) == {"held out": 2, "leaked": 1}
    assert index.row_R.tolist() == [digest("r0"), digest("r2")]
    assert len(index.sentence_T) == 6
    assert index.num_left_out == 0


@pytest.mark.parametrize("cuts", [[0, 2, 5], [0, 0, 1, 4, 5]])
def test_parts_in_order_make_the_whole(cuts):
    parts = [TABLE.slice(start, end - start) for start, end in pairwise(cuts)]
    one, joined = index_of(TABLE, objective="claif"), index_of(*parts, objective="claif")
    assert one.num_left_out == joined.num_left_out == 1
    for name in ("row_R", "text_RS", "key_RS", "sentence_T", "score_R2"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(one, name))


@pytest.mark.parametrize("objective", ["claif", "clhaif"])
def test_scores_follow_their_rows(objective):
    index = index_of(TABLE, objective=objective)
    assert index.score_R2.tolist() == [[5.0, 0.0], [4.0, 0.5], [3.0, 1.0], [1.5, 2.0]]


@pytest.mark.parametrize("objective", ["masked_infonce", "multicsr_reference", "simcse_sup", "simcse_unsup"])
def test_objectives_without_scores_do_not_look_at_them(objective):
    assert index_of(TABLE.drop_columns(["a", "b"]), objective=objective).score_R2 is None
    assert index_of(TABLE, objective=objective).score_R2 is None


def test_unsupervised_needs_premises_alone():
    index = index_of(TABLE.select(["row_id", "text"]), objective="simcse_unsup")
    assert index.text_RS.shape == (5, 1)
    assert index.num_left_out == 0


@pytest.mark.parametrize("column", ["row_id", "text", "entailment", "contradiction", "a", "b"])
def test_a_missing_column_and_an_empty_value_are_named_in_one_line(column):
    with pytest.raises(RunError, match=f"^triplets have no column '{column}'; they have [^\n]*$"):
        digest_rows(TABLE.drop_columns(column), "claif")
    values = [None, *TABLE[column].to_pylist()[1:]]
    holed = TABLE.set_column(TABLE.column_names.index(column), column, pa.array(values))
    with pytest.raises(RunError, match=f"^column '{column}' of the triplets has 1 empty rows$"):
        digest_rows(holed, "claif")


LABELLED = pa.table(
    {
        "row_id": ["s0", "s1", "s2"],
        "text": ["A cat sits.", "It snows.", "It rains."],
        "entailment": ["An animal rests.", "It is cold.", "Water falls."],
        "contradiction": ["It runs.", None, None],
        "weight": pa.array([1.0, 0.5, 2.0], pa.float32()),
    }
)


def joined(*tables: pa.Table):
    """The index of curated and labelled rows."""
    curated = [digest_rows(TABLE, "masked_infonce")]
    return join_index([*curated, *(digest_labelled(table, "masked_infonce") for table in tables)])


def test_labelled_rows_follow_the_curated_ones_with_weight_and_missing_negatives():
    index = joined(LABELLED)
    assert index.row_R.tolist() == [digest(f"r{row}") for row in WHOLE] + [digest(f"s{n}") for n in range(3)]
    assert index.weight_R.tolist() == [1.0] * 4 + [1.0, 0.5, 2.0]
    assert index.has_negative_R.tolist() == [True] * 5 + [False, False]
    assert index.num_left_out == 1
    assert index.text_RS[5, 1] == index.text_RS[5, 2], "its positive stands in the place of the negative"
    assert index.key_RS[6, 0] == index.key_RS[2, 0], "the premise of a curated row is the same sentence"


def test_without_labelled_rows_there_are_no_weights():
    index = joined()
    assert index.weight_R is None
    assert index.has_negative_R is None
    plain = joined(LABELLED.slice(0, 1))
    assert plain.weight_R is None
    assert plain.has_negative_R is None


def test_an_objective_that_reads_premises_alone_takes_pairs_too():
    parts = [digest_rows(TABLE, "simcse_unsup"), digest_labelled(LABELLED, "simcse_unsup")]
    index = join_index(parts)
    assert (len(index), index.num_left_out, index.has_negative_R) == (8, 0, None)


def test_a_labelled_pair_of_one_sentence_is_left_out():
    rows = LABELLED.to_pylist()
    rows[1]["entailment"] = " it SNOWS."
    index = joined(pa.Table.from_pylist(rows, LABELLED.schema))
    assert index.num_left_out == 2
    assert index.has_negative_R.tolist() == [True] * 5 + [False]
