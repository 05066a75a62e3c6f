"""The one door to storage: a tree of small files under a URI, each written whole or not at all.

Built on `pyarrow.fs`. Every name is relative to the store's root, so a store can be moved.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from pydantic import BaseModel, ConfigDict

from multicsr.errors import ConfigError, RunError

SCHEMA_VERSION = "1"
"""Written into every Parquet file; raised when the meaning of a column changes."""
ROW_GROUP_ROWS = 8192
_TEMPORARY = ".tmp"
_REPEATED = ("language", "source", "prompts", "llm", "reason", "entailment_reply", "contradiction_reply")
"""Columns with few distinct values; the others would only pay for a dictionary."""


class FileEntry(BaseModel):
    """One Parquet file, as its manifest knows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    rows: int
    bytes: int
    checksum: str


class Store:
    """A directory tree behind a pyarrow filesystem. Pickles, so that actors can carry it."""

    def __init__(self, filesystem: fs.FileSystem, root: str) -> None:
        self._filesystem = filesystem
        self._root = root

    @classmethod
    def open(cls, uri: str) -> Self:
        """Open a plain path or a file:// URI; nothing is created before the first write.

        Raises:
            ConfigError: another scheme.
        """
        scheme, separator, rest = uri.partition("://")
        if not separator:
            return cls(fs.LocalFileSystem(), str(Path(uri).expanduser().absolute()))
        if scheme != "file" or not rest.startswith("/"):
            raise ConfigError(f"store: cannot use {uri}; give a directory or a file:///absolute/path")
        return cls(fs.LocalFileSystem(), rest.rstrip("/"))

    def child(self, name: str) -> Self:
        """The store whose root is the folder `name` of this one."""
        return type(self)(self._filesystem, self._path(name))

    def uri(self, name: str = "") -> str:
        """Where `name` is, for messages and for the command line."""
        return self._path(name)

    def local(self, name: str = "") -> Path:
        """`name` as a local path, for libraries that can only write there."""
        return Path(self._path(name))

    def exists(self, name: str) -> bool:
        return bool(self._filesystem.get_file_info(self._path(name)).type != fs.FileType.NotFound)

    def list(self, prefix: str) -> list[str]:
        """Names of all complete files under the folder `prefix`, sorted."""
        selector = fs.FileSelector(self._path(prefix), allow_not_found=True, recursive=True)
        return sorted(
            info.path.removeprefix(self._root + "/")
            for info in self._filesystem.get_file_info(selector)
            if info.type == fs.FileType.File and not info.path.endswith(_TEMPORARY)
        )

    def delete(self, name: str) -> None:
        """Delete a file or a whole folder; neither need exist."""
        info = self._filesystem.get_file_info(self._path(name))
        if info.type == fs.FileType.Directory:
            self._filesystem.delete_dir(self._path(name))
        elif info.type == fs.FileType.File:
            self._filesystem.delete_file(self._path(name))

    def read_bytes(self, name: str) -> bytes:
        """Raises RunError when it cannot be read."""
        try:
            with self._filesystem.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except OSError as error:
            raise RunError(f"cannot read {self.uri(name)}: {_first_line(error)}") from error

    def read_text(self, name: str) -> str:
        """Raises RunError when it cannot be read."""
        return self.read_bytes(name).decode("utf-8")

    def write_text(self, name: str, text: str) -> None:
        """Replace `name` in one step. Raises RunError when the disk is full or read-only."""
        self._write(name, text.encode("utf-8"))

    def read_table(self, name: str, columns: Sequence[str] | None = None, filters: object = None) -> pa.Table:
        """Read a Parquet file; `filters` as pyarrow takes them. Raises RunError when it cannot."""
        try:
            return pq.read_table(
                self._path(name),
                columns=None if columns is None else list(columns),
                filters=filters,
                filesystem=self._filesystem,
                partitioning=None,
            ).replace_schema_metadata(None)
        except (OSError, pa.ArrowException) as error:
            raise RunError(f"cannot read {self.uri(name)}: {_first_line(error)}") from error

    def write_table(self, name: str, table: pa.Table, metadata: Mapping[str, str] | None = None) -> FileEntry:
        """Write a Parquet file in one step. Raises RunError when the disk is full or read-only."""
        sink = pa.BufferOutputStream()
        labels = {"multicsr.schema": SCHEMA_VERSION, **(metadata or {})}
        pq.write_table(
            table.replace_schema_metadata(labels),
            sink,
            row_group_size=ROW_GROUP_ROWS,
            compression="zstd",
            use_dictionary=[column for column in _REPEATED if column in table.column_names],
        )
        data = sink.getvalue().to_pybytes()
        self._write(name, data)
        return FileEntry(path=name, rows=table.num_rows, bytes=len(data), checksum=checksum(data))

    def _write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        temporary = f"{path}.{uuid4().hex}{_TEMPORARY}"
        try:
            self._filesystem.create_dir(path.rpartition("/")[0])
            with self._filesystem.open_output_stream(temporary) as stream:
                stream.write(data)
            self._filesystem.move(temporary, path)
        except OSError as error:
            if self._filesystem.get_file_info(temporary).type == fs.FileType.File:
                self._filesystem.delete_file(temporary)
            raise RunError(f"store: cannot write {path}: {_first_line(error)}") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def checksum(data: bytes) -> str:
    """BLAKE2b-128 of a file's bytes, hex."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
