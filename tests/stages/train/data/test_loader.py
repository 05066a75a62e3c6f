import threading
from itertools import groupby

import numpy as np
import pytest

from multicsr.config import TrainConfig
from multicsr.stages.train import distributed
from multicsr.stages.train.data.index import digest_rows, join_index
from multicsr.stages.train.data.loader import _ahead, feed
from multicsr.stages.train.data.plan import Plan, make_plan
from multicsr.stages.train.data.source import from_table

COLUMNS = {"masked_infonce": ["text", "entailment", "contradiction"], "simcse_unsup": ["text", "text"]}


@pytest.fixture
def be_worker(monkeypatch):
    """Makes this process worker `rank` of `size`."""

    def be(rank: int, size: int) -> None:
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "size", lambda: size)

    return be


def tokenize(texts) -> list[list[int]]:
    return [[*text.encode()] for text in texts]


def config_of(**settings) -> TrainConfig:
    return TrainConfig(**{"global_batch": 12, "epochs": 2, **settings})


def fed(triplets, config, steps_done=0, seed=3):
    """(the plan of the run, its batches after `steps_done` as this worker sees them)."""
    index = join_index([digest_rows(triplets, config.objective)])
    plan = make_plan(config, index, seed)
    source = from_table(triplets, index, config.objective)
    return plan, [*feed(source, plan, steps_done, tokenize, config, seed)]


def by_first_row(batch, own: slice) -> dict[int, object]:
    """A worker's chunks by their first row in the global batch."""
    starts = own.start + np.cumsum([0, *(chunk.num_rows for chunk in batch.chunks)])
    assert starts[-1] == own.stop
    return dict(zip(starts.tolist(), batch.chunks, strict=False))


@pytest.mark.parametrize("objective", COLUMNS)
@pytest.mark.parametrize("micro_batch", [None, 1, 4, 5, 12])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_chunks_are_cut_at_multiples_of_micro_batch_in_the_global_batch(
    size, micro_batch, objective, triplets, be_worker
):
    """With the sentences of their rows, column after column; SimCSE's premises come twice."""
    config = config_of(micro_batch=micro_batch, objective=objective, mask=None)
    for rank in range(size):
        be_worker(rank, size)
        plan, batches = fed(triplets, config)
        own = distributed.own_rows(12)
        for number, batch in enumerate(batches):
            groups = groupby(range(own.start, own.stop), lambda row: row // (micro_batch or 12))
            expected = {(rows := [*group])[0]: rows for _, group in groups}
            chunks = by_first_row(batch, own)
            assert [*chunks] == [*expected]
            for first, rows in expected.items():
                table = triplets.take(plan.row_BG[number][rows])
                texts = [text for column in COLUMNS[objective] for text in table[column].to_pylist()]
                assert chunks[first].sequences == tokenize(texts)


def test_the_same_rows_have_the_same_seed_on_any_number_of_workers(triplets, be_worker):
    seeds = []
    for size in (1, 2, 3):
        seeds.append({})
        for rank in range(size):
            be_worker(rank, size)
            _, batches = fed(triplets, config_of(micro_batch=2))
            for batch in batches:
                chunks = by_first_row(batch, distributed.own_rows(12))
                seeds[-1] |= {(batch.number, first): chunk.seed for first, chunk in chunks.items()}
    assert seeds[0] == seeds[1] == seeds[2]
    assert len(set(seeds[0].values())) == len(seeds[0]) == 16 * 6
    _, other = fed(triplets, config_of(micro_batch=2), seed=4)
    assert not {chunk.seed for batch in other for chunk in batch.chunks} & set(seeds[0].values())


@pytest.mark.parametrize("size", [1, 3])
def test_the_feed_goes_on_after_the_steps_that_were_done(size, triplets, be_worker):
    """As if it had never stopped, in the middle of an epoch or at its end."""
    be_worker(size - 1, size)
    config = config_of(accumulate=2, micro_batch=5)
    plan, whole = fed(triplets, config)
    assert [batch.number for batch in whole] == [*range(16)]
    for batch, row_G in zip(whole, plan.row_BG, strict=True):
        assert batch.row_G.tolist() == row_G.tolist()
        assert batch.own.row_ids == [f"row{row}" for row in row_G[distributed.own_rows(12)]]
    for steps_done in (1, 4, 5, 7):
        _, rest = fed(triplets, config, steps_done)
        for batch, same in zip(rest, whole[2 * steps_done :], strict=True):
            assert (batch.number, batch.own, batch.chunks) == (same.number, same.own, same.chunks)
            assert batch.row_G.tolist() == same.row_G.tolist()


def test_what_breaks_the_source_reaches_the_training_at_its_batch(triplets):
    config = config_of()
    index = join_index([digest_rows(triplets, config.objective)])
    whole = from_table(triplets, index, config.objective)

    def source(epochs):
        for number, rows in enumerate(whole(epochs)):
            if number == 6:
                raise OSError("disk")
            yield rows

    batches = feed(source, make_plan(config, index, 3), 0, tokenize, config, 3)
    assert [next(batches).number for _ in range(6)] == [*range(6)]
    with pytest.raises(OSError, match="disk"):
        next(batches)


@pytest.mark.parametrize("depth", [1, 4, 50])
def test_items_made_ahead_keep_their_order(depth):
    items = ([number] for number in range(20))
    assert [*_ahead(items, depth)] == [[number] for number in range(20)]
    assert [*_ahead(iter([]), depth)] == []


def test_an_item_is_made_while_the_one_before_is_in_use_but_not_all_of_them():
    made = threading.Semaphore(0)
    numbers = []

    def items():
        for number in range(100):
            numbers.append(number)
            made.release()
            yield number

    ahead = _ahead(items(), 4)
    assert next(ahead) == 0
    for _ in range(5):
        assert made.acquire(timeout=60)
    assert len(numbers) == 5
    ahead.close()


def test_a_plan_that_is_done_feeds_nothing(triplets):
    plan = Plan(np.arange(24).reshape(2, 12), np.array([1, 1]), 2)
    index = join_index([digest_rows(triplets, "masked_infonce")])
    source = from_table(triplets, index, "masked_infonce")
    assert [*feed(source, plan, 1, tokenize, config_of(), 3)] == []
