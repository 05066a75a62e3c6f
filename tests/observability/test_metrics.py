"""What is published, at the places that publish; that Prometheus sees it so is shown in tests/cluster."""

import time
from collections import Counter
from types import SimpleNamespace

import pyarrow as pa
import pytest

from multicsr.artifacts import DevScore, Step
from multicsr.config import Config, S3Config
from multicsr.observability import metrics
from multicsr.rows import SENTENCE, row_id
from multicsr.stages.generate.triplets import TripletStage
from multicsr.stages.train.monitoring.trackers import RayMetrics
from multicsr.storage.store import Store
from tests.support.s3.faults import Fault


@pytest.fixture
def published(monkeypatch):
    """Amounts and levels by name, as Ray's own counters and gauges would be told."""
    amounts, levels = Counter(), {}

    def counter(name):
        assert name in metrics.COUNTERS
        return SimpleNamespace(inc=lambda amount, tags: amounts.update({name: amount}))

    def gauge(name):
        assert name in metrics.GAUGES
        return SimpleNamespace(set=lambda level, tags: levels.update({name: level}))

    monkeypatch.setattr(metrics, "_LEVELS", metrics._Levels())
    monkeypatch.setattr(metrics, "_counter", counter)
    monkeypatch.setattr(metrics, "_gauge", gauge)
    monkeypatch.setitem(metrics.sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    return amounts, levels


def test_without_ray_nothing_is_published(published, monkeypatch):
    monkeypatch.setitem(metrics.sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    metrics.publish("generate", {"rows": 3}, {"pairs_in_flight": 1})
    assert published == ({}, {})


def test_gauges_are_set_again_until_ray_is_left(published, monkeypatch):
    """Ray drops a gauge that nobody sets; a job that hangs sets none."""
    _, levels = published
    monkeypatch.setattr(metrics, "_REFRESH_S", 0.01)
    metrics.publish("generate", {}, {"shards_waiting": 3})
    metrics.publish("train", {}, {"loss": 0.5})
    for _ in range(2):
        levels.clear()
        _until(lambda: levels == {"shards_waiting": 3, "train_loss": 0.5})
    monkeypatch.setitem(metrics.sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    _until(lambda: metrics._LEVELS._thread is None)
    levels.clear()
    monkeypatch.setitem(metrics.sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    metrics.publish("train", {}, {"loss": 0.25})
    _until(lambda: levels == {"train_loss": 0.25})


def _until(what):
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_generation_reports_rows_tokens_and_rejections(published):
    amounts, _ = published
    stage = TripletStage(
        Config.model_validate(
            {
                "name": "told",
                "store": "unused",
                "input": {"paths": ["unused"]},
                "llm": {"engine": "fake"},
                "score": {"method": "both"},
            }
        )
    )
    texts = [f"This is sentence number {number} out of many." for number in range(200)]
    rows = [{"row_id": row_id(text, "en"), "text": text, "language": "en", "source": "s"} for text in texts]
    written = stage(pa.Table.from_pylist(rows, schema=SENTENCE))
    rejected = len(texts) - written.rows["reason"].null_count
    assert rejected > 0
    assert amounts["generate_rows"] == 200
    assert amounts["generate_rows_refused"] == rejected
    assert amounts["generate_rows_written"] == written.counters["rows_written"] == 200
    assert amounts["generate_rows_scored"] == written.counters["rows_scored"] < 200
    assert amounts["generate_generated_tokens"] == written.counters["generated_tokens"] > 0


def test_training_reports_steps_waits_and_what_is_left(published):
    amounts, levels = published
    tracker = RayMetrics(steps=10, done=4)
    assert levels == {"train_steps_left": 6}
    tracker = RayMetrics(steps=10)
    assert levels == {"train_steps_left": 10}
    for number in (1, 2):
        step = Step(
            step=number,
            epoch=1,
            loss=1 / number,
            masked=0.25,
            learning_rate=0.1,
            seconds=2.0,
            ingest_wait_s=0.5,
            mask_wait_s=0.125,
        )
        tracker.write([step, DevScore(step=number, dev=70 + number, best=True)])
    assert amounts == {
        "train_steps": 2,
        "train_ingest_wait_seconds": 1.0,
        "train_mask_wait_seconds": 0.25,
    }
    assert levels == {
        "train_steps_left": 8,
        "train_loss": 0.5,
        "train_masked": 0.25,
        "train_step_seconds": 2.0,
        "train_dev": 72,
    }
    tracker.close("FINISHED")
    assert levels["train_steps_left"] == 0


@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.INTERNAL_ERROR, Fault.DROP_BEFORE])
def test_a_bucket_that_fails_is_counted_although_the_request_succeeds(published, bucket, faulty, fault):
    store = Store.open(f"{bucket.uri}/corpus", S3Config(endpoint=faulty.endpoint))
    store.write_text("a.txt", "x")
    assert published[0]["store_errors"] == 0
    faulty.once(fault, "PUT")
    store.write_text("b.txt", "y")
    assert published[0]["store_errors"] == 1
