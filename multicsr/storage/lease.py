"""Leases: only one job at a time makes a version of a store.

A job acquires the lease by appending an entry to the log and renews it by updating a heartbeat file. A
contender polls the heartbeat on its own clock: if it changes, the store is busy; if it does not change for
the holder's `lease_s`, the holder counts as dead and the contender takes over with the next entry. No two
clocks are compared. If the holder's process ended on this machine, or its heartbeat file is gone, the
contender takes over at once.

The entry is the fence: a job appends at the position behind its own last entry, and after a takeover that
position is taken. Every step that is not an append, such as a delete, is preceded by `Fence.check`. A job may
be suspended for hours between the check and the step, so such steps must also be harmless when they come
late; `collected.py` explains how.
"""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from typing import Self
from uuid import uuid4

from pydantic import TypeAdapter

from multicsr.artifacts import FileRecord
from multicsr.errors import DamagedFileError, MulticsrError, RunError
from multicsr.observability.progress import Progress
from multicsr.periodic import run_periodically
from multicsr.storage.collected import mark_collected
from multicsr.storage.process_identity import ProcessIdentity
from multicsr.storage.store import Store
from multicsr.storage.versions import CollectionEntry, Entry, LeaseEntry, Log, Version

HEARTBEATS = "leases"
"""Folder of the heartbeat files."""
PROBE = "probe-"
"""Prefix of the names of files with which a job tests if the store supports conditional writes."""
_HEARTBEATS_PER_LEASE = 4
"""Number of heartbeats that a holder writes in `lease_s`."""
_LOOKS_PER_LEASE = 40
"""Number of times that a contender reads the heartbeat before it takes over."""
_TRIES = 20
"""Maximum number of attempts to take the lease. One fails if another job appends at the same time."""
_PROBES = 3
"""Maximum number of tests of conditional writes."""
_DAMAGED = -1
"""Number that represents an unreadable heartbeat."""


class _Heartbeat(FileRecord):
    """The record in a heartbeat file, which the holder rewrites periodically."""

    number: int
    released: bool = False


_heartbeat = TypeAdapter(_Heartbeat)


@dataclass
class Fence:
    """The check that a job still holds its lease. It can be pickled, so that workers of the job check too."""

    log: Log
    entry: LeaseEntry
    position: int
    """Position of the last entry in the log that is known to belong to this job."""

    def check(self) -> None:
        """Raise if another job took over.

        Every call reads the log, so the answer is also right after the process was suspended.

        Raises:
            RunError: another job holds the store now, or held it since.
        """
        while self.log.has(self.position + 1):
            entry = self.log.read(self.position + 1)
            if isinstance(entry, LeaseEntry):
                raise self.lost(entry)
            self.position += 1  # entries before the next lease are those that this job published

    def lost(self, by: Entry) -> RunError:
        """Return the error of a job whose next position in the log is taken by the entry `by`."""
        who = by.holder if isinstance(by, LeaseEntry) else f"another {by.kind}"
        return RunError(
            f"{self.log.store.uri()} was taken over by {who} at {by.created}, because this job was "
            f"silent for lease_s = {self.entry.lease_s:g}; nothing was published, and the work is kept"
        )


class Lease:
    """A lease: the right to publish until another job takes it over."""

    def __init__(self, log: Log, entry: LeaseEntry, position: int) -> None:
        self._log, self._entry = log, entry
        self._fence = Fence(log, entry, position)
        self._num_heartbeats = 0
        self.store = log.store.fenced(self._fence.check)
        """The store, fenced: it deletes and uploads only while the lease is held."""

    @classmethod
    def acquire(cls, store: Store, holder: str, lease_s: float, progress: Progress) -> Self:
        """Acquire the lease of a store by an entry in its log.

        Args:
            holder: name of the job and its process, for the messages of other jobs.
            lease_s: seconds without a heartbeat after which this job counts as dead.
            progress: receives the time of waiting for a holder that is silent.

        Raises:
            RunError: another job holds the lease, or the server ignores conditions of writes.
        """
        check_conditions(store)
        log = Log(store)
        for _ in range(_TRIES):
            last = log.last()
            if (before := log.latest(LeaseEntry)) is not None:
                _wait_for_end_of(store, before, lease_s, progress)
            entry = LeaseEntry(holder=holder, lease_s=lease_s, process=ProcessIdentity.own())
            # The heartbeat is written first, because a lease without one counts as released.
            _write_heartbeat(store, entry, _Heartbeat(number=0))
            if log.append(last + 1, entry):
                _complete_collections(log, last)
                return cls(log, entry, last + 1)
            store.files.delete([_heartbeat_name(entry)])
        raise _blocked(log, last + 1)

    def check(self) -> None:
        """Raise RunError if another job took over."""
        self._fence.check()

    def publish(self, version: Version) -> None:
        """Make a version the current one.

        Raises:
            RunError: another job took over.
        """
        self._append(version)

    def collect(self, keys: Sequence[str]) -> None:
        """Announce in the log the artifacts to be deleted, so that no later version can name them.

        Raises:
            RunError: another job took over.
        """
        self._append(CollectionEntry(keys=[*keys]))
        mark_collected(self.store, keys)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the lease while the block runs and release it at the end, so that the next job can begin."""

        def renew() -> None:
            with suppress(MulticsrError):  # if all fail, another job takes over, and `publish` raises
                self._renew()

        try:
            with run_periodically(renew, self._entry.lease_s / _HEARTBEATS_PER_LEASE):
                yield
        finally:
            self._release()

    def _append(self, entry: Version | CollectionEntry) -> None:
        """Append an entry at the position behind this job's last one.

        Raises:
            RunError: another job took over, or the position is occupied by something else.
        """
        # A free position proves nothing: a user may have deleted the entry of a successor. So the last one
        # counts.
        if self._log.last() == self._fence.position and self._log.append(self._fence.position + 1, entry):
            self._fence.position += 1
            return
        self.check()
        if (last := self._log.last()) != self._fence.position:
            raise self._fence.lost(self._log.read(last))
        raise _blocked(self._log, last + 1)

    def _renew(self, released: bool = False) -> None:
        self._num_heartbeats += 1
        _write_heartbeat(
            self._log.store, self._entry, _Heartbeat(number=self._num_heartbeats, released=released)
        )

    def _release(self) -> None:
        """Release the lease. It never raises, because the error that ended the job matters more."""
        try:
            self._renew(released=True)
        except MulticsrError:  # a full disk still deletes, and a missing heartbeat means released
            with suppress(MulticsrError, OSError):
                self._log.store.files.delete([_heartbeat_name(self._entry)])


@contextmanager
def held(store: Store, what: str, lease_s: float, progress: Progress) -> Iterator[Lease]:
    """Hold the lease of a store while the block runs.

    Args:
        what: description of this job for the messages of other jobs.
        lease_s: seconds without a heartbeat after which this job counts as dead.

    Raises:
        RunError: another job holds the lease, or the server ignores conditions of writes, so that two jobs
            could both get it.
    """

    holder = f"{what} on {socket.gethostname()}, process {os.getpid()}"
    lease = Lease.acquire(store, holder, lease_s, progress)
    with lease.renewed():
        yield lease


def _blocked(log: Log, position: int) -> RunError:
    return RunError(
        f"cannot create {log.uri(position)}: another file occupies the name; inspect it and delete it"
    )


def _complete_collections(log: Log, last: int) -> None:
    """Mark the artifacts that the previous holder announced, in case it ended before it marked all."""
    for position in reversed([each for each in log.positions() if each <= last]):
        entry = log.read(position)
        if isinstance(entry, LeaseEntry):
            return
        if isinstance(entry, CollectionEntry):
            mark_collected(log.store, entry.keys)


def _wait_for_end_of(store: Store, lease: LeaseEntry, lease_s: float, progress: Progress) -> None:
    """Return as soon as the lease is released or its holder is dead.

    Raises:
        RunError: the holder is alive.
    """
    first = _read_heartbeat(store, lease)
    if first.released:
        return
    if lease.process and lease.process.is_dead():
        progress.start("lease", None)
        progress.finish(f"taken over from {lease.holder}, which has ended")
        return
    silence_s = max(lease_s, lease.lease_s)  # the interval of heartbeats depends on the holder's setting
    progress.start("lease", ceil(silence_s), f"s of silence before it is taken over from {lease.holder}")
    silent_until_s = time.monotonic() + silence_s
    while time.monotonic() < silent_until_s:
        time.sleep(silence_s / _LOOKS_PER_LEASE)
        now = _read_heartbeat(store, lease)
        if now.released:
            break
        if now != first:
            raise RunError(f"{store.uri()} is in use since {lease.created}: {lease.holder}; wait for its end")
    progress.finish(f"taken over from {lease.holder}")


def _read_heartbeat(store: Store, lease: LeaseEntry) -> _Heartbeat:
    name = _heartbeat_name(lease)
    if not store.exists(name):
        return _Heartbeat(number=0, released=True)
    try:
        return store.read_json(name, _heartbeat, "")
    except DamagedFileError:  # a living holder rewrites it
        return _Heartbeat(number=_DAMAGED)


def _write_heartbeat(store: Store, lease: LeaseEntry, heartbeat: _Heartbeat) -> None:
    store.write_json(_heartbeat_name(lease), heartbeat)


def _heartbeat_name(lease: LeaseEntry) -> str:
    return f"{HEARTBEATS}/{lease.id}.json"


def check_conditions(store: Store) -> None:
    """Raise RunError if the store cannot be written, or if two writers could both create the same file."""
    for _ in range(_PROBES):  # a probe that is deleted between its two writes proves nothing
        name = f"{HEARTBEATS}/{PROBE}{uuid4().hex}"
        is_rejected = store.create_text(name, "first") and not store.create_text(name, "second")
        store.delete(name)
        if is_rejected:
            return
    raise RunError(
        f"store: the server of {store.uri()} ignores If-None-Match, so that two jobs could publish at "
        "once; use one that knows conditional puts (AWS S3, MinIO, Ceph from Squid on)"
    )
