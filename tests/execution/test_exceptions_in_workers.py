"""What is raised in another process of a command is one line all the same."""

import errno
import os

import pytest

from multicsr.cli.entrypoint import guarded
from multicsr.execution.pool import Pool, map_items

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


def _full(item: int) -> int:
    raise OSError(errno.ENOSPC, "No space left on device", "/data/x")


def _key(item: int) -> int:
    raise KeyError("first\nsecond \x1b[2J")


def _memory(item: int) -> int:
    raise MemoryError


def _killed(item: int) -> int:
    os.kill(os.getpid(), 9)
    return item


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (_full, ["No space left on device", "/data/x"]),
        (_key, ["KeyError", "first"]),
        (_memory, ["MemoryError"]),
        (_killed, ["died"]),
    ],
)
def test_an_exception_in_a_worker_is_one_line(work, words, capfd):
    def call() -> None:
        list(map_items("generate", lambda: work, [1, 2], Pool()))

    assert guarded(call, debug=False) == 1
    out, err = capfd.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, err
    assert all(word in errors[0] for word in words), err
    assert "Traceback" not in out + err
    assert "\x1b" not in errors[0]
