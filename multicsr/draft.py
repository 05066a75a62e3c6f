"""The version that a job is making: rooms of the current one, replaced one by one, published together."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.lease import Lease, held
from multicsr.manifest import Manifest
from multicsr.progress import Progress
from multicsr.store import Store
from multicsr.train.log import ENCODER
from multicsr.versions import Rooms, Version, find, latest


class Draft:
    """Rooms as they will be. Nothing of it is visible before `publish`."""

    def __init__(self, store: Store, lease: Lease, run: str, command: str) -> None:
        self.store = store
        self._lease, self._run, self._command = lease, run, command
        self._base = latest(store)
        self._rooms = dict(self._base.rooms) if self._base else {}

    @property
    def rooms(self) -> Rooms:
        """As they are now."""
        return Rooms(self.store, dict(self._rooms))

    @property
    def number(self) -> int | None:
        """Of the current version."""
        return self._base.number if self._base else None

    @property
    def replaces(self) -> bool:
        """Whether a reader of the current version would lose or see changed what is there."""
        return self._base is not None and any(
            self._rooms.get(room) != fingerprint for room, fingerprint in self._base.rooms.items()
        )

    def add(self, room: str, manifest: Manifest) -> Manifest:
        """Put a finished room in. Raises RunError when another job took over the store."""
        self._lease.check()
        if room == "model" and self._rooms.get(room) != manifest.fingerprint:
            self._rooms.pop("evaluation", None)  # the figures are those of another model
        self._rooms[room] = manifest.fingerprint
        return manifest

    def keep(self, *rooms: str) -> None:
        """Leave rooms as they are in the current version."""
        for room in rooms:
            self._rooms.pop(room, None)
            if self._base is not None and room in self._base.rooms:
                self._rooms[room] = self._base.rooms[room]

    def publish(self, restores: int | None = None) -> Version | None:
        """Make the draft the current version; None when it is that already."""
        if self._base is not None and self._base.rooms == self._rooms:
            return None
        version = Version(
            number=self._base.number + 1 if self._base else 1,
            run=self._run,
            command=self._command,
            rooms=dict(self._rooms),
            restores=restores,
        )
        self._lease.publish(version)
        self._base = version
        _link_encoder(self.rooms)
        return version

    def restore(self, version: Version) -> Version | None:
        """Publish the rooms of an earlier version again."""
        self._rooms = dict(version.rooms)
        return self.publish(restores=version.number)


def roll_back(config: Config, number: int | None, progress: Progress) -> Version:
    """Make an earlier version the current one again, under a new number.

    Args:
        number: the version; None: the one before the current.

    Raises:
        RunError: there is no such version, it is the current one, or its files were deleted.
    """
    with drafting(config, "rollback", progress) as draft:
        now = latest(draft.store)
        if now is None:
            raise RunError(f"nothing was published in {draft.store.uri()} yet")
        wanted = find(draft.store, _before(now) if number is None else number)
        for room in wanted.rooms:
            Rooms(draft.store, wanted.rooms).manifest(room)  # raises when gc has deleted it
        restored = draft.restore(wanted)
        if restored is None:
            raise RunError(f"the current version {now.number} is what version {wanted.number} was already")
        return restored


def _before(version: Version) -> int:
    """What a rollback of this version goes back to; of a rollback, what lies before its goal."""
    return (version.restores or version.number) - 1


def fetch_encoder(rooms: Rooms, target: Path) -> None:
    """Copy a version's encoder to a local directory.

    Raises:
        RunError: there is none, or something is at `target` already.
    """
    rooms.manifest("model")
    if target.exists():
        raise RunError(f"{target} exists already; give a directory that does not")
    target.mkdir(parents=True)
    rooms.store.download(f"{rooms.folder('model')}/{ENCODER}", target)


def _link_encoder(rooms: Rooms) -> None:
    """In a directory, `encoder` leads to the current version's: a convenience, not what readers go by."""
    root = rooms.store.directory
    if root is None or "model" not in rooms:
        return
    new = root / f"{ENCODER}.{uuid4().hex}"
    new.symlink_to(Path(rooms.folder("model"), ENCODER))
    new.replace(root / ENCODER)


@contextmanager
def drafting(config: Config, command: str, progress: Progress) -> Iterator[Draft]:
    """A draft of the next version of the configuration's store, and the lease on it while the block runs."""
    store = Store.of(config)
    with held(store, f"`multicsr {command}` of {config.name}", config.lease_s, progress) as lease:
        yield Draft(store, lease, config.name, command)
