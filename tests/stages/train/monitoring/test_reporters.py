from pathlib import Path

import pytest
from mlflow import MlflowClient

from multicsr.artifacts import DevScore, Step, read_log
from multicsr.config import TrainConfig
from multicsr.stages.train import distributed
from multicsr.stages.train.callbacks import CallbackList
from multicsr.stages.train.job import TrainingJob
from multicsr.stages.train.monitoring.reporters import open_reporters

STEP = Step(step=1, epoch=1, loss=0.5, masked=0, learning_rate=1e-4, seconds=0.1)
DEV = DevScore(step=1, dev=70.0, best=True)


def job(config: TrainConfig, out: Path) -> TrainingJob:
    """A training without rows, which reporters do not read."""
    return TrainingJob(
        config=config, seed=3, run="a1", index=None, device="cpu", name="demo", out=out, events=out / "events"
    )


def test_steps_and_scores_are_in_log_and_event_file(tmp_path):
    with open_reporters(job(TrainConfig(), tmp_path), num_steps=1, done=0, log_bytes=0) as reporters:
        callback = CallbackList(reporters)
        callback.on_step(STEP)
        callback.on_evaluation(DEV)
    assert read_log(tmp_path / "train.jsonl") == [STEP, DEV]
    [events] = (tmp_path / "events").iterdir()
    assert b"train/loss" in events.read_bytes()
    assert b"dev/score" in events.read_bytes()


def test_worker_1_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    with open_reporters(job(TrainConfig(), tmp_path), num_steps=1, done=0, log_bytes=0) as reporters:
        assert reporters == []
    assert list(tmp_path.iterdir()) == []


def test_mlflow_run_has_failed_when_the_next_tracker_cannot_be_opened(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    config = TrainConfig(mlflow=(tmp_path / "mlflow").as_uri())
    (tmp_path / "events").write_text("a file where the folder of the events belongs")
    with (
        pytest.raises(FileExistsError),
        open_reporters(job(config, tmp_path), num_steps=1, done=0, log_bytes=0),
    ):
        raise AssertionError("never reached")
    client = MlflowClient(config.mlflow)
    experiment = client.get_experiment_by_name("multicsr")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]
