import numpy as np
import pytest

from multicsr.hashing import hash_64
from multicsr.stages.curate.held_out import is_held_out

IDS = [f"{number:032x}" for number in range(20_000)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_of_held_out_rows_is_the_given_one(share):
    held_out = is_held_out(IDS, share).mean()
    assert abs(held_out - share) < 4 * np.sqrt(share * (1 - share) / len(IDS))


def test_no_row_is_held_out_at_zero():
    assert not is_held_out(IDS, 0.0).any()


def test_a_row_is_on_the_same_side_in_any_company_and_order():
    whole = is_held_out(IDS, 0.2)
    order = np.random.default_rng(0).permutation(len(IDS))
    np.testing.assert_array_equal(is_held_out([IDS[place] for place in order], 0.2), whole[order])
    parts = [is_held_out(IDS[start : start + 3_000], 0.2) for start in range(0, len(IDS), 3_000)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_held_out_rows_are_in_every_range_of_ids():
    """Files are ranges of ids: no file is held out as a whole."""
    held_out = is_held_out(IDS, 0.2)
    assert all(part.any() and not part.all() for part in np.array_split(held_out, 100))


def test_a_larger_share_holds_out_the_rows_of_a_smaller_one():
    assert is_held_out(IDS, 0.3)[is_held_out(IDS, 0.1)].all()


def test_the_side_of_a_row_is_a_function_of_its_id_that_never_changes():
    """Rows that change sides would have been trained on before they are measured."""
    assert is_held_out(IDS[:50], 0.4).tolist() == [hash_64(row_id) / 2**64 < 0.4 for row_id in IDS[:50]]
    assert [place for place, each in enumerate(is_held_out(IDS[:20], 0.3)) if each] == [2, 4, 5, 10, 16, 18]
