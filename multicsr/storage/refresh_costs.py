"""Costs of refresh runs, recorded where they arise, so that no crash loses or doubles the record of a run.

`refresh/costs/<id>.json` is the cost of one piece of work: the worker that did a shard of LLM work records
it, and the driver records training while it runs. A refresh run adds up all costs that no earlier run
counted, including those of jobs that died. It then writes `refresh/pending.json`, publishes, appends its
record to the refresh log and deletes the costs. If a crash interrupts these steps, the next start completes
them.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, TypeAdapter

from multicsr.errors import MulticsrError
from multicsr.periodic import run_periodically
from multicsr.storage import refresh_log
from multicsr.storage.refresh_log import RefreshRun
from multicsr.storage.store import Store
from multicsr.storage.versions import latest

_COSTS = "refresh/costs"
_PENDING = "refresh/pending.json"
_BOOK_EVERY_S = 30.0
"""Seconds between two records of a running training: the most that a killed driver can lose."""


class Cost(BaseModel):
    """The cost of a piece of work."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

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


class _Pending(BaseModel):
    """A refresh run that is about to publish."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name of its record in the refresh log."""
    refresh_run: RefreshRun
    artifacts: dict[str, str]
    """Artifacts of the version that is current after it has published, as name -> fingerprint."""


_cost = TypeAdapter(Cost)
_pending = TypeAdapter(_Pending)


def book(store: Store, cost: Cost, name: str | None = None) -> None:
    """Record the cost of a piece of work.

    Args:
        name: name of a cost that grows; recording it again replaces it. None: a new cost.
    """
    store.write_json(f"{_COSTS}/{name or uuid4().hex}.json", cost)


@contextmanager
def book_gpus(store: Store, gpus: float) -> Iterator[None]:
    """Record the seconds of `gpus` GPUs while the block runs; nothing is recorded if `gpus` is 0."""
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


def booked(store: Store) -> Cost:
    """Return the sum of all costs that no refresh run has counted yet."""
    return sum((store.read_json(name, _cost, "; delete it") for name in _names(store)), Cost())


def forget(store: Store) -> None:
    """Delete the recorded costs after the refresh log contains them.

    Raises:
        RunError: the lease is lost.
    """
    store.check_lease()
    store.files.delete(_names(store))


def begin_closing(store: Store, refresh_run: RefreshRun, artifacts: dict[str, str]) -> None:
    """Write `refresh/pending.json`: a run is about to publish, and `refresh_run` will be its record.

    Args:
        store: the store.
        refresh_run: the record.
        artifacts: the artifacts that the run is about to publish, as name -> fingerprint.
    """
    pending = _Pending(name=refresh_log.new_name(), refresh_run=refresh_run, artifacts=artifacts)
    store.write_json(_PENDING, pending)


def complete(store: Store) -> None:
    """Complete the closing of a run, either this one or one that died.

    A run that died before it published gets no record: its costs stay recorded for the next one.

    Raises:
        RunError: the lease is lost, or a file is damaged.
    """
    if not store.exists(_PENDING):
        return
    store.check_lease()
    pending = store.read_json(_PENDING, _pending, "; delete it")
    current = latest(store)
    if current is not None and current.artifacts == pending.artifacts:
        refresh_log.append(store, pending.refresh_run, pending.name)
        forget(store)
    store.delete(_PENDING)


def _names(store: Store) -> list[str]:
    return [name for name in store.names(_COSTS) if name.endswith(".json")]
