"""Runs with `llm.batch`: their rows are those of single requests, and no answer is paid twice."""

import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial

import pytest
import yaml

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.llm.openai import batch_engine
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from tests.support.batch_server import BatchServer, Fate
from tests.support.chat_server import serving
from tests.support.endpoint_runs import answer, rows_of, settings_of_run
from tests.support.paths import ROOT

ROWS, ROWS_PER_SHARD = 40, 10


@pytest.fixture
def endpoint():
    with serving(answer, BatchServer) as server:
        yield server


@pytest.fixture
def make_tree(tmp_path, endpoint):
    """Make the tree of a configuration."""

    def make(store, rows_per_shard=ROWS_PER_SHARD, **llm):
        return settings_of_run(
            tmp_path,
            endpoint.url,
            ROWS,
            store,
            llm=llm,
            generate={"rows_per_shard": rows_per_shard},
            lease_s=1,
            curate={"alpha": 0, "beta": 5, "gamma": 0},
        )

    return make


@pytest.fixture
def quick_polls(monkeypatch):
    """Let batches be looked at often."""
    engine = partial(batch_engine.OpenAIBatchEngine, first_poll_s=0.01)
    monkeypatch.setattr(batch_engine, "OpenAIBatchEngine", engine)


def run(tree):
    config = Config.model_validate(tree)
    full_run.run(config, SilentProgress(), until="generate")
    return rows_of(config)[0]


def most_paid(endpoint):
    return max(Counter(endpoint.paid).values())


@pytest.mark.usefixtures("without_ray", "quick_polls")
def test_rows_are_those_of_single_requests(endpoint, make_tree):
    batched = run(make_tree("batched", batch=True))
    assert not endpoint.bodies
    assert len(endpoint.batches) == 2 * ROWS // ROWS_PER_SHARD  # for texts, and for scores
    assert batched == run(make_tree("single"))
    assert len(batched) == ROWS
    assert run(make_tree("batched")) == batched  # the setting is part of no fingerprint
    assert len(endpoint.bodies) == 4 * ROWS


@pytest.mark.usefixtures("without_ray", "quick_polls")
def test_batch_of_a_shard_is_found_again_although_rows_of_others_have_failed(endpoint, make_tree):
    """A row of the first shard fails, and the endpoint goes away while the third shard waits."""
    failing = []

    def fail_one(body):
        text = body["messages"][0]["content"]
        if not failing:
            failing.append(text)
        return (500, {}, {"error": "this one"}) if text in failing else answer(body)

    def go_away(method, path):
        is_second = len(endpoint.batches) > 6 and endpoint.batches[path.rpartition("/")[2]]["fate"].polls
        return (503, {}, {"error": "down"}) if "batch-" in path and is_second else None

    endpoint.answer, endpoint.before = fail_one, go_away
    endpoint.fates = [*[Fate()] * 6, Fate(polls=1)]
    with pytest.raises(RunError, match="its batches go on"):
        run(make_tree("batched", batch=True, patience_s=0))
    waiting = list(endpoint.batches)[-1]
    endpoint.before = lambda method, path: None
    endpoint.answer = answer
    number = len(endpoint.batches)
    rows = run(make_tree("batched", batch=True))
    assert endpoint.batches[waiting]["status"] == "completed"
    assert len(endpoint.batches) == number + 5  # for the row that failed, and the rest of two shards
    assert len(endpoint.paid) == len(set(endpoint.paid)) + 1  # the other hypothesis of the row that failed
    assert rows == run(make_tree("single"))


def start(path):
    command = [sys.executable, "-m", "tests.support.hostile_side", str(path)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.cluster
def test_killed_job_that_is_started_again_uploads_nothing_twice(endpoint, make_tree, tmp_path):
    """It is killed once in each of its batches: as soon as it is made, or when it was answered."""
    path = tmp_path / "t.yaml"
    tree = make_tree("killed", rows_per_shard=20, batch=True)
    path.write_text(yaml.safe_dump(tree))
    batches = 2 * 2
    for number in range(1, batches + 1):
        process = start(path)
        wait_until(lambda number=number: is_reached(endpoint, number), process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(path)
    printed = process.communicate(timeout=120)[1]
    assert process.returncode == 0, printed
    assert len(endpoint.uploads) == len(endpoint.batches) == batches
    assert most_paid(endpoint) == 1
    assert len(endpoint.paid) == 4 * ROWS
    assert len(rows_of(Config.model_validate(tree))[0]) == ROWS


def is_reached(endpoint, number):
    """Return True if this batch was made, and with an even number answered, too."""
    if len(endpoint.batches) < number:
        return False
    return number % 2 == 1 or endpoint.batches[f"batch-{number - 1}"]["status"] == "completed"


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
