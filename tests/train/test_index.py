import pyarrow as pa
import pytest

from multicsr.config import TrainConfig
from multicsr.errors import RunError
from multicsr.train.triplets import read_triplets

TABLE = pa.table(
    {
        "text": ["A dog runs.", "a  dog runs.", "It rains.", "Same.", "Two men eat."],
        "entailment": ["An animal moves.", "It moves.", "It is wet.", "same.", "Men eat."],
        "contradiction": ["It sleeps.", "It sleeps.", "It is dry.", "Other.", "It is dry."],
    }
)


def test_rows_point_at_distinct_texts():
    triplets = read_triplets(TABLE, TrainConfig())
    assert len(triplets.texts) == len(set(triplets.texts))
    rows = [[triplets.texts[text] for text in row] for row in triplets.text_RS]
    assert rows == [list(row.values()) for row in TABLE.to_pylist() if row["text"] != "Same."]


def test_texts_that_differ_in_case_and_space_share_a_key():
    key = read_triplets(TABLE, TrainConfig()).key_RS
    assert key[0, 0] == key[1, 0]
    assert key[0, 2] == key[1, 2]
    assert len(set(key.ravel().tolist())) == 12 - 3


def test_a_row_that_repeats_a_sentence_is_left_out():
    triplets = read_triplets(TABLE, TrainConfig())
    assert triplets.num_left_out == 1
    assert triplets.names == ["0", "1", "2", "4"]


def test_unsupervised_needs_premises_alone():
    config = TrainConfig(objective="simcse_unsup", mask=None)
    triplets = read_triplets(TABLE.select(["text"]), config)
    assert triplets.text_RS.shape == (5, 1)
    assert triplets.num_left_out == 0


def test_chunks_do_not_matter():
    chunked = pa.concat_tables([TABLE.slice(0, 2), TABLE.slice(2, 3)])
    one, two = read_triplets(TABLE, TrainConfig()), read_triplets(chunked, TrainConfig())
    assert one.texts == two.texts
    assert (one.text_RS == two.text_RS).all()


def test_broken_tables():
    with pytest.raises(RunError, match="no column 'contradiction'"):
        read_triplets(TABLE.drop_columns("contradiction"), TrainConfig())
    empty = TABLE.set_column(1, "entailment", pa.array(["a", None, "b", "c", "d"]))
    with pytest.raises(RunError, match="column 'entailment' of the triplets has 1 empty"):
        read_triplets(empty, TrainConfig())
