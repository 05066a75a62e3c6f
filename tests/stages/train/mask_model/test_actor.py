import os
import signal

import numpy as np
import psutil
import pytest

from multicsr.config import MaskConfig
from multicsr.errors import ConfigError, RunError
from multicsr.stages.train.mask_model.actor import ActorEmbedder
from multicsr.stages.train.mask_model.model import MaskModel

pytestmark = pytest.mark.cluster

TEXTS = ["ba de", "mi no pu ra so te", "fa", "ki lo mu ki lo mu ki lo mu ki lo mu", "re so"]


@pytest.fixture
def config(tiny_bert) -> MaskConfig:
    return MaskConfig(model=str(tiny_bert))


def scorer_process() -> psutil.Process:
    """That of the one scorer in this session's Ray."""
    mine = psutil.Process().children(recursive=True)
    alive = (process for process in mine if process.status() != psutil.STATUS_ZOMBIE)
    (process,) = (process for process in alive if process.cmdline()[:1] == ["ray::_Scorer"])
    return process


@pytest.mark.usefixtures("ray_cluster")
def test_a_scorer_that_is_killed_over_a_batch_starts_again_and_answers_the_same(config):
    """It is stopped before it is asked, so that it cannot have answered when it dies."""
    embedder = ActorEmbedder(config, threads=1)
    before = embedder.ask(TEXTS).take()
    process = scorer_process()
    process.suspend()
    answer, next_answer = embedder.ask(TEXTS), embedder.ask(TEXTS[::-1])
    os.kill(process.pid, signal.SIGKILL)
    expected = MaskModel(config, "cpu").embed(TEXTS)
    for vectors in (before, answer.take(), next_answer.take()[::-1]):
        assert vectors.dtype == np.float16
        np.testing.assert_array_equal(vectors, expected)
    assert scorer_process().pid != process.pid
    assert embedder.width == 32

    with pytest.raises(RunError, match=r"^train\.mask: ValueError: [^\n]*$"):
        embedder.ask([3]).take()
    np.testing.assert_array_equal(embedder.ask(TEXTS).take(), expected)


@pytest.mark.usefixtures("ray_cluster")
def test_what_cannot_be_loaded_is_one_line_that_names_the_setting(tmp_path):
    with pytest.raises(ConfigError, match=r"^train\.mask\.model: no directory [^\n]*$"):
        ActorEmbedder(MaskConfig(model=str(tmp_path / "nowhere")), threads=1)


@pytest.mark.usefixtures("ray_cluster")
def test_the_scorer_is_bound_to_the_callers_node(config, monkeypatch):
    """To no other, even where the caller's is gone."""
    from ray.runtime_context import RuntimeContext

    monkeypatch.setattr(RuntimeContext, "get_node_id", lambda self: "ab" * 28)
    with pytest.raises(RunError, match=r"^train\.mask: [^\n]*$"):
        ActorEmbedder(config, threads=1)
