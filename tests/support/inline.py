"""Jobs in this process, without Ray: for tests of a store that need many jobs and no workers."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from multicsr.execution import stage_runner
from multicsr.pipeline import diff
from multicsr.stages.curate import run as curate_run
from multicsr.stages.evaluate import leaks
from multicsr.stages.generate import calibrate, few, planning, writing
from multicsr.stages.generate.retrieval import prepare


def _map_items(
    name: str, make: Callable[[], Callable[[Any], object]], items: Sequence[object], pool: object
) -> Iterator[object]:
    """Do what `pool.map_items` does, one item after the other; items are pickled as they are there."""
    if items:
        work = make()
        for item in items:
            yield work(pickle.loads(pickle.dumps(item)))


def work_inline(patch: pytest.MonkeyPatch) -> None:
    """Let the stages work in this process."""
    for module in (stage_runner, planning, prepare, writing, calibrate, few, curate_run, diff, leaks):
        patch.setattr(module, "map_items", _map_items)


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stages work in this process while a test runs."""
    work_inline(monkeypatch)
