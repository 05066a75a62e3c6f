"""The folder of a training, `training/<key>` of the store, as a local directory for a worker.

If the store is a directory, this is the folder itself. If the store is a bucket, every worker has its own
directory: a new worker begins with the last checkpoints from the bucket, and worker 0 uploads what it writes.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from multicsr.errors import MulticsrError
from multicsr.hashing import checksum
from multicsr.periodic import run_periodically
from multicsr.storage.store import Store

_MIRROR_EVERY_S = 2.0
"""Seconds between two uploads of changed files."""
FileState = tuple[int, int]
"""Time of the last change (ns) and size (bytes) of a file."""


class Workspace:
    """The folder of a training, for one worker."""

    def __init__(self, store: Store, key: str, rank: int) -> None:
        """Set up the paths.

        Args:
            store: the store.
            key: fingerprint of the model that the training makes.
            rank: number of the worker; only worker 0 writes to a bucket.
        """
        self._store = store
        self._folder, self._events = f"training/{key}", f"tensorboard/{key}"
        self._is_copy = store.directory is None
        self._writes = self._is_copy and rank == 0
        self._root = store.directory or _directory(store, rank)
        self.path = store.local_folder(self._folder) or self._root / self._folder
        self.events = store.local_folder(self._events) or self._root / self._events
        """Folder of this run's TensorBoard files."""
        self._putting = threading.Lock()
        self._kept: dict[str, FileState] = {}

    @property
    def uri(self) -> str:
        """Return the URI of the folder in the store."""
        return self._store.uri(self._folder)

    def fetch(self, *patterns: str) -> None:
        """Create the directory, and copy the files into it that an earlier worker kept in the bucket.

        A worker's own directory is emptied first.

        Args:
            patterns: patterns of the names of these files (`*` stands for any text).
        """
        self.clear()
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._is_copy:
            return
        for place in self._store.names(self._folder):
            name = place.removeprefix(f"{self._folder}/")
            # `*` of `fnmatch` also matches "/", so files in subfolders are left out explicitly.
            if "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns):
                self._store.download_file(place, self.path / name)
                self._kept[name] = _state(self.path / name)

    def keep(self, *names: str) -> None:
        """Upload files for later workers, and delete the files of earlier calls that are not named now."""
        if not self._writes:
            return
        for name in names:
            if self._kept.get(name) != (state := _state(self.path / name)):
                self._put(self.path / name, f"{self._folder}/{name}")
            self._kept[name] = state
        for name in self._kept.keys() - set(names):
            self._store.delete(f"{self._folder}/{name}")
            del self._kept[name]

    @contextmanager
    def mirrored(self, *names: str) -> Iterator[None]:
        """Upload these files and the TensorBoard files to the bucket when they change, while the block runs.

        Args:
            names: names of files in the directory. They need not exist yet.
        """
        if not self._writes:
            yield
            return
        mirror = _Mirror(self._put)
        for name in names:
            mirror.add(self.path / name, f"{self._folder}/{name}")
        mirror.add(self.events, self._events)
        with mirror.running():
            yield

    def clear(self) -> None:
        """Delete the worker's own directory, if it has one."""
        if self._is_copy:
            shutil.rmtree(self._root, ignore_errors=True)

    def _put(self, path: Path, name: str) -> None:
        """Upload a file."""
        # Uploads run one at a time: an older state of a file must not arrive after a newer one.
        with self._putting:
            self._store.upload_file(name, path)


def _state(path: Path) -> FileState:
    """Return the present state of a file."""
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size


def _directory(store: Store, rank: int) -> Path:
    """Return a worker's local directory.

    A worker that replaces a killed one gets the same directory, so that old directories do not accumulate.
    """
    place = checksum(store.uri().encode())[:8]
    return Path(tempfile.gettempdir(), f"multicsr-{os.getuid()}", f"{place}-worker-{rank}")


class _Mirror:
    """A periodic upload of changed files."""

    def __init__(self, put: Callable[[Path, str], None]) -> None:
        """Set up the upload; `put` uploads one file to a name in the store."""
        self._put = put
        self._pairs: list[tuple[Path, str]] = []
        self._mirrored: dict[Path, FileState] = {}

    def add(self, path: Path, name: str) -> None:
        """Add a file, or a directory with all its files, to be uploaded as `name`."""
        self._pairs.append((path, name))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Upload changed files every `_MIRROR_EVERY_S` while the block runs, and once more when it ends.

        When the block raises an exception, errors of the last upload are suppressed, so that they do not
        hide it.
        """

        def copy() -> None:
            """Upload changed files and suppress errors."""
            with suppress(MulticsrError, OSError):  # An error that lasts is raised by the upload at the end.
                self._copy()

        with ExitStack() as on_error:
            on_error.callback(copy)
            with run_periodically(copy, _MIRROR_EVERY_S):
                yield
            on_error.pop_all()
        self._copy()

    def _copy(self) -> None:
        """Upload all files that changed since the last upload."""
        for path, name in self._pairs:
            if path.is_dir():
                for file in sorted(path.iterdir()):
                    self._copy_file(file, f"{name}/{file.name}")
            elif path.exists():
                self._copy_file(path, name)

    def _copy_file(self, path: Path, name: str) -> None:
        """Upload a file if it changed since the last upload."""
        if self._mirrored.get(path) != (state := _state(path)):
            self._put(path, name)
            self._mirrored[path] = state
