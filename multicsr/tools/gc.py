"""Garbage collection: deletion of what no kept version needs, when nobody can be reading it any more.

Only folders that this project writes are searched. What is needed is computed while the job holds the lease
under which it deletes; what is deleted is announced in the log before the first delete
(`storage/collected.py`). The LLM cache is kept: parts of it are deleted only on request, and only if no kept
version has the same cause, or the sentence.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.config import Config
from multicsr.observability.progress import Progress
from multicsr.stages.evaluate.held_out import rows_trained_on
from multicsr.stages.generate.llm_cache import FOLDER as LLM_CACHE
from multicsr.stages.generate.llm_cache import CacheKey, key_of_folder, remove_rows, span_of
from multicsr.stages.generate.retrieval.prepare import folders_of
from multicsr.stages.ingest.run import identities
from multicsr.storage.backend import FileInfo
from multicsr.storage.collected import collected, is_key, unused_name
from multicsr.storage.lease import HEARTBEATS, PROBE, Lease, held
from multicsr.storage.manifest import Manifest, manifest_name, read_manifest
from multicsr.storage.row_ids import read_ids
from multicsr.storage.store import FileEntry, Store
from multicsr.storage.versions import ARTIFACTS, DEMONSTRATIONS, LeaseEntry, Log, Version

if TYPE_CHECKING:
    from rich.table import Table

_TRAINING, _RECORDS = "training", "records"
_FOLDERS = (*ARTIFACTS, _RECORDS, LLM_CACHE, DEMONSTRATIONS, _TRAINING, HEARTBEATS)
"""Folders in which something may be deleted. Vectors of the mask model, a cache of their own, and tombstones
are kept."""
_DELETE_AT_ONCE = 100
"""Files that are deleted between two checks of the lease."""
_PROBE_S = 3600.0
"""Age in seconds of a probe that no living job can be waiting for, whatever age is asked for."""
_HEARTBEAT_NAME = re.compile(rf"{HEARTBEATS}/(?P<id>[0-9a-f]{{32}})\.json")


@dataclass
class Garbage:
    """Files that can be deleted or were deleted, by folder."""

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


@dataclass
class _Group:
    """Group of files that are either all needed or all not needed."""

    files: int = 0
    bytes: int = 0
    changed_s: float = 0.0

    def add(self, info: FileInfo) -> None:
        """Count a file."""
        self.files += 1
        self.bytes += info.bytes
        self.changed_s = max(self.changed_s, info.changed_s)


@dataclass
class _Garbage:
    """Artifacts and files that are not needed."""

    keys: set[str] = field(default_factory=set)
    """Names to announce before their files are deleted."""
    places: list[str] = field(default_factory=list)
    """Folders that are deleted with all they hold."""
    files: list[FileInfo] = field(default_factory=list)
    """Single files, whose loss would cost a later job some work and no version anything."""
    llm_rows: list[tuple[FileEntry, pa.Array]] = field(default_factory=list)
    """Files of the LLM cache with results for sentences that no kept version has, and the ids to keep."""


def clean_up(
    config: Config,
    keep: int,
    older_than_s: float,
    progress: Progress,
    *,
    delete: bool,
    unused_llm_output: bool = False,
) -> Garbage:
    """Find what no kept version needs and is old enough; delete it if `delete` is set.

    Kept are the newest `keep` versions, and those that were current less than `older_than_s` ago.

    Args:
        config: settings that name the store.
        keep: number of versions to keep.
        older_than_s: seconds since a kept version was current; also the least age of a deleted file that
            belongs to no version.
        progress: reporter.
        delete: False only counts.
        unused_llm_output: include what is in the LLM cache for settings or sentences that no kept version
            has.

    Raises:
        RunError: another job is running or took over, or a manifest is damaged.
    """
    store = Store.of(config)
    with held(store, f"`multicsr gc` of {config.name}", config.lease_s, progress) as lease:
        before_s = time.time() - older_than_s
        scan = _StoreScan(lease.store, keep, before_s)
        found = Garbage(delete, dict.fromkeys(_FOLDERS, 0), dict.fromkeys(_FOLDERS, 0))
        garbage = scan.garbage(found, unused_llm_output)
        if delete:
            _delete(lease, garbage)
        found.uploads = _uploads(lease.store, older_than_s, delete)
    return found


class _StoreScan:
    """Inventory of a store: what the kept versions need, and what else is there."""

    def __init__(self, store: Store, keep: int, before_s: float) -> None:
        self._store, self._before_s = store, before_s
        entries = Log(store).entries()
        self._leases = {entry.id for entry in entries if isinstance(entry, LeaseEntry)}
        self._holder = next(entry.id for entry in reversed(entries) if isinstance(entry, LeaseEntry))
        published = [entry for entry in entries if isinstance(entry, Version)]
        kept = _kept(published, keep, before_s)
        self._published = {place for version in published for place in version.artifacts.items()}
        self._needed = {place for version in kept for place in version.artifacts.items()}
        self._taken = collected(store)
        manifests = [
            read_manifest(store, artifact, key)
            for artifact, key in sorted(self._needed)
            if store.exists(manifest_name(artifact, key))  # not deleted by an earlier gc that kept less
        ]
        self._needed |= {
            (artifact, unused_name(store, name))
            for artifact, name in filter(None, map(_trained_on, manifests))
        }
        self._keys = {key for _, key in self._needed}
        self._cache_keys = {CacheKey.of(each.settings) for each in manifests if each.stage == "generate"}
        self._demonstrations = {
            folder for each in manifests if each.stage == "generate" for folder in folders_of(each.settings)
        }
        self._files = {entry.path for each in manifests for entry in [*each.files, *each.reject_files]}
        self._sentences = {
            entry.path: entry for each in manifests if each.stage == "ingest" for entry in each.files
        }
        self._read = {
            (str(each.settings.get("records")), identity)
            for each in manifests
            for identity in identities(each)
        }

    def garbage(self, found: Garbage, unused_llm_output: bool) -> _Garbage:
        """Return what can be deleted, and count it in `found`."""
        garbage = _Garbage()
        for artifact in (*ARTIFACTS, _TRAINING):
            self._add_artifacts(artifact, garbage, found)
        if unused_llm_output:
            self._add_llm_output(garbage, found)
        for place, group in _groups(self._store, DEMONSTRATIONS, depth=2).items():
            if place not in self._demonstrations and group.changed_s < self._before_s:
                _add(garbage, found, DEMONSTRATIONS, place, group)
        for folder in (_RECORDS, HEARTBEATS):
            files = [info for info in self._store.infos(folder) if self._is_loose(folder, info)]
            garbage.files += files
            found.files[folder] += len(files)
            found.bytes[folder] += sum(info.bytes for info in files)
        return garbage

    def _add_artifacts(self, artifact: str, garbage: _Garbage, found: Garbage) -> None:
        for place, group in _groups(self._store, artifact, depth=2).items():
            key = place.partition("/")[2]
            is_new = (artifact, key) not in self._published and key not in self._taken
            if (artifact, key) in self._needed or (is_new and group.changed_s >= self._before_s):
                continue
            _add(garbage, found, artifact, place, group)
            if key not in self._keys:  # otherwise it was left by a training whose model is needed
                garbage.keys.add(key)

    def _add_llm_output(self, garbage: _Garbage, found: Garbage) -> None:
        for place, group in _groups(self._store, LLM_CACHE, depth=3).items():
            cache_key = CacheKey.of_folder(place)
            is_used = cache_key in self._cache_keys or any(
                cache_key == used.unscored for used in self._cache_keys
            )
            if is_used:
                self._add_llm_rows(place, garbage, found)
            elif group.changed_s < self._before_s:
                _add(garbage, found, LLM_CACHE, place, group)
                garbage.keys.add(key_of_folder(place))

    def _add_llm_rows(self, place: str, garbage: _Garbage, found: Garbage) -> None:
        """Add the files of a used folder with results for sentences that no kept version has.

        Such results may hold what `ingest.redact` has replaced in the sentences since.
        """
        old = {info.name for info in self._store.infos(place) if info.changed_s < self._before_s}
        for entry in self._store.named_entries(place):
            if entry.path not in old or entry.path in self._files or (span := span_of(entry)) is None:
                continue
            ids = self._store.read_table(entry, ["row_id"])["row_id"]
            near = [each for each in self._sentences.values() if each.ids and each.ids.meets(span)]
            kept = ids.filter(pc.is_in(ids, read_ids(self._store, near, span.rows))).combine_chunks()
            if len(kept) < len(ids):
                garbage.llm_rows.append((entry, kept))
                found.files[LLM_CACHE] += 1
                found.bytes[LLM_CACHE] += entry.bytes

    def _is_loose(self, folder: str, info: FileInfo) -> bool:
        """Return whether a file belongs to a cache, or to a job that has ended, and nobody needs it."""
        if info.name in self._files or info.changed_s >= self._before_s:
            return False
        if folder == _RECORDS:
            # records/<settings>/candidates/<identity>-00000.parquet
            _, settings, *_, name = info.name.split("/")
            return (settings, name.partition(".")[0].partition("-")[0]) not in self._read
        if match := _HEARTBEAT_NAME.fullmatch(info.name):
            id_ = match["id"]
            return id_ != self._holder and (id_ in self._leases or _is_over(info))
        return info.name.startswith(f"{HEARTBEATS}/{PROBE}") and _is_over(info)


def _kept(published: Sequence[Version], keep: int, before_s: float) -> list[Version]:
    """Return the newest `keep` versions, and those that ceased to be current at `before_s` or later."""
    recent = [one for one, successor in pairwise(published) if _seconds(successor) >= before_s]
    return [*recent, *published[-keep:]]


def _trained_on(manifest: Manifest) -> tuple[str, str] | None:
    """Return artifact and cause of the rows that a model was trained on; None for other manifests."""
    if manifest.stage != "train":
        return None
    return rows_trained_on(manifest), str(manifest.settings["input"]).partition(":")[0]


def _groups(store: Store, folder: str, depth: int) -> dict[str, _Group]:
    """Return the totals of the files below a folder, by the folder of `depth` names that they are in."""
    groups: dict[str, _Group] = {}
    for info in store.infos(folder):
        parts = info.name.split("/")
        if len(parts) > depth and all(map(is_key, parts[:depth])):
            groups.setdefault("/".join(parts[:depth]), _Group()).add(info)
    return groups


def _add(garbage: _Garbage, found: Garbage, folder: str, place: str, group: _Group) -> None:
    garbage.places.append(place)
    found.files[folder] += group.files
    found.bytes[folder] += group.bytes


def _delete(lease: Lease, garbage: _Garbage) -> None:
    """Announce the artifacts in the log, then delete them, the single files and rows of the LLM cache.

    Raises:
        RunError: another job took over.
    """
    lease.collect(sorted(garbage.keys))
    _delete_files(lease.store, [info.name for info in garbage.files])
    for place in garbage.places:
        _delete_files(lease.store, lease.store.names(place))
    for entry, kept in garbage.llm_rows:
        remove_rows(lease.store, entry, kept)


def _delete_files(store: Store, names: Sequence[str]) -> None:
    # Manifests and marks of done shards certify complete files, so they are deleted before the files.
    ordered = sorted(
        names, key=lambda name: (not name.endswith("/manifest.json"), not name.endswith(".json"))
    )
    for start in range(0, len(ordered), _DELETE_AT_ONCE):
        store.check_lease()
        store.files.delete(ordered[start : start + _DELETE_AT_ONCE])


def _is_over(info: FileInfo) -> bool:
    """Return whether the job of a file started so long ago that it has ended or has the lease."""
    return info.changed_s < time.time() - _PROBE_S


def _seconds(version: Version) -> float:
    return datetime.fromisoformat(version.created).timestamp()


def _uploads(store: Store, older_than_s: float, delete: bool) -> int:
    abandoned = list(store.files.abandoned_uploads(older_than_s))
    for upload in abandoned if delete else ():
        store.check_lease()
        store.files.abort_upload(upload)
    return len(abandoned)
