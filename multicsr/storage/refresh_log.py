"""The refresh log of a store: the results, costs and decision of every refresh run.

Each run has one small file, which is never changed.
"""

import time
from typing import Literal

from pydantic import TypeAdapter

from multicsr.artifacts import FileRecord
from multicsr.storage.store import Store

_FOLDER = "refresh_log"


class RefreshRun(FileRecord):
    """The record of one refresh run."""

    started: str
    """Start of the run, ISO 8601 in UTC."""
    seconds: float
    outcome: Literal["nothing new", "published"]
    version: int | None
    """Number of the version that was current after the run."""
    sentences: int
    """Number of sentences in the corpus after the run."""
    new: int = 0
    """Number of sentences that were not there before."""
    removed: int = 0
    """Number of sentences that are gone from the source."""
    rows_written: int = 0
    """Number of sentences that the LLM wrote hypotheses for, in this run and in jobs that died before it."""
    rows_scored: int = 0
    tokens: int = 0
    """Number of tokens that the LLM wrote."""
    curated: int = 0
    """Number of triplets to train on."""
    curated_changed: float = 0.0
    """Fraction of these triplets that differ from those the previous model was trained on."""
    gpu_seconds: float = 0.0
    cost: float = 0.0
    """Cost of `gpu_seconds` at `refresh.price_per_gpu_hour`."""
    metrics: dict[str, float] = {}
    """Metrics of the model that this run trained, promoted or not; empty if it trained none."""
    metrics_before: dict[str, float] = {}
    """Metrics of the previous model on the same tasks."""
    decision: str
    """Decision about the model and its reason, as text."""


_refresh_run = TypeAdapter(RefreshRun)


def new_name() -> str:
    """Return a new name for a record. It contains the time, so that names sort in the order of the runs."""
    return f"{_FOLDER}/{time.time_ns():020d}.json"


def append(store: Store, refresh_run: RefreshRun, name: str) -> None:
    """Write the record of a run. After a crash it may be written again under the same name."""
    store.write_json(name, refresh_run)


def refresh_runs(store: Store) -> list[RefreshRun]:
    """Return the records of all refresh runs, oldest first.

    Raises:
        RunError: a record is damaged.
    """
    names = [name for name in store.names(_FOLDER) if name.endswith(".json")]
    return [store.read_json(name, _refresh_run, "; delete it") for name in names]
