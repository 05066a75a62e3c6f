"""Where a training's figures go besides its log: event files for TensorBoard, MLflow, Ray's metrics."""

import json
import logging
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.metrics import publish
from multicsr.train.log import DevScore, Step

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_log = logging.getLogger(__name__)
_EXPERIMENT = "multicsr"
_TAG = "multicsr.run"
_SEND_EVERY_S = 1.0
_AGAIN_AFTER_S = 60.0
_MLFLOW_ENVIRONMENT = {
    # Its defaults would hold a training up for minutes at every request to a server that is away.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # Figures go to the server that was named and nowhere else.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Tracker(Protocol):
    """Shows a training's figures while it runs; is told the same as the log."""

    def write(self, lines: Sequence[Step | DevScore]) -> None:
        """Show these."""

    def close(self) -> None:
        """The training is over."""


def open_trackers(
    config: TrainConfig,
    *,
    run: str,
    settings: Mapping[str, JsonValue],
    folder: Path,
    resume_after: int,
) -> list[Tracker]:
    """The trackers that the configuration asks for; each goes on where an interrupted run was.

    An error of the MLflow server after this call never ends the training: it is logged once, and the figures
    wait until the server is back. A killed training leaves out at most the last second of them.

    Args:
        run: names the training at the server; other settings need another name.
        settings: shown at the server; sections become `section.key`.
        folder: of this run's event files.
        resume_after: steps that are not done again; 0 is a new start. What was written of later steps is
            replaced in TensorBoard and stays in MLflow, so that both show a step once.

    Raises:
        ConfigError: train.mlflow cannot be reached, or its package is missing.
        OSError: the event file cannot be written; `write` raises it too.
    """
    trackers: list[Tracker] = []
    if config.mlflow is not None:
        trackers.append(_open_mlflow(config.mlflow, run, settings, resume_after))
    if config.tensorboard:
        trackers.append(_EventFile(folder, resume_after))
    return trackers


def _figures(line: Step | DevScore) -> dict[str, float]:
    if isinstance(line, DevScore):
        return {"dev/score": line.dev}
    return {
        "train/loss": line.loss,
        "train/masked": line.masked,
        "train/learning_rate": line.learning_rate,
        "train/steps_per_s": 1 / line.seconds,
    }


class RayMetrics:
    """What a cluster's monitoring collects."""

    def __init__(self, steps: int) -> None:
        """`steps`: of the whole training."""
        self._steps = steps

    def write(self, lines: Sequence[Step | DevScore]) -> None:
        for line in lines:
            if isinstance(line, DevScore):
                publish("train", {}, {"dev": line.dev})
                continue
            waits = {"ingest_wait_seconds": line.ingest_wait_s, "mask_wait_seconds": line.mask_wait_s}
            figures = {"loss": line.loss, "masked": line.masked, "step_seconds": line.seconds}
            publish("train", {"steps": 1, **waits}, {**figures, "steps_left": self._steps - line.step})

    def close(self) -> None:
        publish("train", {}, {"steps_left": 0})


class _EventFile:
    """What TensorBoard reads, one file for each start of a training; complete whenever `write` returns.

    tensorboardX's own writer leaves events to a thread: a killed training loses two minutes of them, and one
    whose disk is full waits for ever.
    """

    def __init__(self, folder: Path, resume_after: int) -> None:
        from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}").open("xb")
        self._add(file_version="brain.Event:2")
        # Hides this step and all later ones in earlier files; a new start measures dev at step 0 again.
        first_step = resume_after + 1 if resume_after else 0
        self._add(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, lines: Sequence[Step | DevScore]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        for line in lines:
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _figures(line).items()]
            self._add(step=line.step, summary=Summary(value=values))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _add(self, **fields: object) -> None:
        """Append an event as a TFRecord: length and content, a checksum behind each."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        event = Event(wall_time=time.time(), **fields).SerializeToString()
        for part in (struct.pack("<Q", len(event)), event):
            self._file.write(part + struct.pack("<I", masked_crc32c(part)))


class _MlflowRun:
    """A run at an MLflow server, which is told about once a second."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._last_step = _last_steps(client, run_id)
        self._waiting: list[Metric] = []
        self._next_s = 0.0
        self._is_warned = False

    def write(self, lines: Sequence[Step | DevScore]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        self._waiting += [
            Metric(name, value, now_ms, line.step)
            for line in lines
            for name, value in _figures(line).items()
            if line.step > self._last_step.get(name, -1)
        ]
        if time.monotonic() >= self._next_s:
            self._send()

    def close(self) -> None:
        self._send()
        self._try(lambda: self._client.set_terminated(self._run_id))

    def _send(self) -> None:
        is_sent = self._try(lambda: self._client.log_batch(self._run_id, metrics=self._waiting))
        if is_sent:
            self._waiting = []
        self._next_s = time.monotonic() + (_SEND_EVERY_S if is_sent else _AGAIN_AFTER_S)

    def _try(self, request: Callable[[], object]) -> bool:
        """Whether the server took it; the first time that it does not is logged."""
        from mlflow.exceptions import MlflowException

        try:
            request()
        except (MlflowException, OSError) as error:
            if not self._is_warned:
                _log.warning("train.mlflow: %s; the training goes on", _one_line(error))
            self._is_warned = True
            return False
        return True


def _open_mlflow(uri: str, run: str, settings: Mapping[str, JsonValue], resume_after: int) -> _MlflowRun:
    for name, value in _MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise ConfigError("train.mlflow: no MLflow here; pip install 'multicsr[mlflow]'") from error
    try:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(_EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(_EXPERIMENT)
        run_id = _interrupted(client, experiment_id, run, resume_after)
        return _MlflowRun(client, run_id or _create(client, experiment_id, run, settings))
    except (MlflowException, OSError) as error:
        remedy = "start the server, correct the address, or set train.mlflow to null"
        raise ConfigError(f"train.mlflow: {uri} cannot be used: {_one_line(error)}; {remedy}") from error


def _interrupted(client: "MlflowClient", experiment_id: str, run: str, resume_after: int) -> str | None:
    """Id of the server's run that goes on; one that was finished only does from a checkpoint."""
    wanted = f"tags.`{_TAG}` = '{run}'" + ("" if resume_after else " and attributes.status = 'RUNNING'")
    newest = client.search_runs([experiment_id], wanted, max_results=1)
    if not newest:
        return None
    run_id: str = newest[0].info.run_id
    client.update_run(run_id, status="RUNNING")
    return run_id


def _create(client: "MlflowClient", experiment_id: str, run: str, settings: Mapping[str, JsonValue]) -> str:
    from mlflow.entities import Param

    run_id: str = client.create_run(experiment_id, tags={_TAG: run}, run_name=run).info.run_id
    client.log_batch(run_id, params=[Param(name, value) for name, value in _flat(settings)])
    return run_id


def _last_steps(client: "MlflowClient", run_id: str) -> dict[str, int]:
    """Of each metric the last step that the server knows; it forgets nothing and would show a step twice."""
    names = client.get_run(run_id).data.metrics
    return {name: max(at.step for at in client.get_metric_history(run_id, name)) for name in names}


def _flat(settings: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str) else json.dumps(value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
