"""Row ids as numbers, against plain comparisons of texts."""

import random

import numpy as np
import pyarrow as pa
import pytest

from multicsr.storage.id_numbers import find_ids, hex_ids, id_words, order_by_id


@pytest.fixture
def ids():
    """Ids of which many are equal, and many share their first or last 64 bits."""
    draw = random.Random(0)
    halves = [f"{number:016x}" for number in (0, 1, 2**63, 2**64 - 1)]
    return [draw.choice(halves) + draw.choice(halves) for _ in range(200)]


def words_of(ids):
    return id_words(pa.chunked_array([ids], pa.string()))


def test_ids_are_the_same_after_a_round_trip(ids):
    assert hex_ids(words_of(ids)).to_pylist() == ids
    chunks = pa.chunked_array([ids[:7], [], ids[7:]], pa.string()).slice(3, 50)
    assert hex_ids(id_words(chunks)).to_pylist() == ids[3:53]
    assert id_words(pa.chunked_array([], pa.string())).shape == (0, 2)


def test_null_is_no_id(ids):
    with pytest.raises(ValueError, match="2 of 202 row ids are null"):
        words_of([None, *ids, None])


def test_order_is_that_of_texts(ids):
    then_N = np.array([(7 * row) % 11 for row in range(len(ids))])
    expected = sorted(range(len(ids)), key=lambda row: (ids[row], then_N[row], row))
    assert order_by_id(words_of(ids), then_N).tolist() == expected
    assert order_by_id(words_of(ids[:1]), then_N[:1]).tolist() == [0]
    assert order_by_id(words_of([])).tolist() == []


@pytest.mark.parametrize("number", [0, 1, 3, 50])
def test_the_first_place_of_each_id(ids, number):
    among = ids[:number]
    expected = [among.index(each) if each in among else -1 for each in ids]
    assert find_ids(words_of(ids), words_of(among)).tolist() == expected
    assert find_ids(words_of([]), words_of(among)).tolist() == []
