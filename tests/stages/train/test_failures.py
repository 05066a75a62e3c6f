"""An error that comes again ends the run; what another job left is data and is never unpickled."""

import pickle
from pathlib import Path

import pytest
import torch.distributed as dist

from multicsr.errors import ConfigError, RunError, WorkerLost
from multicsr.stages.train import distributed, worker
from multicsr.stages.train.failures import Failures
from multicsr.stages.train.worker import TrainingTask, work
from multicsr.storage.store import Store

KEY = "a1"


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def failing(store, monkeypatch):
    """From an error and the step that it comes at to what a worker gives back, of one or of several."""

    def run(error: Exception, step: int, workers: int = 1) -> object:
        def train(task: TrainingTask, progress) -> None:
            progress.advance(step)
            raise error

        monkeypatch.setattr(worker, "_train", train)
        monkeypatch.setattr(distributed, "size", lambda: workers)
        return work({"store": store, "key": KEY}).result

    return run


def test_an_error_of_ours_travels_as_a_value(failing):
    error = ConfigError("train.dev: no such file")
    assert failing(error, 0) is error


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ConfigError("a: b"), ConfigError), (RunError("c"), RunError), (WorkerLost("d"), RunError)],
)
def test_of_several_workers_one_leaves_it_for_those_that_follow(failing, error, kind):
    with pytest.raises(type(error)):
        failing(error, 3, workers=2)
    found = failing(AssertionError("never reached"), 0, workers=2)
    assert (type(found), str(found)) == (kind, str(error))


def test_an_error_that_comes_again_at_the_same_step_ends_the_run(failing, store):
    with pytest.raises(AttributeError):
        failing(AttributeError("'X' has no y"), 5)
    error = failing(AttributeError("'X' has no y"), 5)
    assert isinstance(error, RunError)
    assert str(error) == (
        "train: the same error came twice after step 5, so another try would not help: "
        "AttributeError: 'X' has no y; there is no checkpoint yet: the next run starts anew"
    )
    with pytest.raises(ValueError, match="of several"):
        failing(ValueError("of several"), 5, workers=2)
    store.write_bytes(f"training/{KEY}/checkpoint-00000004.pt", b"")
    with pytest.raises(ValueError, match="of several"):
        failing(ValueError("of several"), 5, workers=2)
    error = failing(AssertionError("never reached"), 0, workers=2)
    assert str(error).endswith("; the checkpoint after step 4 is kept: the next run goes on from it")
    Failures(store, KEY).clear()
    with pytest.raises(ValueError, match="of several"):
        failing(ValueError("of several"), 5, workers=2)


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (AttributeError("'X' has no y"), 6),
        (AttributeError("'X' has no z"), 5),
        (TypeError("'X' has no y"), 5),
        (dist.DistBackendError("a worker is gone"), 5),
    ],
)
def test_another_error_or_step_is_tried_again(failing, error, step):
    for before in (AttributeError("'X' has no y"), error if isinstance(error, dist.DistError) else None):
        with pytest.raises(type(before or error)):
            failing(before or error, 5 if before else step)
    if isinstance(error, dist.DistError):
        with pytest.raises(dist.DistError):
            failing(error, step)


def test_an_object_at_another_address_is_the_same_error(failing):
    with pytest.raises(TypeError):
        failing(TypeError("<X object at 0x7f00aa>"), 1)
    assert isinstance(failing(TypeError("<X object at 0x7f00bb>"), 1), RunError)


class Attack:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._path,)


@pytest.mark.parametrize("name", ["error.pkl", "failures/final.json", "failures/worker-0.json"])
@pytest.mark.parametrize("is_pickle", [True, False])
def test_a_file_that_somebody_put_there_runs_no_code(failing, store, tmp_path, name, is_pickle):
    content = pickle.dumps(Attack(tmp_path / "attacked")) if is_pickle else b'{"kind": "RunError"}'
    store.write_bytes(f"training/{KEY}/{name}", content)
    with pytest.raises(AttributeError):
        failing(AttributeError("own"), 5)
    assert not (tmp_path / "attacked").exists()
