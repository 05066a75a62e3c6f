import pytest

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.stages.train.data.index import digest_rows, join_index
from multicsr.stages.train.data.plan import make_plan


def test_steps_instead_of_epochs(triplets):
    index = join_index([digest_rows(triplets, "masked_infonce")])
    plan = make_plan(TrainConfig(global_batch=16, epochs=3), index, seed=1)
    assert plan.row_BG.shape == (len(plan.epoch_B), 16)
    assert sorted(set(plan.epoch_B.tolist())) == [1, 2, 3]
    for steps in (2, plan.steps):
        some = make_plan(TrainConfig(global_batch=16, steps=steps), index, seed=1)
        assert (some.row_BG == plan.row_BG[:steps]).all()
        assert (some.epoch_B == plan.epoch_B[:steps]).all()


def test_batches_that_do_not_fill_a_step_are_left_out(triplets):
    index = join_index([digest_rows(triplets, "masked_infonce")])
    one = make_plan(TrainConfig(global_batch=16, epochs=2), index, seed=1)
    three = make_plan(TrainConfig(global_batch=16, epochs=2, accumulate=3), index, seed=1)
    assert three.steps == one.steps // 3
    assert (three.row_BG == one.row_BG[: 3 * three.steps]).all()
    with pytest.raises(ConfigError, match=r"train\.accumulate: a step takes 99 batches"):
        make_plan(TrainConfig(global_batch=16, epochs=1, accumulate=99), index, seed=1)
