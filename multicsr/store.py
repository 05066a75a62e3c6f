"""The one door to storage: a tree of small files under a URI, each written whole or not at all.

Every name is relative to the store's root, so a store can be moved. What differs between a directory and a
bucket is in `multicsr/storage`.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from multicsr.config import Config, S3Config
from multicsr.errors import ConfigError, RunError
from multicsr.storage.disk import Disk
from multicsr.storage.files import FileInfo, Files, first_line

SCHEMA_VERSION = "1"
"""Written into every Parquet file; raised when the meaning of a column changes."""
ROW_GROUP_ROWS = 8192
_REPEATED = ("language", "source", "prompts", "llm", "reason", "entailment_reply", "contradiction_reply")
"""Columns with few distinct values; the others would only pay for a dictionary."""
T = TypeVar("T")


class Span(NamedTuple):
    """Row ids from `first` to `last`, both included."""

    first: str
    last: str

    def meets(self, other: "Span") -> bool:
        return self.first <= other.last and other.first <= self.last

    @property
    def rows(self) -> pc.Expression:
        """As a filter."""
        return (pc.field("row_id") >= self.first) & (pc.field("row_id") <= self.last)


class FileEntry(BaseModel):
    """One Parquet file, as its manifest knows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    rows: int
    bytes: int
    checksum: str
    ids: Span | None = None
    """From the least to the greatest row id; None: there is none."""


class Store:
    """Files under a URI. Pickles, so that actors can carry it.

    Methods raise RunError when the place cannot be reached, is full or read-only, or a file is missing.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    @classmethod
    def open(cls, uri: str, s3: S3Config | None = None) -> Self:
        """Open a plain path, a file:// or an s3:// URI; nothing is created before the first write.

        Raises:
            ConfigError: another scheme.
        """
        scheme, separator, rest = uri.partition("://")
        if not separator:
            return cls(Disk(Path(uri).expanduser().absolute()))
        if scheme == "file" and rest.startswith("/"):
            return cls(Disk(Path(rest)))
        if scheme == "s3" and urlsplit(uri).netloc:
            from multicsr.storage.bucket import Bucket

            return cls(Bucket(urlsplit(uri).netloc, urlsplit(uri).path, s3 or S3Config()))
        raise ConfigError(
            f"store: cannot use {uri}; give a directory, file:///absolute/path or s3://bucket/prefix"
        )

    @classmethod
    def of(cls, config: Config) -> Self:
        """The store of a run."""
        return cls.open(config.store, config.s3)

    @classmethod
    def holding(cls, uri: str, s3: S3Config | None = None) -> tuple[Self, str]:
        """The store that holds a file in a bucket, and the file's name in it."""
        folder, _, name = uri.rpartition("/")
        return cls.open(folder, s3), name

    def child(self, name: str) -> Self:
        """The store whose root is the folder `name` of this one."""
        return type(self)(self._files.child(name))

    def uri(self, name: str = "") -> str:
        """Where `name` is, for messages and for the command line."""
        return self._files.uri(name)

    @property
    def directory(self) -> Path | None:
        """The root, if it is a directory here."""
        return self._files.root if isinstance(self._files, Disk) else None

    @property
    def files(self) -> Files:
        """What the store stands on."""
        return self._files

    def exists(self, name: str) -> bool:
        return self._files.exists(name)

    def names(self, folder: str) -> list[str]:
        """Names of all complete files under a folder, sorted."""
        return sorted(info.name for info in self._files.infos(folder))

    def infos(self, folder: str) -> Iterator[FileInfo]:
        """The same with sizes and times, in no order."""
        return self._files.infos(folder)

    def delete(self, folder: str) -> None:
        """Delete a file or a whole folder; neither need exist."""
        self._files.delete([folder])
        self._files.delete_folder(folder)

    def read_bytes(self, name: str) -> bytes:
        with self._reading(name):
            return self._files.read(name)

    def read_text(self, name: str) -> str:
        return self.read_bytes(name).decode("utf-8")

    def read_json(self, name: str, kind: TypeAdapter[T], remedy: str) -> T:
        """A file of JSON; RunError ends with the remedy when it is damaged."""
        try:
            return kind.validate_json(self.read_bytes(name))
        except ValidationError as error:
            raise RunError(f"{self.uri(name)} is damaged{remedy}") from error

    def write_text(self, name: str, text: str) -> None:
        """Replace `name` in one step."""
        self._files.write(name, text.encode("utf-8"))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Replace `name` in one step."""
        self._files.write(name, data)

    def create_text(self, name: str, text: str) -> bool:
        """Write `name` if it is not there: of several writers one gets True. The text names its writer."""
        return self._files.create(name, text.encode("utf-8"))

    def upload(self, folder: str, source: Path) -> list[FileEntry]:
        """Copy a local directory with all it holds."""
        paths = sorted(path for path in source.rglob("*") if path.is_file())
        return [self.upload_file(f"{folder}/{path.relative_to(source).as_posix()}", path) for path in paths]

    def upload_file(self, name: str, source: Path) -> FileEntry:
        """Copy a local file."""
        self._files.upload(name, source)
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        return FileEntry(path=name, rows=0, bytes=source.stat().st_size, checksum=digest)

    def download(self, folder: str, target: Path) -> None:
        """Copy all files under a folder to a local directory, which is made."""
        for name in self.names(folder):
            path = target / name.removeprefix(f"{folder}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            self.download_file(name, path)

    def download_file(self, name: str, target: Path) -> None:
        """Copy a file to a local directory that exists."""
        with self._reading(name):
            self._files.download(name, target)

    @contextmanager
    def as_directory(self, folder: str) -> Iterator[Path]:
        """A folder as a local directory to read, copied if need be; of the copy nothing stays."""
        if self.directory is not None:
            yield self.directory / folder
            return
        with tempfile.TemporaryDirectory(prefix="multicsr-") as copy:
            self.download(folder, Path(copy))
            yield Path(copy)

    def read_table(
        self, name: str, columns: Sequence[str] | None = None, filters: pc.Expression | None = None
    ) -> pa.Table:
        """Read a Parquet file, of it only what `filters` lets through."""
        with self._reading(name), self._files.open(name) as file:
            names = None if columns is None else [*columns]
            return pq.read_table(file, columns=names, filters=filters).replace_schema_metadata(None)

    def write_table(self, name: str, table: pa.Table, metadata: Mapping[str, str] | None = None) -> FileEntry:
        """Write a Parquet file in one step."""
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
        self._files.write(name, data)
        return FileEntry(
            path=name, rows=table.num_rows, bytes=len(data), checksum=checksum(data), ids=_ids(table)
        )

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else first_line(error)
            raise RunError(f"cannot read {self.uri(name)}: {reason}") from error


def _ids(table: pa.Table) -> Span | None:
    if "row_id" not in table.column_names or table["row_id"].null_count == table.num_rows:
        return None
    ends = pc.min_max(table["row_id"])
    return Span(ends["min"].as_py(), ends["max"].as_py())


def checksum(data: bytes) -> str:
    """BLAKE2b-128 of a file's bytes, hex."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
