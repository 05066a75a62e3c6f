"""Files in a directory of this machine, or in one that all machines of a cluster mount."""

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count, takewhile
from pathlib import Path
from typing import Self
from uuid import uuid4

import pyarrow as pa

from multicsr.errors import RunError
from multicsr.messages.error_chain import first_line
from multicsr.storage.backend import FileInfo, UnfinishedUpload

_TEMPORARY = ".tmp"
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.tmp$")
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
"""Errors of link(2) on file systems without hard links, such as FUSE, FAT and SMB."""

_TRIES = 100
"""Maximum number of attempts to make a folder and a file in it before another process removes the folder."""


class Disk:
    """Files under a directory. A file is written under a temporary name, synced, and then renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def uri(self, name: str) -> str:
        """Implement `Files.uri`."""
        return str(self.path(name))

    def path(self, name: str) -> Path:
        """Return the path of the file `name`; the root if it is empty."""
        return self.root / name if name else self.root

    def existing(self, name: str) -> Path:
        """Return the path of a file or folder to read.

        Raises:
            RunError: the name or a symbolic link leads out of the directory.
        """
        path = self.path(name)
        self._require_inside(path.resolve(), path)
        return path

    def writable(self, name: str) -> Path:
        """Return the path of a file or folder to write or delete; if it is itself a link, the link is meant.

        Raises:
            RunError: the name, or a symbolic link above it, leads out of the directory.
        """
        path = self.path(name)
        if name:
            self._require_inside(path.parent.resolve(), path)
            self._require_inside(Path(os.path.normpath(path)), path)
        return path

    def _require_inside(self, place: Path, path: Path) -> None:
        if not any(place.is_relative_to(root) for root in (self.root.resolve(), self.root)):
            raise RunError(
                f"store: {path} is a symbolic link that leads out of the store, or no name in it; put the "
                "file or folder itself there"
            )

    def child(self, folder: str) -> Self:
        """Implement `Files.child`."""
        return type(self)(self.path(folder))

    def exists(self, name: str) -> bool:
        """Implement `Files.exists`."""
        return self.path(name).exists()

    def infos(self, folder: str) -> Iterator[FileInfo]:
        """Implement `Files.infos`; leaves out temporary files and symbolic links."""
        for path in self._walk(folder):
            if path.name.endswith(_TEMPORARY) or path.is_symlink():
                continue
            with suppress(FileNotFoundError):  # deleted since
                facts = path.stat()
                yield FileInfo(path.relative_to(self.root).as_posix(), facts.st_size, facts.st_mtime)

    def read(self, name: str) -> bytes:
        """Implement `Files.read`."""
        with self._reading(name):
            return self.existing(name).read_bytes()

    def open(self, name: str) -> pa.NativeFile:
        """Implement `Files.open`."""
        with self._reading(name):
            return pa.OSFile(str(self.existing(name)))

    def write(self, name: str, data: bytes) -> None:
        """Implement `Files.write` by renaming a synced temporary file."""
        with self._written(name) as temporary:
            _write_synced(temporary, data)
            temporary.replace(self.writable(name))

    def create(self, name: str, data: bytes) -> bool:
        """Implement `Files.create` by a hard link, which fails if the name exists.

        Raises:
            RunError: the file system has no hard links, or the file cannot be written.
        """
        with self._written(name) as temporary:
            _write_synced(temporary, data)
            try:
                os.link(temporary, self.writable(name))
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                raise RunError(
                    f"store: the file system of {self.root} has no hard links, without which two jobs could "
                    "publish at once; use a directory on another one, or s3://bucket/prefix"
                ) from error
        return True

    def upload(self, name: str, source: Path) -> None:
        """Implement `Files.upload`."""
        with self._written(name) as temporary:
            shutil.copyfile(source, temporary)
            _sync(temporary)
            temporary.replace(self.writable(name))

    def download(self, name: str, target: Path) -> None:
        """Implement `Files.download`."""
        with self._reading(name):
            shutil.copyfile(self.existing(name), target)

    def delete(self, names: Sequence[str]) -> None:
        """Implement `Files.delete`; also removes directories that become empty."""
        for name in names:
            path = self.writable(name)
            if path.is_dir():
                continue
            path.unlink(missing_ok=True)
            # As in a bucket, a directory exists only while it holds a file.
            for parent in path.relative_to(self.root).parents[:-1]:
                try:
                    (self.root / parent).rmdir()
                except OSError:
                    break

    def abandoned_uploads(self, older_than_s: float) -> Iterator[UnfinishedUpload]:
        """Implement `Files.abandoned_uploads`: temporary files by their name and age."""
        before_s = time.time() - older_than_s
        for path in self._walk(""):
            with suppress(FileNotFoundError):  # finished since
                if _UNFINISHED.search(path.name) and path.lstat().st_mtime < before_s:
                    yield UnfinishedUpload(path.relative_to(self.root).as_posix())

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Implement `Files.abort_upload`."""
        self.writable(upload.name).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        """Implement `Files.delete_folder`."""
        path = self.writable(folder)
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return  # not there, or deleted by another job at the same time
        except OSError as error:
            raise RunError(f"store: cannot delete {path}: {first_line(error)}") from error

    def _walk(self, folder: str) -> Iterator[Path]:
        """Yield the paths of all files under a folder; a folder that cannot be listed is not an empty one."""

        def fail(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise RunError(f"store: cannot list {error.filename}: {first_line(error)}") from error

        for parent, _, names in os.walk(self.existing(folder), onerror=fail):
            yield from (Path(parent, name) for name in names)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RunError(f"cannot read {self.uri(name)}: {first_line(error)}") from error

    @contextmanager
    def _written(self, name: str) -> Iterator[Path]:
        """Yield a temporary path in the folder of the file; flush the folder's entries after the block.

        The temporary file is deleted in any case.
        """
        path = self.writable(name)
        temporary = path.with_name(f"{path.name}.{uuid4().hex}{_TEMPORARY}")
        try:
            _begin(temporary)
            yield temporary
            with suppress(FileNotFoundError):  # another process deleted the file and its folder since
                _sync(path.parent)
        except OSError as error:
            raise RunError(f"store: cannot write {path}: {first_line(error)}") from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _begin(temporary: Path) -> None:
    """Create an empty temporary file in a new or existing folder.

    `Disk.delete` of another process removes a folder that is empty, also one that was just made here; so the
    folder is made again until the file is in it.
    """
    for attempt in count(1):
        try:
            _make_folder(temporary.parent)
            temporary.touch(exist_ok=False)
            return
        except (FileNotFoundError, FileExistsError):  # mkdir raises either if the folder vanishes meanwhile
            if attempt == _TRIES:
                raise


def _make_folder(path: Path) -> None:
    """Make a folder and its parents, and flush the entry of every new one to the disk."""
    new = list(takewhile(lambda folder: not folder.exists(), (path, *path.parents)))
    path.mkdir(parents=True, exist_ok=True)
    for folder in new:
        _sync(folder.parent)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Flush the bytes of a file, or the entries of a directory, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
