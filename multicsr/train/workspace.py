"""A training's folder, `training/<key>` of the store, as a directory that a worker can write to.

Where the store is a directory that is the folder itself. Otherwise every worker has a directory of its own; a
new one begins with the last checkpoint out of the bucket, and worker 0 mirrors what it writes to it.
"""

import hashlib
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from multicsr.errors import MulticsrError
from multicsr.store import Store

_MIRROR_EVERY_S = 2.0
_SCRATCH = Path(tempfile.gettempdir(), "multicsr")


class Workspace:
    """The folder, for one worker."""

    def __init__(self, store: Store, key: str, rank: int) -> None:
        self._store, self._rank = store, rank
        self._folder, self._events = f"training/{key}", f"tensorboard/{key}"
        self._is_own = store.directory is not None
        root = store.directory or _SCRATCH / f"worker-{rank}"
        self.path = root / self._folder
        self.events = root / self._events
        """Of TensorBoard."""

    def fetch(self, *names: str) -> None:
        """Begin with what an earlier worker kept of these files."""
        if self._is_own:
            return
        for folder in (self.path, self.events):
            shutil.rmtree(folder, ignore_errors=True)
        self.path.mkdir(parents=True)
        for name in names:
            if self._store.exists(f"{self._folder}/{name}"):
                self._store.download_file(f"{self._folder}/{name}", self.path / name)

    def keep(self, *names: str) -> None:
        """Put files where a later worker finds them."""
        if self._is_own or self._rank:
            return
        for name in names:
            self._store.upload_file(f"{self._folder}/{name}", self.path / name)

    @contextmanager
    def mirrored(self, *names: str) -> Iterator[None]:
        """While the block runs, the store gets these files and the events when they change."""
        if self._is_own or self._rank:
            yield
            return
        mirror = _Mirror(self._store)
        for name in names:
            mirror.add(self.path / name, f"{self._folder}/{name}")
        mirror.add(self.events, self._events)
        with mirror.running():
            yield


def local_directory(store: Store, folder: str) -> Path:
    """A folder of the store that never changes, as a directory; workers of a machine share it."""
    if store.directory is not None:
        return store.directory / folder
    name = hashlib.blake2b(store.uri(folder).encode(), digest_size=8).hexdigest()
    path = _SCRATCH / "copies" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as part:
            store.download(folder, Path(part, name))
            with suppress(OSError):  # another worker was faster
                Path(part, name).rename(path)
    return path


class _Mirror:
    """Uploads files when they changed, every few seconds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pairs: list[tuple[Path, str]] = []
        self._seen: dict[Path, tuple[int, int]] = {}

    def add(self, path: Path, name: str) -> None:
        """A file, or a directory with all its files."""
        self._pairs.append((path, name))

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()

        def copy_on() -> None:
            while not stop.wait(_MIRROR_EVERY_S):
                try:
                    self._copy()
                except (MulticsrError, OSError):
                    continue  # the copy at the end tells

        thread = threading.Thread(target=copy_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
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
            self._store.upload_file(name, path)
            self._seen[path] = state
