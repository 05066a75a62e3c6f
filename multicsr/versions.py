"""What readers see: versions. Each names its rooms, and becomes visible by one conditional put.

`log/` holds entries that are written once and never changed: `log/00000001.json`, `log/00000002.json`, ... An
entry gets the next position, and only one writer can get it. The last version in the log is the current one.
Leases are entries too (`lease.py`), so that a job which lost its lease finds its position taken.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from multicsr.errors import RunError
from multicsr.manifest import Manifest, now, read_manifest
from multicsr.store import Store

LOG = "log"
TOMBSTONES = "tombstones"
"""Folder of the rows that are gone from their source, by the fingerprint of the sentences that lack them."""
ROOMS = ("sentences", "scored", "curated", "model", "evaluation")
"""From left to right."""
_MADE_BY = {"sentences": "ingest", "scored": "generate", "curated": "curate", "model": "train"}


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str = Field(default_factory=lambda: uuid4().hex)
    """Tells two writers of equal entries apart."""
    created: str = Field(default_factory=now)
    """ISO 8601, UTC."""


class LeaseEntry(_Entry):
    """From here on `holder` alone may publish."""

    kind: Literal["lease"] = "lease"
    holder: str


class Version(_Entry):
    """A set of rooms that belong together."""

    kind: Literal["version"] = "version"
    number: int
    """1, 2, 3, ..."""
    run: str
    """`name` of the configuration."""
    command: str
    """What published it."""
    rooms: dict[str, str]
    """Room -> fingerprint; its manifest is `room/fingerprint/manifest.json`."""
    restores: int | None = None
    """The version that a rollback went back to."""


Entry = Annotated[LeaseEntry | Version, Field(discriminator="kind")]
_entry: TypeAdapter[LeaseEntry | Version] = TypeAdapter(Entry)
E = TypeVar("E", LeaseEntry, Version)


@dataclass(frozen=True)
class Rooms:
    """Rooms of one version, or of one in the making: whatever is published meanwhile, these do not change."""

    store: Store
    fingerprints: Mapping[str, str]

    def __contains__(self, room: str) -> bool:
        return room in self.fingerprints

    def folder(self, room: str) -> str:
        """Where the room lies in the store."""
        return f"{room}/{self.fingerprints[room]}"

    def manifest(self, room: str) -> Manifest:
        """Raises RunError when there is no such room yet, or its manifest is damaged or gone."""
        if room not in self.fingerprints:
            what = {"sentences": "sentences", "model": "model"}.get(room, f"{room} rows")
            command = f"multicsr {_MADE_BY.get(room, room)} CONFIG"
            raise RunError(f"no {what} in {self.store.uri()}; run `{command}` first")
        return read_manifest(self.store, room, self.fingerprints[room])


def current(store: Store) -> Rooms:
    """The rooms of the current version; none before the first."""
    version = latest(store)
    return Rooms(store, version.rooms if version else {})


def rooms_of(store: Store, number: int | None) -> Rooms:
    """The rooms of version `number`; None is the current one. Raises RunError when there is none."""
    if number is None:
        return current(store)
    return Rooms(store, find(store, number).rooms)


def latest(store: Store) -> Version | None:
    """The current version."""
    return Log(store).latest(Version)


def versions(store: Store) -> list[Version]:
    """All that were ever published, oldest first."""
    return [entry for entry in Log(store).entries() if isinstance(entry, Version)]


def find(store: Store, number: int) -> Version:
    """Raises RunError when there is no such version."""
    known = versions(store)
    for version in known:
        if version.number == number:
            return version
    have = f"it has 1 to {known[-1].number}" if known else "nothing was published yet"
    raise RunError(f"no version {number} in {store.uri()}; {have}")


class Log:
    """The entries of a store, by position from 1."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def last(self) -> int:
        """Position of the last entry; 0 when there is none."""
        names = self.store.names(LOG)
        return int(names[-1].removeprefix(f"{LOG}/").removesuffix(".json")) if names else 0

    def has(self, position: int) -> bool:
        """Whether there is an entry at this position."""
        return self.store.exists(_name(position))

    def read(self, position: int) -> LeaseEntry | Version:
        """Raises RunError when it is damaged."""
        return self.store.read_json(_name(position), _entry, "")

    def entries(self) -> list[LeaseEntry | Version]:
        """All of them, oldest first."""
        with ThreadPoolExecutor(max_workers=16) as threads:
            return list(threads.map(self.read, range(1, self.last() + 1)))

    def append(self, position: int, entry: LeaseEntry | Version) -> bool:
        """Put an entry at the next position; False when somebody else's is there."""
        return self.store.create_text(_name(position), entry.model_dump_json(indent=1) + "\n")

    def latest(self, kind: type[E]) -> E | None:
        """The last entry of a kind; None when there is none."""
        backwards = map(self.read, range(self.last(), 0, -1))
        return next((entry for entry in backwards if isinstance(entry, kind)), None)


def _name(position: int) -> str:
    return f"{LOG}/{position:08d}.json"
