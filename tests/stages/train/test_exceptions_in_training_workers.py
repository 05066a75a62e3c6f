"""What is raised in a worker of Ray Train, or ends it, is one line and the exit code 1."""

import os
import signal
from dataclasses import dataclass

import pytest

from multicsr.cli.entrypoint import guarded
from multicsr.config import Config
from multicsr.observability.progress import SilentProgress
from multicsr.stages.train import trainer, worker
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from tests.stages.train.test_trainer import publish_curated
from tests.support.any_exception import MAKERS

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]
KILLED = "killed"


@dataclass(frozen=True)
class FailingWork:
    """A worker's function under which something happens instead of the training."""

    kind: str

    def __call__(self, task: worker.TrainingTask) -> object:
        worker._train = self._fail
        return worker.work(task)

    def _fail(self, task: worker.TrainingTask, progress: SilentProgress) -> None:
        if self.kind == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        raise MAKERS[self.kind]()


@pytest.mark.parametrize(
    ("kind", "workers", "words"),
    [
        pytest.param("key", 2, ["same error came twice", "KeyError"], marks=pytest.mark.slow),
        pytest.param("full", 1, ["same error came twice", "No space left on device"], marks=pytest.mark.slow),
        pytest.param(
            "runtime", 1, ["same error came twice", "RuntimeError: KeyError"], marks=pytest.mark.slow
        ),
        pytest.param("exit", 1, ["train: "], marks=pytest.mark.slow),
        (KILLED, 1, ["train: ", "there is no checkpoint yet"]),
    ],
)
def test_whatever_ends_a_training_worker_is_one_line(
    kind, workers, words, tiny_bert, triplets, tmp_path, monkeypatch, capfd
):
    store = Store.open(str(tmp_path / "store"))
    publish_curated(store, triplets)
    training = {"encoder": str(tiny_bert), "mask": None, "global_batch": 16, "steps": 1}
    training |= {"workers": workers, "max_restarts": 2}
    tree = {"name": "x", "store": store.uri(), "input": {"paths": ["none"]}, "train": training}
    config = Config.model_validate(tree)
    monkeypatch.setattr(trainer, "work", FailingWork(kind))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert guarded(lambda: trainer.train(config, current(store), SilentProgress()), debug=False) == 1
    out, err = capfd.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, err
    assert all(word in errors[0] for word in words), err
    assert "Traceback" not in out + err
    assert "\x1b" not in errors[0]
    assert "model" not in current(store)
