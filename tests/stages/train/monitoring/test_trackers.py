"""Trackers read back: event files byte by byte, and a tracking store of MLflow in a folder."""

import struct
import sys
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mlflow import MlflowClient
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from multicsr.artifacts import DevScore, Step
from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.stages.train.monitoring import trackers
from multicsr.stages.train.monitoring.trackers import open_trackers

SETTINGS = {"seed": 3, "train": {"encoder": "tiny", "mask": {"sigma": 0.9}, "lora": None, "data": ["a", "b"]}}
TAGS = {"train/loss", "train/masked", "train/learning_rate", "train/steps_per_s", "dev/score"}


def step(number: int, loss: float) -> Step:
    return Step(step=number, epoch=1, loss=loss, masked=0.125, learning_rate=0.5, seconds=0.25)


def lines(first: int, last: int, loss: float) -> list[Step | DevScore]:
    """Steps from `first` to `last`; dev is measured before the first step and after every second one."""
    measured = [DevScore(step=number, dev=loss, best=False) for number in range(first - 1, last + 1)]
    devs = [dev for dev in measured if dev.step % 2 == 0 and (dev.step >= first or dev.step == 0)]
    steps = [step(number, loss) for number in range(first, last + 1)]
    return sorted([*devs, *steps], key=lambda line: (line.step, isinstance(line, DevScore)))


def start(config, tmp_path, resume_after=0, run="demo"):
    [tracker] = open_trackers(
        config, run=run, settings=SETTINGS, folder=tmp_path / "events", resume_after=resume_after
    )
    return tracker


def test_nothing_is_opened_unasked(tmp_path):
    config = TrainConfig(tensorboard=False)
    opened = open_trackers(config, run="demo", settings={}, folder=tmp_path / "events", resume_after=0)
    assert list(opened) == []
    assert not list(tmp_path.iterdir())


# TensorBoard


def records(content: bytes):
    """TFRecords up to the first one that is incomplete."""
    while len(content) >= 12:
        [length] = struct.unpack("<Q", content[:8])
        data, checksum = content[12 : 12 + length], content[12 + length : 16 + length]
        if len(checksum) < 4:
            return
        for part, crc in ((content[:8], content[8:12]), (data, checksum)):
            assert struct.unpack("<I", crc) == (masked_crc32c(part),)
        yield Event.FromString(data)
        content = content[16 + length :]


def shown(folder) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each tag as TensorBoard shows them: a start hides what was at its step or later."""
    points = defaultdict(list)
    for path in sorted(folder.iterdir()):
        assert "tfevents" in path.name
        first, *events = records(path.read_bytes())
        assert first.file_version == "brain.Event:2"
        for event in events:
            if event.session_log.status == SessionLog.START:
                points = {tag: [p for p in old if p[0] < event.step] for tag, old in points.items()}
                points = defaultdict(list, points)
            for value in event.summary.value:
                points[value.tag].append((event.step, value.simple_value))
    return dict(points)


def test_a_killed_and_resumed_run_shows_each_step_once(tmp_path):
    killed = start(TrainConfig(), tmp_path)
    killed.write(lines(1, 7, loss=2.0))
    [first] = (tmp_path / "events").iterdir()
    assert [number for number, _ in shown(tmp_path / "events")["train/loss"]] == list(range(1, 8))
    with first.open("r+b") as file:
        file.truncate(first.stat().st_size - 3)

    resumed = start(TrainConfig(), tmp_path, resume_after=4)
    resumed.write(lines(5, 6, loss=1.0))
    resumed.write(lines(7, 8, loss=1.0))
    resumed.close("FINISHED")
    points = shown(tmp_path / "events")
    assert points.keys() == TAGS
    assert points["train/loss"] == [(number, 2.0 if number <= 4 else 1.0) for number in range(1, 9)]
    assert points["dev/score"] == [(0, 2.0), (2, 2.0), (4, 2.0), (6, 1.0), (8, 1.0)]
    assert set(points["train/steps_per_s"]) == {(number, 4.0) for number in range(1, 9)}
    assert {value for _, value in points["train/masked"]} == {0.125}
    assert {value for _, value in points["train/learning_rate"]} == {0.5}


def test_a_new_start_hides_all_of_the_one_before(tmp_path):
    start(TrainConfig(), tmp_path).write(lines(1, 7, loss=2.0))
    start(TrainConfig(), tmp_path).write(lines(1, 2, loss=1.0))
    points = shown(tmp_path / "events")
    assert points["train/loss"] == [(1, 1.0), (2, 1.0)]
    assert points["dev/score"] == [(0, 1.0), (2, 1.0)]


# MLflow


@pytest.fixture
def mlflow_config(tmp_path, monkeypatch) -> TrainConfig:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return TrainConfig(tensorboard=False, mlflow=(tmp_path / "mlflow").as_uri())


def server_runs(config):
    client = MlflowClient(config.mlflow)
    experiment = client.get_experiment_by_name("multicsr")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])


def history(config, run, name) -> list[tuple[int, float]]:
    points = MlflowClient(config.mlflow).get_metric_history(run.info.run_id, name)
    return [(point.step, point.value) for point in points]


def test_a_resumed_run_is_the_same_mlflow_run(mlflow_config, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "_SEND_EVERY_S", 0.0)
    killed = start(mlflow_config, tmp_path)
    killed.write(lines(1, 7, loss=2.0))
    start(mlflow_config, tmp_path, run="another").close("FINISHED")
    resumed = start(mlflow_config, tmp_path, resume_after=4)
    resumed.write(lines(5, 8, loss=1.0))

    run, _ = server_runs(mlflow_config)
    assert (run.info.run_name, run.info.status) == ("demo", "RUNNING")
    assert run.data.tags["multicsr.run"] == "demo"
    assert run.data.params == {
        "seed": "3",
        "train.encoder": "tiny",
        "train.mask.sigma": "0.9",
        "train.lora": "null",
        "train.data": '["a", "b"]',
    }
    assert run.data.metrics.keys() == TAGS
    assert history(mlflow_config, run, "train/loss") == [(n, 2.0 if n <= 7 else 1.0) for n in range(1, 9)]
    assert history(mlflow_config, run, "dev/score") == [(0, 2.0), (2, 2.0), (4, 2.0), (6, 2.0), (8, 1.0)]
    resumed.close("FINISHED")
    assert [run.info.status for run in server_runs(mlflow_config)] == ["FINISHED", "FINISHED"]


def test_a_finished_run_goes_on_from_a_checkpoint_only(mlflow_config, tmp_path):
    for resume_after, number in ((0, 1), (7, 1), (0, 2)):
        start(mlflow_config, tmp_path, resume_after).close("FINISHED")
        assert len(server_runs(mlflow_config)) == number


def test_killed_before_its_first_checkpoint_it_is_still_one_run(mlflow_config, tmp_path):
    start(mlflow_config, tmp_path).write(lines(1, 2, loss=2.0))
    again = start(mlflow_config, tmp_path)
    again.write(lines(1, 3, loss=1.0))
    again.close("FINISHED")
    [run] = server_runs(mlflow_config)
    assert history(mlflow_config, run, "dev/score") == [(0, 2.0), (2, 2.0)]
    assert history(mlflow_config, run, "train/loss") == [(1, 2.0), (2, 2.0), (3, 1.0)]


@pytest.mark.parametrize("end", ["FINISHED", "FAILED", "KILLED"])
def test_mlflow_receives_the_end_state_of_the_training(mlflow_config, tmp_path, end):
    tracker = start(mlflow_config, tmp_path)
    assert [run.info.status for run in server_runs(mlflow_config)] == ["RUNNING"]
    tracker.close(end)
    assert [run.info.status for run in server_runs(mlflow_config)] == [end]


def test_run_whose_settings_cannot_be_sent_has_failed_on_the_server(mlflow_config, tmp_path, monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("the server is gone")

    monkeypatch.setattr(MlflowClient, "log_batch", unreachable)
    with pytest.raises(ConfigError, match=r"train\.mlflow: .* cannot be used: the server is gone"):
        start(mlflow_config, tmp_path)
    assert [run.info.status for run in server_runs(mlflow_config)] == ["FAILED"]


def test_figures_are_sent_once_a_second_and_at_the_end(mlflow_config, tmp_path):
    tracker = start(mlflow_config, tmp_path)
    for number in range(1, 4):
        tracker.write([step(number, loss=1.0)])
    [run] = server_runs(mlflow_config)
    assert len(history(mlflow_config, run, "train/loss")) == 1
    tracker.close("FINISHED")
    assert len(history(mlflow_config, run, "train/loss")) == 3


def test_failing_server_is_reported_once_and_served_later(mlflow_config, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(trackers, "_SEND_EVERY_S", 0.0)
    monkeypatch.setattr(trackers, "_AGAIN_AFTER_S", 0.0)
    tracker = start(mlflow_config, tmp_path)
    tracker.write([step(1, loss=1.0)])
    [run] = server_runs(mlflow_config)
    there, away = tmp_path / "mlflow" / run.info.experiment_id, tmp_path / "away"
    there.rename(away)
    tracker.write([step(2, loss=1.0)])
    tracker.write([step(3, loss=1.0)])
    away.rename(there)
    tracker.write([step(4, loss=1.0)])
    assert history(mlflow_config, run, "train/loss") == [(number, 1.0) for number in range(1, 5)]
    there.rename(away)
    tracker.close("FINISHED")
    [warning] = [
        record for record in caplog.records if record.name == "multicsr.stages.train.monitoring.trackers"
    ]
    assert warning.levelname == "WARNING"
    assert warning.message.startswith("train.mlflow: ")
    assert "\n" not in warning.message


def test_while_the_server_is_away_it_is_not_asked_at_every_step(mlflow_config, tmp_path):
    tracker = start(mlflow_config, tmp_path)
    [run] = server_runs(mlflow_config)
    there, away = tmp_path / "mlflow" / run.info.experiment_id, tmp_path / "away"
    there.rename(away)
    tracker.write([step(1, loss=1.0)])
    away.rename(there)
    tracker.write([step(2, loss=1.0)])
    assert history(mlflow_config, run, "train/loss") == []
    tracker.close("FINISHED")
    assert len(history(mlflow_config, run, "train/loss")) == 2


class Broken(BaseHTTPRequestHandler):
    """Answers as the server's `answer` (status, body) says."""

    def do_GET(self):
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def rejection(uri, tmp_path) -> str:
    with pytest.raises(ConfigError) as caught:
        start(TrainConfig(mlflow=uri), tmp_path)
    assert not (tmp_path / "events").exists()
    message = str(caught.value)
    assert message.startswith("train.mlflow: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("answer", [(500, b"broken"), (404, b"<html>"), (200, b"some other page")])
def test_a_server_that_does_not_work_is_rejected_at_the_start(server, tmp_path, answer):
    server.answer = answer
    uri = f"http://127.0.0.1:{server.server_port}"
    assert f"{uri} cannot be used" in rejection(uri, tmp_path)


def test_an_address_where_nothing_is_is_rejected_at_the_start(server, tmp_path):
    uri = f"http://127.0.0.1:{server.server_port}"
    server.socket.close()
    assert "set train.mlflow to null" in rejection(uri, tmp_path)
    assert "set train.mlflow to null" in rejection("nowhere://at.all", tmp_path)


def test_the_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert "pip install 'multicsr[mlflow]'" in rejection("http://127.0.0.1:1", tmp_path)
