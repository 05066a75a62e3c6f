"""Trackers of a training's metrics besides its log: event files for TensorBoard, MLflow, Ray's metrics."""

import logging
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import JsonValue

from multicsr.artifacts import DevScore, Step
from multicsr.config import TrainConfig
from multicsr.config_file import flat_settings, setting_as_text
from multicsr.errors import ConfigError
from multicsr.observability.metrics import publish

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_log = logging.getLogger(__name__)
_EXPERIMENT = "multicsr"
"""Name of the experiment on the MLflow server."""
_TAG = "multicsr.run"
"""Tag of an MLflow run that holds the name of the training."""
_SEND_EVERY_S = 1.0
"""Seconds between two requests to the MLflow server."""
_AGAIN_AFTER_S = 60.0
"""Seconds after a failed request until the next one."""
_MLFLOW_ENVIRONMENT = {
    # MLflow's defaults would delay a training by minutes at every request to a server that is down.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # Metrics are sent only to the configured server.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


End = Literal["FINISHED", "FAILED", "KILLED"]
"""The way in which a training ended, by MLflow's names; KILLED: a user ended it."""


class Tracker(Protocol):
    """A service that shows the metrics of a running training. It receives the same records as the log."""

    def write(self, lines: Sequence[Step | DevScore]) -> None:
        """Show these records."""

    def close(self, end: End) -> None:
        """Record how the training ended, and close the tracker."""


def open_trackers(
    config: TrainConfig,
    *,
    run: str,
    settings: Mapping[str, JsonValue],
    folder: Path,
    resume_after: int,
) -> Iterator[Tracker]:
    """Open and yield the trackers that the configuration names; each continues an interrupted run.

    The caller closes every tracker that it received, also when a later one cannot be opened.

    An error of the MLflow server after this call never ends the training: it is logged once, and the metrics
    wait until the server is available again. A killed training loses at most the last second of its metrics.

    Args:
        config: the settings of the training.
        run: name of the training on the server; other settings need another name.
        settings: settings that the server shows; sections become `section.key`.
        folder: folder of this run's event files.
        resume_after: number of steps that are not done again; 0 is a new start. Metrics that were written for
            later steps are replaced in TensorBoard and stay in MLflow, so that both show a step once.

    Raises:
        ConfigError: the server of train.mlflow cannot be reached, or the package mlflow is missing.
        OSError: the event file cannot be written; `write` raises it too.
    """
    if config.mlflow is not None:
        yield _open_mlflow(config.mlflow, run, settings, resume_after)
    if config.tensorboard:
        yield _EventFile(folder, resume_after)


def _metrics(line: Step | DevScore) -> dict[str, float]:
    """Return the metrics of a record by their names in TensorBoard and MLflow."""
    if isinstance(line, DevScore):
        return {"dev/score": line.dev}
    return {
        "train/loss": line.loss,
        "train/masked": line.masked,
        "train/learning_rate": line.learning_rate,
        "train/steps_per_s": 1 / line.seconds,
    }


class RayMetrics:
    """A tracker that publishes Ray metrics, which the monitoring of a cluster collects."""

    def __init__(self, steps: int, done: int = 0) -> None:
        """Publish the number of remaining steps, so that a hang before the first step is noticed.

        Args:
            steps: number of steps of the whole training.
            done: number of steps that are done already.
        """
        self._steps = steps
        publish("train", {}, {"steps_left": steps - done})

    def write(self, lines: Sequence[Step | DevScore]) -> None:
        """Implement `Tracker.write`."""
        for line in lines:
            if isinstance(line, DevScore):
                publish("train", {}, {"dev": line.dev})
                continue
            waits = {"ingest_wait_seconds": line.ingest_wait_s, "mask_wait_seconds": line.mask_wait_s}
            metrics = {"loss": line.loss, "masked": line.masked, "step_seconds": line.seconds}
            publish("train", {"steps": 1, **waits}, {**metrics, "steps_left": self._steps - line.step})

    def close(self, end: End) -> None:
        """Publish that no steps remain."""
        publish("train", {}, {"steps_left": 0})


class _EventFile:
    """A tracker that writes an event file for TensorBoard, one file for each start of a training.

    The file is complete whenever `write` returns. tensorboardX's own writer passes events to a thread, so a
    killed training loses two minutes of them, and a training whose disk is full waits without end.
    """

    def __init__(self, folder: Path, resume_after: int) -> None:
        """Start a new event file; for `resume_after` see `open_trackers`."""
        from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}").open("xb")
        self._add(file_version="brain.Event:2")
        # This event hides its step and all later ones in earlier files. A new start evaluates step 0 again,
        # so step 0 is hidden too.
        first_step = resume_after + 1 if resume_after else 0
        self._add(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, lines: Sequence[Step | DevScore]) -> None:
        """Implement `Tracker.write`.

        Raises:
            OSError: the event file cannot be written.
        """
        from tensorboardX.proto.summary_pb2 import Summary

        for line in lines:
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _metrics(line).items()]
            self._add(step=line.step, summary=Summary(value=values))
        self._file.flush()

    def close(self, end: End) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, **fields: object) -> None:
        """Append an event as a TFRecord: length and content, each followed by its checksum."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        event = Event(wall_time=time.time(), **fields).SerializeToString()
        for part in (struct.pack("<Q", len(event)), event):
            self._file.write(part + struct.pack("<I", masked_crc32c(part)))


class _MlflowRun:
    """A tracker that sends metrics to a run on an MLflow server, at most about once a second."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        """Read from the server which steps of the run it already has."""
        self._client, self._run_id = client, run_id
        self._last_step = _last_steps(client, run_id)
        self._waiting: list[Metric] = []
        self._next_s = 0.0
        self._is_warned = False

    def write(self, lines: Sequence[Step | DevScore]) -> None:
        """Implement `Tracker.write`: queue the metrics, and send the queue if a second has passed."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        self._waiting += [
            Metric(name, value, now_ms, line.step)
            for line in lines
            for name, value in _metrics(line).items()
            if line.step > self._last_step.get(name, -1)
        ]
        if time.monotonic() >= self._next_s:
            self._send()

    def close(self, end: End) -> None:
        """Implement `Tracker.close`: send the queue and the status of the run."""
        self._send()
        self._try(lambda: self._client.set_terminated(self._run_id, status=end))

    def _send(self) -> None:
        """Send the queued metrics. If this fails, they stay in the queue for `_AGAIN_AFTER_S`."""
        is_sent = self._try(lambda: self._client.log_batch(self._run_id, metrics=self._waiting))
        if is_sent:
            self._waiting = []
        self._next_s = time.monotonic() + (_SEND_EVERY_S if is_sent else _AGAIN_AFTER_S)

    def _try(self, request: Callable[[], object]) -> bool:
        """Send a request and return True if the server accepted it; only the first failure is logged."""
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
    """Return the run on the MLflow server: the interrupted run if there is one, otherwise a new one.

    Raises:
        ConfigError: the server cannot be reached, or the package mlflow is missing.
    """
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
        run_id = run_id or _create(client, experiment_id, run, settings)
        with _ended_on_error(client, run_id):
            return _MlflowRun(client, run_id)
    except (MlflowException, OSError) as error:
        remedy = "start the server, correct the address, or set train.mlflow to null"
        raise ConfigError(f"train.mlflow: {uri} cannot be used: {_one_line(error)}; {remedy}") from error


def _interrupted(client: "MlflowClient", experiment_id: str, run: str, resume_after: int) -> str | None:
    """Return the id of the server's run that is continued; None: a new run is needed.

    A run that has ended on the server is continued only if the training resumes from a checkpoint.
    """
    wanted = f"tags.`{_TAG}` = '{run}'" + ("" if resume_after else " and attributes.status = 'RUNNING'")
    newest = client.search_runs([experiment_id], wanted, max_results=1)
    if not newest:
        return None
    run_id: str = newest[0].info.run_id
    client.update_run(run_id, status="RUNNING")
    return run_id


def _create(client: "MlflowClient", experiment_id: str, run: str, settings: Mapping[str, JsonValue]) -> str:
    """Create a run with these settings on the server and return its id."""
    from mlflow.entities import Param

    run_id: str = client.create_run(experiment_id, tags={_TAG: run}, run_name=run).info.run_id
    with _ended_on_error(client, run_id):
        given = ((name, value) for name, value in flat_settings(settings) if value != {})
        client.log_batch(run_id, params=[Param(name, setting_as_text(value)) for name, value in given])
    return run_id


@contextmanager
def _ended_on_error(client: "MlflowClient", run_id: str) -> Iterator[None]:
    """Record on the server that a run has failed, if a request in the block fails."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError):
        with suppress(MlflowException, OSError):
            client.set_terminated(run_id, status="FAILED")
        raise


def _last_steps(client: "MlflowClient", run_id: str) -> dict[str, int]:
    """Return the last step that the server has of each metric.

    The server keeps every value, so it would show a step twice if the step were sent again.
    """
    names = client.get_run(run_id).data.metrics
    return {name: max(at.step for at in client.get_metric_history(run_id, name)) for name in names}


def _one_line(error: Exception) -> str:
    """Return an error's message on one line, cut to 300 characters."""
    return " ".join(str(error).split())[:300]
