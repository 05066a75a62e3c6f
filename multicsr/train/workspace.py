"""A training's folder, `training/<key>` of the store, as a directory that a worker can write to.

Where the store is a directory that is the folder itself. Otherwise every worker has a directory of its own; a
new one begins with the last checkpoint out of the bucket, and worker 0 mirrors what it writes to it.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from multicsr.errors import MulticsrError
from multicsr.repeat import repeated
from multicsr.store import Store, checksum

_MIRROR_EVERY_S = 2.0


class Workspace:
    """The folder, for one worker."""

    def __init__(self, store: Store, key: str, rank: int) -> None:
        self._store = store
        self._folder, self._events = f"training/{key}", f"tensorboard/{key}"
        self._is_copy = store.directory is None
        self._writes = self._is_copy and rank == 0
        self._root = store.directory or _directory(store, rank)
        self.path = self._root / self._folder
        self.events = self._root / self._events
        """Of TensorBoard."""
        self._putting = threading.Lock()

    @property
    def uri(self) -> str:
        """Of the folder in the store."""
        return self._store.uri(self._folder)

    def fetch(self, *names: str) -> None:
        """Begin with what an earlier worker kept of these files."""
        self.clear()
        self.path.mkdir(parents=True, exist_ok=True)
        for name in names:
            if self._is_copy and self._store.exists(f"{self._folder}/{name}"):
                self._store.download_file(f"{self._folder}/{name}", self.path / name)

    def keep(self, *names: str) -> None:
        """Put files where a later worker finds them."""
        for name in names if self._writes else ():
            self._put(self.path / name, f"{self._folder}/{name}")

    @contextmanager
    def mirrored(self, *names: str) -> Iterator[None]:
        """While the block runs, the store gets these files and the events when they change."""
        if not self._writes:
            yield
            return
        mirror = _Mirror(self._put)
        for name in names:
            mirror.add(self.path / name, f"{self._folder}/{name}")
        mirror.add(self.events, self._events)
        with mirror.running():
            yield

    def directory(self, folder: str) -> Path:
        """A folder of the store as a directory to read."""
        path = self._root / folder
        if self._is_copy:
            self._store.download(folder, path)
        return path

    def clear(self) -> None:
        """Delete the worker's own directory, if it has one."""
        if self._is_copy:
            shutil.rmtree(self._root, ignore_errors=True)

    def _put(self, path: Path, name: str) -> None:
        # One at a time: an older state of a file must not arrive after a newer one.
        with self._putting:
            self._store.upload_file(name, path)


def _directory(store: Store, rank: int) -> Path:
    """The same for the worker that replaces a killed one, so that nothing piles up."""
    place = checksum(store.uri().encode())[:8]
    return Path(tempfile.gettempdir(), f"multicsr-{os.getuid()}", f"{place}-worker-{rank}")


class _Mirror:
    """Uploads files when they changed, every few seconds."""

    def __init__(self, put: Callable[[Path, str], None]) -> None:
        self._put = put
        self._pairs: list[tuple[Path, str]] = []
        self._seen: dict[Path, tuple[int, int]] = {}

    def add(self, path: Path, name: str) -> None:
        """A file, or a directory with all its files."""
        self._pairs.append((path, name))

    @contextmanager
    def running(self) -> Iterator[None]:
        def copy() -> None:
            with suppress(MulticsrError, OSError):  # the copy at the end tells
                self._copy()

        try:
            with repeated(copy, _MIRROR_EVERY_S):
                yield
        finally:
            self._copy()

    def _copy(self) -> None:
        for path, name in self._pairs:
            if path.is_dir():
                for file in sorted(path.iterdir()):
                    self._copy_file(file, f"{name}/{file.name}")
            elif path.exists():
                self._copy_file(path, name)

    def _copy_file(self, path: Path, name: str) -> None:
        facts = path.stat()
        state = (facts.st_mtime_ns, facts.st_size)
        if self._seen.get(path) != state:
            self._put(path, name)
            self._seen[path] = state
