"""One job at a time makes a version of a store.

A job takes the lease by an entry in the log, and shows that it lives by changing a small file, its beat. Who
finds a lease watches that beat: if it changes the store is busy; if it is silent for `lease_s` by the
watcher's own clock, the job is dead and the watcher takes over by the next entry. No two clocks are compared.
The entry is the fence: a job publishes at the position behind its own last entry, which is then taken.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, TypeAdapter

from multicsr.errors import MulticsrError, RunError
from multicsr.progress import Progress
from multicsr.repeat import repeated
from multicsr.store import Store
from multicsr.versions import LeaseEntry, Log, Version

_BEATS = "leases"
_BEATS_PER_LEASE = 4
_LOOKS_PER_LEASE = 40


class _Beat(BaseModel):
    """What a holder writes again and again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    released: bool = False


_beat = TypeAdapter(_Beat)


class Lease:
    """The right to publish, as long as nobody took it over."""

    def __init__(self, log: Log, entry: LeaseEntry, position: int, lease_s: float) -> None:
        self._log, self._entry, self._position, self._lease_s = log, entry, position, lease_s
        self._beats = 0
        self._beat()

    def check(self) -> None:
        """Raises RunError when another job took over."""
        if self._log.has(self._position + 1):
            raise self._lost()

    def publish(self, version: Version) -> None:
        """Make a version the current one. Raises RunError when another job took over."""
        if not self._log.append(self._position + 1, version):
            raise self._lost()
        self._position += 1

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Beat while the block runs; at its end let the next job begin at once."""

        def beat() -> None:
            with suppress(MulticsrError):  # if it stays like that, somebody takes over, and `publish` tells
                self._beat()

        try:
            with repeated(beat, self._lease_s / _BEATS_PER_LEASE):
                yield
        finally:
            self._beat(released=True)

    def _beat(self, released: bool = False) -> None:
        self._beats += 1
        beat = _Beat(number=self._beats, released=released)
        self._log.store.write_text(_beat_name(self._entry), beat.model_dump_json())

    def _lost(self) -> RunError:
        entry = self._log.read(self._position + 1)
        who = entry.holder if isinstance(entry, LeaseEntry) else f"version {entry.number}"
        return RunError(
            f"{self._log.store.uri()} was taken over by {who} at {entry.created}, because this job was "
            f"silent for lease_s = {self._lease_s:g}; nothing was published, and the work is kept"
        )


@contextmanager
def held(store: Store, what: str, lease_s: float, progress: Progress) -> Iterator[Lease]:
    """The lease of a store, for as long as the block runs.

    Args:
        what: names the job to others.

    Raises:
        RunError: another job is at work; or the server ignores conditions, so that two jobs could both win.
    """
    lease = _take(store, f"{what} on {socket.gethostname()}, process {os.getpid()}", lease_s, progress)
    with lease.kept_alive():
        yield lease


def _take(store: Store, holder: str, lease_s: float, progress: Progress) -> Lease:
    check_conditions(store)
    log = Log(store)
    while True:
        last = log.last()
        if (before := log.latest(LeaseEntry)) is not None:
            _wait_for_end_of(store, before, lease_s, progress)
        entry = LeaseEntry(holder=holder)
        if log.append(last + 1, entry):
            return Lease(log, entry, last + 1, lease_s)


def _wait_for_end_of(store: Store, lease: LeaseEntry, lease_s: float, progress: Progress) -> None:
    """Return when the lease is given back or its holder silent for so long; raise when the holder lives."""
    first = _read_beat(store, lease)
    if first.released:
        return
    progress.start("lease", None)
    silent_until_s = time.monotonic() + lease_s
    while time.monotonic() < silent_until_s:
        time.sleep(lease_s / _LOOKS_PER_LEASE)
        beat = _read_beat(store, lease)
        if beat.released:
            break
        if beat != first:
            raise RunError(f"{store.uri()} is in use since {lease.created}: {lease.holder}; wait for its end")
    progress.finish(f"taken over from {lease.holder}")


def _read_beat(store: Store, lease: LeaseEntry) -> _Beat:
    name = _beat_name(lease)
    return store.read_json(name, _beat, "; delete it") if store.exists(name) else _Beat(number=0)


def _beat_name(lease: LeaseEntry) -> str:
    return f"{_BEATS}/{lease.id}.json"


def check_conditions(store: Store) -> None:
    """Raises RunError when the store cannot be written, or would let two writers of one file win."""
    name = f"{_BEATS}/probe-{uuid4().hex}"
    is_refused = store.create_text(name, "first") and not store.create_text(name, "second")
    store.delete(name)
    if not is_refused:
        raise RunError(
            f"store: the server of {store.uri()} ignores If-None-Match, so that two jobs could publish at "
            "once; use one that knows conditional puts (AWS S3, MinIO, Ceph from Squid on)"
        )
