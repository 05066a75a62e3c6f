"""A job in a process of its own, which stops itself by SIGSTOP before one of its storage calls.

`tests/storage/test_stopped_processes.py` starts it. All threads of a stopped process stand still, the
heartbeat too, so this is what a suspended machine or a container that lost its CPU looks like to other jobs.
"""

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from multicsr.cli.entrypoint import guarded
from multicsr.config import Config
from multicsr.llm.fake import FakeEngine
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.storage import local, s3, transaction
from multicsr.storage.lease import HEARTBEATS
from multicsr.tools import gc
from tests.support.inline import work_inline

KEPT = 1
"""Versions that gc keeps."""
FIRST = 3
"""The version of the first corpus, to which a rollback goes back."""
_CALLS = (
    *("exists", "infos", "read", "open", "write", "create", "delete", "delete_folder"),
    *("upload", "download", "abandoned_uploads"),
)
JOBS: dict[str, Callable[[Config], object]] = {
    "gc": lambda config: gc.clean_up(config, KEPT, 0, SilentProgress(), delete=True),
    "gc all": lambda config: gc.clean_up(
        config, KEPT, 0, SilentProgress(), delete=True, unused_llm_output=True
    ),
    "rollback": lambda config: transaction.roll_back(config, FIRST, SilentProgress()),
    "run": lambda config: full_run.run(config, SilentProgress(), until="curate"),
}


def kind_of(step: str) -> str:
    """Return call and folder of a step: the rest of a name differs in every process."""
    return step.partition("/")[0]


class Steps:
    """The storage calls of this process but for heartbeats, each a line of a file; it stops before one."""

    def __init__(self, path: Path, stop_before: tuple[str, int] | None) -> None:
        self._path, self._stop_before = path, stop_before
        self._lock = threading.RLock()
        self._counts: Counter[str] = Counter()

    def begin(self, call: str, argument: object) -> None:
        """Note a call, and stop this process before it if it is the chosen one."""
        name = argument[0] if isinstance(argument, list) and argument else argument
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main and str(name).startswith(HEARTBEATS):
            return
        with self._lock:
            step = f"{call} {name}"
            kind = kind_of(step)
            self._counts[kind] += 1
            with self._path.open("a") as file:
                file.write(f"{step}\n")
            if (kind, self._counts[kind]) == self._stop_before:
                os.kill(os.getpid(), signal.SIGSTOP)

    def counted(self, call: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method of a place of files that begins with `begin`."""

        @wraps(function)
        def method(files: object, argument: object, *others: object) -> object:
            self.begin(call, argument)
            return function(files, argument, *others)

        return method


def note_written(path: Path, patch: pytest.MonkeyPatch) -> None:
    """Append the id of each sentence that the LLM writes for to a file."""
    generate_pairs = FakeEngine.generate_pairs

    def note(engine: FakeEngine, pairs: Sequence[object], row_ids: Sequence[str]) -> object:
        with path.open("a") as file:
            file.writelines(f"{row_id}\n" for row_id in row_ids)
        return generate_pairs(engine, pairs, row_ids)

    patch.setattr(FakeEngine, "generate_pairs", note)


def main(job: str, config: Config, folder: Path, stop_before: tuple[str, int] | None) -> None:
    """Run a job and end the process with its exit code; what it prints, calls and writes is in `folder`.

    Args:
        stop_before: kind and number of the step before which the process stops, see `kind_of`.
    """
    with (folder / "stderr").open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    steps, patch = Steps(folder / "steps", stop_before), pytest.MonkeyPatch()
    work_inline(patch)
    note_written(folder / "written", patch)
    for kind in (local.Disk, s3.Bucket):
        for call in _CALLS:
            patch.setattr(kind, call, steps.counted(call, getattr(kind, call)))
    sys.exit(guarded(lambda: void(JOBS[job], config), debug=False, command=f"multicsr {job}"))


def void(call: Callable[[Config], object], config: Config) -> None:
    """Call and drop the result."""
    call(config)
