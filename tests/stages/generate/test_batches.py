"""Batches that run at the same time: the rows are the same, and a failure keeps what was finished."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from multicsr.errors import RunError, WorkerLost
from multicsr.llm.fake import FakeEngine
from multicsr.stages.generate import triplets as stage_module
from multicsr.stages.generate.triplets import TripletStage
from tests.support.llm_rows import make_sentences, triplets
from tests.support.tiny_llms import make_config

FAKE = {"engine": "fake"}


class Hurried(FakeEngine):
    """The fake engine, counting, with several batches in the air that end in any order."""

    batches_at_once = 4
    batch_size = 3

    def __init__(self):
        super().__init__()
        self._lock = threading.Lock()
        self._naps = random.Random(0)
        self._in_flight = 0
        self.most_in_flight = 0

    def generate_pairs(self, pairs, row_ids):
        assert len(pairs) <= self.batch_size
        with self._lock:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            nap = self._naps.random() / 200
        time.sleep(nap)
        found = super().generate_pairs(pairs, row_ids)
        with self._lock:
            self._in_flight -= 1
        return found

    def label_probabilities(self, prompts, labels):
        with self._lock:
            nap = self._naps.random() / 200
        time.sleep(nap)
        return super().label_probabilities(prompts, labels)


def amounts(*counters):
    """What was counted, all together; how long it took is another matter."""
    total = Counter()
    for counted in counters:
        total.update({name: amount for name, amount in counted.items() if not name.endswith("seconds")})
    return total


@pytest.fixture
def patient():
    """A stage that does one batch after the other."""
    return TripletStage(make_config("fake", llm=FAKE, score={"method": "both"}))


@pytest.fixture
def hurried(patient, monkeypatch):
    """(The same stage with several batches at once, its engine)."""
    engine = Hurried()
    monkeypatch.setattr(stage_module, "load_engine", lambda config: engine)
    return TripletStage(make_config("fake", llm=FAKE, score={"method": "both"})), engine


def test_batches_in_the_air_together_give_the_same_rows_and_counters(patient, hurried, premises):
    sentences = make_sentences(premises)
    expected = triplets(patient, sentences)
    stage, engine = hurried
    found = triplets(stage, sentences)
    assert found.rows.equals(expected.rows)
    assert found.rejects.equals(expected.rejects)
    assert found.rejects.num_rows > 3
    assert amounts(found.counters) == amounts(expected.counters)
    assert amounts(found.counters)["generated_tokens"] > 200
    assert 2 <= engine.most_in_flight <= 4


def test_calls_in_parallel_share_the_engine_and_lose_no_count(patient, hurried, premises):
    tables = [make_sentences(premises[:90]), make_sentences(premises[90:])]
    expected = [triplets(patient, table) for table in tables]
    stage, engine = hurried
    with ThreadPoolExecutor(2) as callers:
        found = list(callers.map(lambda table: triplets(stage, table), tables))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.rows.equals(theirs.rows)
        assert ours.rejects.equals(theirs.rejects)
    assert amounts(*(output.counters for output in found)) == amounts(
        *(output.counters for output in expected)
    )
    assert engine.most_in_flight <= 4


def test_a_batch_that_fails_fails_the_call(hurried, premises, monkeypatch):
    stage, engine = hurried

    def fail(prompts, row_ids, max_new_tokens):
        raise WorkerLost("gone")

    monkeypatch.setattr(engine, "reply", fail)
    with pytest.raises(WorkerLost, match="gone"):
        stage(make_sentences(premises[:20]))


class Paid(FakeEngine):
    """The fake engine as an endpoint would be: a row at a time, committed in pieces; it may fail."""

    batches_at_once = 4
    batch_size = 1
    rows_per_commit = 8

    def __init__(self, fails_on=()):
        super().__init__()
        self._fails_on = fails_on
        self.written = []

    def generate_pairs(self, pairs, row_ids):
        self.written += row_ids
        return super().generate_pairs(pairs, row_ids)

    def label_probabilities(self, prompts, labels):
        if any(text in prompt for text in self._fails_on for prompt in prompts):
            raise RunError("gone")
        return super().label_probabilities(prompts, labels)


def test_what_is_paid_for_is_handed_out_as_it_comes(premises, monkeypatch):
    monkeypatch.setattr(stage_module, "load_engine", lambda config: Paid())
    sentences = make_sentences(premises)
    stage = TripletStage(make_config("fake", llm=FAKE))
    pieces = [piece.rows for piece in stage.pieces(sentences)]
    assert [piece.num_rows for piece in pieces] == [8] * 25
    for piece in pieces:
        assert piece["row_id"].to_pylist() == sorted(piece["row_id"].to_pylist())
    whole = TripletStage(make_config("fake", llm=FAKE))(sentences).rows
    assert pa.concat_tables(pieces).sort_by("row_id").equals(whole.sort_by("row_id"))


def test_a_failure_costs_what_was_in_flight_and_keeps_what_was_written(premises, monkeypatch):
    engine = Paid(fails_on=[sorted(premises, key=len, reverse=True)[100]])
    monkeypatch.setattr(stage_module, "load_engine", lambda config: engine)
    stage, pieces = TripletStage(make_config("fake", llm=FAKE)), []
    with pytest.raises(RunError, match="gone"):
        pieces.extend(stage.pieces(make_sentences(premises)))
    rows = pa.concat_tables(piece.rows for piece in pieces).to_pylist()
    assert sorted(row["row_id"] for row in rows) == sorted(engine.written), "of what was written all is kept"
    assert 100 <= len(rows) < len(premises), "what had not begun was dropped"
    [failed] = [row for row in rows if row["reason"] == "engine error"]
    assert failed["entailment"]
    assert failed["entailment_expected"] is None
