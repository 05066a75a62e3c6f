"""Costs of refresh runs, recorded where they arise, so that no crash loses or doubles the record of a run.

`refresh/costs/<id>.json` is the cost of one piece of work: the worker that did a shard of LLM work records
it, and the driver records training while it runs. A refresh run adds up all costs that no earlier run
counted, including those of jobs that died. It then writes `refresh/pending/<id>.json`, publishes, appends its
record to the refresh log and deletes the costs that it counted. If a crash interrupts these steps, the next
start completes them. Every run has a pending record of its own, which names the costs that it counted: a run
that was suspended deletes nothing of its successor when it wakes.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple
from uuid import uuid4

from pydantic import TypeAdapter

from multicsr.artifacts import FileRecord
from multicsr.errors import DamagedFileError, MulticsrError
from multicsr.periodic import run_periodically
from multicsr.storage import refresh_log
from multicsr.storage.refresh_log import RefreshRun
from multicsr.storage.store import Store
from multicsr.storage.versions import latest

_log = logging.getLogger(__name__)
_COSTS = "refresh/costs"
_PENDING = "refresh/pending"
_BOOK_EVERY_S = 30.0
"""Seconds between two records of a running training: the most that a killed driver can lose."""


class Cost(FileRecord):
    """The cost of a piece of work."""

    rows_written: int = 0
    """Number of sentences that the LLM wrote hypotheses for."""
    rows_scored: int = 0
    tokens: int = 0
    """Number of tokens that the LLM wrote."""
    gpu_seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            rows_written=self.rows_written + other.rows_written,
            rows_scored=self.rows_scored + other.rows_scored,
            tokens=self.tokens + other.tokens,
            gpu_seconds=self.gpu_seconds + other.gpu_seconds,
        )


class Booked(NamedTuple):
    """The costs that no refresh run has counted yet."""

    cost: Cost
    """Their sum."""
    names: list[str]
    """Names of their files, also of damaged ones, whose cost is unknown."""


class _Pending(FileRecord):
    """A refresh run that is about to publish."""

    name: str
    """Name of its record in the refresh log."""
    refresh_run: RefreshRun
    artifacts: dict[str, str]
    """Artifacts of the version that is current after it has published, as name -> fingerprint."""
    costs: list[str]
    """Names of the files with the costs that it counted."""


_cost = TypeAdapter(Cost)
_pending = TypeAdapter(_Pending)


def book(store: Store, cost: Cost, name: str | None = None) -> None:
    """FileRecord the cost of a piece of work.

    Args:
        name: name of a cost that grows; recording it again replaces it. None: a new cost.
    """
    store.write_json(f"{_COSTS}/{name or uuid4().hex}.json", cost)


@contextmanager
def book_gpus(store: Store, gpus: float) -> Iterator[None]:
    """FileRecord the seconds of `gpus` GPUs while the block runs; nothing is recorded if `gpus` is 0."""
    started_s, name = time.monotonic(), uuid4().hex

    def book_until_now() -> None:
        with suppress(MulticsrError):  # the work itself meets the same error and reports it
            book(store, Cost(gpu_seconds=gpus * (time.monotonic() - started_s)), name)

    if not gpus:
        yield
        return
    with run_periodically(book_until_now, _BOOK_EVERY_S):
        try:
            yield
        finally:
            book_until_now()


def booked(store: Store) -> Booked:
    """Return all costs that no refresh run has counted yet; a damaged file is reported and counts as 0."""
    cost, names = Cost(), _names(store, _COSTS)
    for name in names:
        try:
            cost += store.read_json(name, _cost, "; its cost is left out of the refresh log")
        except DamagedFileError as error:
            _log.warning("%s", error)
    return Booked(cost, names)


def begin_closing(
    store: Store, refresh_run: RefreshRun, artifacts: dict[str, str], costs: Sequence[str]
) -> None:
    """Write a pending record: a run is about to publish, and `refresh_run` will be its record.

    Args:
        store: the store.
        refresh_run: the record.
        artifacts: the artifacts that the run is about to publish, as name -> fingerprint.
        costs: names of the files with the costs that `refresh_run` includes.
    """
    pending = _Pending(
        name=refresh_log.new_name(), refresh_run=refresh_run, artifacts=artifacts, costs=[*costs]
    )
    store.write_json(f"{_PENDING}/{uuid4().hex}.json", pending)


def complete(store: Store) -> None:
    """Complete the closing of runs, either of this one or of those that died.

    A run that died before it published gets no record: its costs stay recorded for the next one.

    Raises:
        RunError: the lease is lost, or a file is damaged.
    """
    for name in _names(store, _PENDING):
        store.check_lease()
        pending = store.read_json(name, _pending, "; delete it")
        current = latest(store)
        if current is not None and current.artifacts == pending.artifacts:
            refresh_log.append(store, pending.refresh_run, pending.name)
            _forget(store, pending.costs)
        store.delete(name)


def _forget(store: Store, costs: Sequence[str]) -> None:
    """Delete recorded costs after the refresh log contains them.

    Raises:
        RunError: the lease is lost.
    """
    store.check_lease()
    store.files.delete(costs)


def _names(store: Store, folder: str) -> list[str]:
    return [name for name in store.names(folder) if name.endswith(".json")]
