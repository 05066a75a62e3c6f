"""Versions of a store: sets of artifacts that readers see. A version becomes visible by one conditional put.

`log/` holds entries that are written once and never changed: `log/00000001.json`, `log/00000002.json`, ... An
entry gets the next position, and only one writer can get it. The last version in the log is the current one.
Leases and collections are entries too (`lease.py`, `tools/gc.py`), so that a job that lost its lease finds
its position taken.
"""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, TypeVar
from uuid import uuid4

from pydantic import Field, TypeAdapter

from multicsr.artifacts import FileRecord
from multicsr.errors import RunError
from multicsr.storage.manifest import Manifest, base_fingerprint, now, read_manifest
from multicsr.storage.process_identity import ProcessIdentity
from multicsr.storage.store import Store

LOG = "log"
"""Folder of the log's entries."""
TOMBSTONES = "tombstones"
"""Folder of the rows that are gone from their source, by the fingerprint of the `sentences` without them."""
MASK_VECTORS = "mask_vectors"
"""Folder of the vectors that mask models computed, by the fingerprint of the model."""
DEMONSTRATIONS = "demonstrations"
"""Folder of labelled premises with their vectors, by a fingerprint of their texts and of the encoder."""
ARTIFACTS = ("sentences", "scored", "curated", "model", "evaluation")
"""Names of the artifacts of a version, in the order in which stages make them."""
_MADE_BY = {"sentences": "ingest", "scored": "generate", "curated": "curate", "model": "train"}
"""Command that makes an artifact, where its name differs from that of the artifact."""


class _Entry(FileRecord):
    id: str = Field(default_factory=lambda: uuid4().hex)
    """Random id that distinguishes equal entries of two writers."""
    created: str = Field(default_factory=now)
    """Time of creation, ISO 8601 in UTC."""


class LeaseEntry(_Entry):
    """The start of a lease: after this entry only `holder` may publish."""

    kind: Literal["lease"] = "lease"
    holder: str
    lease_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """Seconds without a heartbeat after which the holder counts as dead, as in its configuration."""
    process: ProcessIdentity | None = None
    """Process of the holder; None on systems where a process cannot be identified."""


class CollectionEntry(_Entry):
    """The artifacts that gc is about to delete. After this entry no version may name them."""

    kind: Literal["collection"] = "collection"
    keys: list[str]


class Version(_Entry):
    """A published set of artifacts that belong together."""

    kind: Literal["version"] = "version"
    number: int
    """Number of the version: 1, 2, 3, ..."""
    run: str
    """`name` in the configuration."""
    command: str
    """Name of the command that published it."""
    artifacts: dict[str, str]
    """Fingerprint of each artifact by name; its manifest is `<name>/<fingerprint>/manifest.json`."""
    restores: int | None = None
    """Number of the version that a rollback restored; None if this version is not a rollback."""
    metrics: dict[str, float] = {}
    """Metrics of its model by task, kept here because the log outlives the artifacts."""
    tasks: dict[str, str] = {}
    """Digest of the data of each task; only metrics on the same data can be compared."""

    def has_work(self, artifacts: Mapping[str, str]) -> bool:
        """Return True if the version has the same curated triplets and the same model as `artifacts`."""
        return all(
            base_fingerprint(self.artifacts.get(artifact, ""))
            == base_fingerprint(artifacts.get(artifact, ""))
            for artifact in ("curated", "model")
        )


Entry = LeaseEntry | CollectionEntry | Version
_entry: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="kind")])
E = TypeVar("E", LeaseEntry, CollectionEntry, Version)
_ENTRY_NAME = re.compile(rf"{LOG}/([0-9]{{8}})\.json")
_MAX_HOLE = 1000
"""Maximum number of consecutive lost entries. A file after a larger gap is not an entry of this log."""


@dataclass(frozen=True)
class Snapshot:
    """An immutable snapshot of the artifacts of a version, or of a version that is being made.

    It does not change when another version is published.
    """

    store: Store
    fingerprints: Mapping[str, str]

    def __contains__(self, artifact: str) -> bool:
        return artifact in self.fingerprints

    def folder(self, artifact: str) -> str:
        """Return the folder of an artifact in the store."""
        return f"{artifact}/{self.fingerprints[artifact]}"

    def manifest(self, artifact: str) -> Manifest:
        """Return the manifest of an artifact.

        Raises:
            RunError: the snapshot has no such artifact, or its manifest is damaged or gone.
        """
        if artifact not in self.fingerprints:
            what = {"sentences": "sentences", "model": "model"}.get(artifact, f"{artifact} rows")
            command = f"multicsr {_MADE_BY.get(artifact, artifact)} CONFIG"
            raise RunError(f"no {what} in {self.store.uri()}; run `{command}` first")
        return read_manifest(self.store, artifact, self.fingerprints[artifact])


def current(store: Store) -> Snapshot:
    """Return the artifacts of the current version; none before the first version."""
    version = latest(store)
    return Snapshot(store, version.artifacts if version else {})


def snapshot_of(store: Store, number: int | None) -> Snapshot:
    """Return the artifacts of version `number`; None means the current version.

    Raises:
        RunError: there is no version `number`.
    """
    if number is None:
        return current(store)
    return Snapshot(store, find(store, number).artifacts)


def latest(store: Store) -> Version | None:
    """Return the current version; None before the first."""
    return Log(store).latest(Version)


def versions(store: Store) -> list[Version]:
    """Return all versions that were ever published, oldest first."""
    return [entry for entry in Log(store).entries() if isinstance(entry, Version)]


def published_versions(store: Store) -> list[Version]:
    """Return all versions, oldest first.

    Raises:
        RunError: there is none yet.
    """
    known = versions(store)
    if not known:
        raise RunError(f"nothing was published in {store.uri()} yet; run `multicsr run CONFIG` first")
    return known


def find(store: Store, number: int) -> Version:
    """Return version `number`.

    Raises:
        RunError: there is no such version.
    """
    known = versions(store)
    for version in known:
        if version.number == number:
            return version
    have = f"it has 1 to {known[-1].number}" if known else "nothing was published yet"
    raise RunError(f"no version {number} in {store.uri()}; {have}")


class Log:
    """The log of a store: entries by position, counted from 1.

    Other files in the folder are ignored. Deleted entries leave holes, which are skipped.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def positions(self) -> list[int]:
        """Return the positions that hold an entry, in ascending order."""
        matches = (_ENTRY_NAME.fullmatch(name) for name in self.store.names(LOG))
        found: list[int] = []
        for position in (int(match[1]) for match in matches if match):
            if found and position - found[-1] > _MAX_HOLE:
                break
            if position:
                found.append(position)
        return found

    def holes(self) -> list[str]:
        """Return the names of missing entries before and between those that exist."""
        found = self.positions()
        first = max(0, found[0] - 1 - _MAX_HOLE) if found else 0
        return [
            _name(missing)
            for before, after in pairwise([first, *found])
            for missing in range(before + 1, after)
        ]

    def last(self) -> int:
        """Return the position of the last entry; 0 if there is none."""
        return max(self.positions(), default=0)

    def has(self, position: int) -> bool:
        """Return True if there is an entry at this position."""
        return self.store.exists(_name(position))

    def read(self, position: int) -> Entry:
        """Return the entry at a position.

        Raises:
            RunError: it is damaged or missing.
        """
        return self.store.read_json(_name(position), _entry, "; delete it and run the command again")

    def entries(self) -> list[Entry]:
        """Return all entries, oldest first."""
        with ThreadPoolExecutor(max_workers=16) as threads:
            return list(threads.map(self.read, self.positions()))

    def append(self, position: int, entry: Entry) -> bool:
        """Write an entry at a position; return False if another writer's entry is there already."""
        return self.store.create_json(_name(position), entry)

    def latest(self, kind: type[E]) -> E | None:
        """Return the last entry of a kind; None if there is none."""
        backwards = map(self.read, reversed(self.positions()))
        return next((entry for entry in backwards if isinstance(entry, kind)), None)

    def uri(self, position: int) -> str:
        """Return the path or URI of the entry at a position, for messages."""
        return self.store.uri(_name(position))


def _name(position: int) -> str:
    return f"{LOG}/{position:08d}.json"
