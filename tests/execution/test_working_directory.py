"""Workers begin where the driver is, because relative paths do."""

import pickle
from pathlib import Path

import pytest

from multicsr.execution.pool import _Worker
from multicsr.execution.working_directory import current_directory, enter_directory


class NoAttempts:
    def begin(self, number, what): ...
    def end(self, number): ...


def test_worker_makes_its_function_in_the_directory_of_the_driver(tmp_path, monkeypatch):
    driver, worker = tmp_path / "driver", tmp_path / "worker"
    for folder in (driver, worker):
        folder.mkdir()
    (driver / "prompts.yaml").write_text("of the driver")
    monkeypatch.chdir(worker)  # and back after the test
    call = _Worker(lambda: lambda name: Path(name).read_text(), NoAttempts(), "task", str(driver))
    [result] = call({"number": [0], "shard": [pickle.dumps("prompts.yaml")]})["result"]
    assert pickle.loads(result).take() == "of the driver"


def test_deleted_directory_of_the_driver_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert current_directory() == str(tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert current_directory() == ""
    monkeypatch.chdir(tmp_path)
    enter_directory("")
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("name", ["missing", "file"])
def test_machine_without_that_directory_is_no_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    enter_directory(str(tmp_path / name))
    assert Path.cwd() == tmp_path
