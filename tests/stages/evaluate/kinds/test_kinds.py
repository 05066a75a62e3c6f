import numpy as np
import pytest

from multicsr.stages.evaluate.kinds import KINDS
from multicsr.stages.evaluate.kinds.bitext import BitextTask
from multicsr.stages.evaluate.kinds.changed_meaning import ChangedMeaningTask
from multicsr.stages.evaluate.kinds.clustering import ClusteringTask
from multicsr.stages.evaluate.kinds.pair_classification import PairClassificationTask
from multicsr.stages.evaluate.kinds.retrieval import RetrievalTask
from multicsr.stages.evaluate.kinds.sts import StsTask
from multicsr.stages.evaluate.kinds.triplets import TripletTask
from multicsr.stages.evaluate.statistics import STATISTICS
from multicsr.stages.evaluate.task import Task
from tests.support.tiny_encoders import WORDS
from tests.support.trigram_encoder import trigrams

_DRAW = np.random.default_rng(0)
FIRST, SECOND, THIRD = ([" ".join(_DRAW.choice(WORDS, size=4)) for _ in range(24)] for _ in range(3))
ODD = [number % 2 for number in range(24)]
TASKS: list[Task] = [
    StsTask("sts", [float(number % 5) for number in range(24)], FIRST, SECOND, [""] * 24),
    TripletTask("triplets", FIRST, SECOND, THIRD),
    PairClassificationTask("pairs", ODD, FIRST, SECOND),
    ChangedMeaningTask("changed", FIRST, SECOND, THIRD, ["number"] * 24),
    ClusteringTask("clusters", [FIRST], [[f"group {odd}" for odd in ODD]]),
    BitextTask("bitext", ("de", "en"), FIRST, SECOND),
    RetrievalTask(
        "retrieval",
        {f"q{n}": text for n, text in enumerate(FIRST)},
        {f"d{n}": text for n, text in reversed([*enumerate(SECOND)])},
        {f"q{n}": {f"d{n}": 1} for n in range(24)},
    ),
]


def test_kinds_have_different_names():
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_score_is_the_statistic_of_its_examples_in_the_scale_that_they_name(task):
    measured = [each for each in task.measure(trigrams) if each.examples is not None]
    assert measured
    for each in measured:
        value = STATISTICS[each.examples.statistic](each.examples.value_NK)
        assert each.score.value == pytest.approx(each.examples.scale * value), each.score.metric
