"""What is published, at the places that publish; that Prometheus sees it so is shown in tests/cluster."""

from collections import Counter
from types import SimpleNamespace

import pyarrow as pa
import pytest

from multicsr import metrics
from multicsr.config import Config, S3Config
from multicsr.generate.stage import TripletStage
from multicsr.rows import SENTENCE, row_id
from multicsr.store import Store
from multicsr.train.log import DevScore, Step
from multicsr.train.tracking import RayMetrics
from tests.s3.faults import Fault


@pytest.fixture
def told(monkeypatch):
    """Amounts and levels by name, as Ray's own counters and gauges would be told."""
    amounts, levels = Counter(), {}

    def counter(name):
        assert name in metrics.COUNTERS
        return SimpleNamespace(inc=lambda amount, tags: amounts.update({name: amount}))

    def gauge(name):
        assert name in metrics.GAUGES
        return SimpleNamespace(set=lambda level, tags: levels.update({name: level}))

    monkeypatch.setattr(metrics, "_counter", counter)
    monkeypatch.setattr(metrics, "_gauge", gauge)
    monkeypatch.setitem(metrics.sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    return amounts, levels


def test_without_ray_nothing_is_published(told, monkeypatch):
    monkeypatch.setitem(metrics.sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    metrics.publish("generate", {"rows": 3}, {"pairs_in_flight": 1})
    assert told == ({}, {})


def test_generation_tells_rows_tokens_and_refusals(told):
    amounts, _ = told
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
    refused = len(texts) - written.rows["reason"].null_count
    assert refused > 0
    assert amounts["generate_rows"] == 200
    assert amounts["generate_rows_refused"] == refused
    assert amounts["generate_rows_written"] == written.counters["rows_written"] == 200
    assert amounts["generate_rows_scored"] == written.counters["rows_scored"] < 200
    assert amounts["generate_generated_tokens"] == written.counters["generated_tokens"] > 0


def test_training_tells_steps_waits_and_what_is_left(told):
    amounts, levels = told
    tracker = RayMetrics(steps=10)
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
    tracker.close()
    assert levels["train_steps_left"] == 0


@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.INTERNAL_ERROR, Fault.DROP_BEFORE])
def test_a_bucket_that_fails_is_counted_although_the_request_succeeds(told, bucket, faulty, fault):
    store = Store.open(f"{bucket.uri}/corpus", S3Config(endpoint=faulty.endpoint))
    store.write_text("a.txt", "x")
    assert told[0]["store_errors"] == 0
    faulty.once(fault, "PUT")
    store.write_text("b.txt", "y")
    assert told[0]["store_errors"] == 1
