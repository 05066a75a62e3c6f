"""Garbage collection: what no kept version needs and nobody has touched for a while.

Only folders that this project writes are looked at. The job holds the lease, so nothing is being made
meanwhile; readers of a version that is about to go have as long as the safety age.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from multicsr.config import Config
from multicsr.generate.ledger import Cause
from multicsr.ingest.run import identities
from multicsr.lease import held
from multicsr.manifest import manifest_name, read_manifest
from multicsr.progress import Progress
from multicsr.storage.bucket import Bucket
from multicsr.storage.files import FileInfo
from multicsr.store import Store
from multicsr.versions import ROOMS, Version, versions

if TYPE_CHECKING:
    from rich.table import Table

_FOLDERS = (*ROOMS, "records", "ledger", "training", "leases")
"""Where there can be something to delete. P's vectors are kept, a cache of their own, and tombstones."""


@dataclass
class Found:
    """What can go, by folder."""

    is_deleted: bool
    files: dict[str, int]
    bytes: dict[str, int]
    uploads: int = 0

    def __rich__(self) -> "Table":
        from rich.table import Table

        title = "deleted" if self.is_deleted else "not needed (nothing is deleted without --delete)"
        table = Table(title=title, title_justify="left")
        for name in ("folder", "files", "MiB"):
            table.add_column(name, justify="left" if name == "folder" else "right")
        for folder, number in self.files.items():
            table.add_row(folder, f"{number:,}", f"{self.bytes[folder] / 2**20:,.1f}")
        table.add_row("unfinished uploads", f"{self.uploads:,}", "")
        return table


def clean_up(config: Config, keep: int, older_than_s: float, progress: Progress, *, delete: bool) -> Found:
    """Find what the newest `keep` versions do not need and is older; delete it if asked to.

    Raises:
        RunError: another job is at work, or a manifest is damaged.
    """
    store = Store.of(config)
    with held(store, f"`multicsr gc` of {config.name}", config.lease_s, progress):
        needed = _Needed(store, versions(store)[-keep:])
        before_s = time.time() - older_than_s
        found = Found(delete, dict.fromkeys(_FOLDERS, 0), dict.fromkeys(_FOLDERS, 0))
        for folder in _FOLDERS:
            orphans = [info for info in needed.others(folder) if info.changed_s < before_s]
            found.files[folder] = len(orphans)
            found.bytes[folder] = sum(info.bytes for info in orphans)
            if delete:
                # The manifest goes first, so that a room is never complete with files missing.
                names = sorted((info.name for info in orphans), key=lambda name: "manifest.json" not in name)
                store.files.delete(names)
        found.uploads = _uploads(store, older_than_s, delete)
    return found


class _Needed:
    """What the kept versions stand on."""

    def __init__(self, store: Store, kept: list[Version]) -> None:
        self._store = store
        manifests = [
            read_manifest(store, room, key)
            for room, key in {place for version in kept for place in version.rooms.items()}
            if store.exists(manifest_name(room, key))  # not deleted by an earlier clean-up that kept less
        ]
        self._files = {entry.path for each in manifests for entry in [*each.files, *each.reject_files]}
        self._rooms = {f"{room}/{key}" for version in kept for room, key in version.rooms.items()}
        self._causes = {Cause.of(each.settings).folder for each in manifests if each.stage == "generate"}
        self._read = {identity for each in manifests for identity in identities(each)}
        self._newest_s = max((_seconds(version) for version in kept), default=0.0)

    def others(self, folder: str) -> Iterator[FileInfo]:
        """Files of a folder that no kept version needs."""
        return (info for info in self._store.infos(folder) if not self._is_needed(info, folder))

    def _is_needed(self, info: FileInfo, folder: str) -> bool:
        place, _, name = info.name.rpartition("/")
        if folder == "ledger":
            # What the versions of its cause were made from stands in their scored rooms, too.
            return place in self._causes and info.changed_s > self._newest_s
        if folder == "records":
            # records/<settings>/candidates/<identity>-00000.parquet
            return name.partition(".")[0].partition("-")[0] in self._read
        return info.name in self._files or "/".join(info.name.split("/")[:2]) in self._rooms


def _seconds(version: Version) -> float:
    return datetime.fromisoformat(version.created).timestamp()


def _uploads(store: Store, older_than_s: float, delete: bool) -> int:
    if not isinstance(store.files, Bucket):
        return 0
    abandoned = list(store.files.abandoned_uploads(older_than_s))
    if delete:
        for _, abort in abandoned:
            abort()
    return len(abandoned)
