"""Small models compute the same bits on one thread, and sooner."""

import pytest

from multicsr.stages.generate import triplets as stage_module
from multicsr.stages.generate.triplets import TripletStage
from tests.support.scripted_engine import Scripted
from tests.support.tiny_llms import make_config


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    pass


@pytest.fixture
def scripted(monkeypatch):
    """Make a stage whose engine follows a script."""

    def make(pairs, replies=None, **sections):
        engine = Scripted(pairs, replies or {})
        monkeypatch.setattr(stage_module, "load_engine", lambda config: engine)
        return TripletStage(make_config("m", llm={"engine": "fake"}, **sections)), engine

    return make
