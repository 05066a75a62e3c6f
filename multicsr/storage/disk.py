"""A directory of this machine, or one that all machines of a cluster mount."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from uuid import uuid4

import pyarrow as pa

from multicsr.errors import RunError
from multicsr.storage.files import FileInfo, first_line

_TEMPORARY = ".tmp"


class Disk:
    """Files under a directory. They are written beside their place, synced, and get their name last."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def uri(self, name: str) -> str:
        return str(self.path(name))

    def path(self, name: str) -> Path:
        return self.root / name if name else self.root

    def child(self, folder: str) -> Self:
        return type(self)(self.path(folder))

    def exists(self, name: str) -> bool:
        return self.path(name).exists()

    def infos(self, folder: str) -> Iterator[FileInfo]:
        for parent, _, names in os.walk(self.path(folder)):
            for name in names:
                path = Path(parent, name)
                if name.endswith(_TEMPORARY) or path.is_symlink():
                    continue
                with suppress(FileNotFoundError):  # deleted since
                    facts = path.stat()
                    yield FileInfo(path.relative_to(self.root).as_posix(), facts.st_size, facts.st_mtime)

    def read(self, name: str) -> bytes:
        with self._reading(name):
            return self.path(name).read_bytes()

    def open(self, name: str) -> pa.NativeFile:
        with self._reading(name):
            return pa.OSFile(str(self.path(name)))

    def write(self, name: str, data: bytes) -> None:
        with self._written(name) as temporary:
            _write_synced(temporary, data)
            temporary.replace(self.path(name))

    def create(self, name: str, data: bytes) -> bool:
        with self._written(name) as temporary:
            _write_synced(temporary, data)
            try:
                os.link(temporary, self.path(name))
            except FileExistsError:
                return False
            _sync(self.path(name).parent)
        return True

    def upload(self, name: str, source: Path) -> None:
        with self._written(name) as temporary:
            shutil.copyfile(source, temporary)
            _sync(temporary)
            temporary.replace(self.path(name))

    def download(self, name: str, target: Path) -> None:
        with self._reading(name):
            shutil.copyfile(self.path(name), target)

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            path = self.path(name)
            if path.is_dir():
                continue
            path.unlink(missing_ok=True)
            # A directory is nothing of its own: it goes with its last file.
            for parent in path.relative_to(self.root).parents[:-1]:
                try:
                    (self.root / parent).rmdir()
                except OSError:
                    break

    def delete_folder(self, folder: str) -> None:
        shutil.rmtree(self.path(folder), ignore_errors=True)

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
        """A temporary name beside the file's, gone at the end whatever happens."""
        path = self.path(name)
        temporary = path.with_name(f"{path.name}.{uuid4().hex}{_TEMPORARY}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
        except OSError as error:
            raise RunError(f"store: cannot write {path}: {first_line(error)}") from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """A file's bytes, or a directory's names, reach the disk before this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
