import math

import pytest

from multicsr.config import TrainConfig
from multicsr.stages.train.schedule import learning_rate


def test_warmup_and_linear_decay():
    config = TrainConfig(learning_rate=1.0, warmup=0.2)
    rates = [learning_rate(step, 10, config) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    assert learning_rate(0, 10, TrainConfig(learning_rate=1.0)) == 1.0


def test_other_schedules():
    constant = TrainConfig(learning_rate=1.0, schedule="constant", warmup=0.1)
    assert [learning_rate(step, 20, constant) for step in (0, 1, 2, 19)] == [0.5, 1.0, 1.0, 1.0]
    cosine = TrainConfig(learning_rate=1.0, schedule="cosine")
    rates = [learning_rate(step, 100, cosine) for step in (0, 25, 50, 75)]
    assert rates == pytest.approx([1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
