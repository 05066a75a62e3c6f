import numpy as np
import pytest

from multicsr.errors import ConfigError
from multicsr.stages.train.data.sampler import epoch_batches


@pytest.fixture
def key_RS():
    """500 rows over 900 sentences: many are shared."""
    draw = np.random.default_rng(0)
    return np.stack([draw.choice(900, size=3, replace=False) for _ in range(500)]).astype(np.int32)


def test_no_sentence_is_twice_in_a_batch_and_no_row_twice_in_an_epoch(key_RS):
    batches = epoch_batches(key_RS, 32, seed=1, epoch=0)
    assert len(batches) > 10
    for batch in batches:
        assert len(set(key_RS[batch].ravel().tolist())) == 3 * 32
    assert len(set(batches.ravel().tolist())) == batches.size


def test_few_rows_sit_out(key_RS):
    """Without a conflict, all but the remainder; with conflicts, not much more."""
    distinct = np.arange(3 * 500, dtype=np.int32).reshape(500, 3)
    assert epoch_batches(distinct, 32, seed=1, epoch=0).size == 500 - 500 % 32
    assert epoch_batches(key_RS, 32, seed=1, epoch=0).size >= 500 - 2 * 32


def test_a_function_of_seed_and_epoch(key_RS):
    first = epoch_batches(key_RS, 32, seed=1, epoch=0)
    assert np.array_equal(first, epoch_batches(key_RS, 32, seed=1, epoch=0))
    assert not np.array_equal(first[:5], epoch_batches(key_RS, 32, seed=1, epoch=1)[:5])
    assert not np.array_equal(first[:5], epoch_batches(key_RS, 32, seed=2, epoch=0)[:5])


def test_rows_that_sit_out_have_their_turn_in_other_epochs(key_RS):
    seen = {row for epoch in range(8) for row in epoch_batches(key_RS, 64, 3, epoch).ravel().tolist()}
    assert len(seen) >= 495


def test_premises_alone():
    keys = np.array([[0], [0], [0], [1], [2], [3]], dtype=np.int32)
    for batch in epoch_batches(keys, 2, seed=0, epoch=0):
        assert len(set(keys[batch].ravel().tolist())) == 2


@pytest.mark.parametrize("num_rows", [0, 31])
def test_too_few_rows_for_a_batch(num_rows):
    keys = np.arange(3 * num_rows, dtype=np.int32).reshape(num_rows, 3)
    with pytest.raises(ConfigError, match=r"train\.global_batch: 32 rows"):
        epoch_batches(keys, 32, seed=0, epoch=0)


def test_one_sentence_in_all_rows_cannot_fill_a_batch():
    keys = np.stack([np.zeros(50), np.arange(1, 51), np.arange(51, 101)], axis=1).astype(np.int32)
    with pytest.raises(ConfigError, match="without a common sentence"):
        epoch_batches(keys, 2, seed=0, epoch=0)


def test_a_common_sentence_does_not_starve_the_rest():
    """A third of the rows share a sentence: every batch takes one of them, and all others find a place."""
    keys = np.arange(3 * 900, dtype=np.int32).reshape(900, 3)
    keys[::3, 1] = 0
    batches = epoch_batches(keys, 16, seed=0, epoch=0)
    assert len(batches) == 600 // 15
    for batch in batches:
        assert len(set(keys[batch].ravel().tolist())) == 3 * 16
