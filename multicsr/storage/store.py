"""The interface of all storage: a tree of files under a URI, each written completely or not at all.

Every name is relative to the root of the store, so a store can be moved. The differences between a directory
and a bucket are in `local.py` and `s3.py`.
"""

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Self, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import AfterValidator, BaseModel, TypeAdapter, ValidationError

from multicsr.artifacts import FileRecord
from multicsr.config import Config, S3Config
from multicsr.errors import ConfigError, DamagedFileError, MissingFileError, RunError, SchemaError
from multicsr.hashing import checksum, checksum_of_file
from multicsr.messages.error_chain import first_line
from multicsr.messages.redaction import redact
from multicsr.storage.backend import FileInfo, Files, check_name
from multicsr.storage.id_span import IdSpan
from multicsr.storage.local import Disk
from multicsr.storage.record import check_schema, decode_record, encode_record
from multicsr.storage.uri import parse_s3_uri
from multicsr.storage.verified import VerifiedFile, block_checksums, checksum_of

SCHEMA_VERSION = "3"
"""Schema number in every Parquet file and JSON record; raised when a column or field changes its meaning."""
ROW_GROUP_ROWS = 8192
_SCHEMA_KEY = b"multicsr.schema"
_REMEDY = "; run `multicsr run CONFIG` again, which makes it anew"
_NAMED = re.compile(r"-([0-9a-f]{32})\.parquet$")
"""End of the name of a file whose checksum is part of its name."""
_REPEATED = ("language", "source", "prompts", "llm", "reason", "entailment_reply", "contradiction_reply")
"""Columns with few distinct values, which get a Parquet dictionary; it would not pay for the others."""
T = TypeVar("T")


class FileEntry(FileRecord):
    """The description of a file in a manifest."""

    path: Annotated[str, AfterValidator(check_name)]
    rows: int
    """Number of rows; 0 if the file is not a table, or if only its name is known."""
    bytes: int
    checksum: str
    """Checksum of its bytes; for a table with blocks, the checksum of the checksums of the blocks."""
    ids: IdSpan | None = None
    """Range from the least to the greatest row id; None if the file has no row ids."""
    blocks: list[str] = []
    """Checksum of each block of a table; empty if it has only one block."""


class Store:
    """A tree of files under a URI. It can be pickled, so that it can be sent to actors.

    Methods raise RunError if the storage cannot be reached, is full or read-only, or a file is missing.
    """

    def __init__(self, files: Files, check_lease: Callable[[], None] | None = None) -> None:
        self._files = files
        self._check_lease = check_lease

    @classmethod
    def open(cls, uri: str, s3: S3Config | None = None) -> Self:
        """Open the store at a plain path, a file:// or an s3:// URI; nothing is created before a write.

        Raises:
            ConfigError: an empty or impossible name, another scheme, credentials in the URI, or an invalid
                name of a bucket.
        """
        scheme, separator, rest = uri.partition("://")
        if "\0" in uri or not uri:
            raise ConfigError(f"store: {uri!r} is no name of a directory or bucket")
        if not separator:
            return cls(Disk(Path(uri).expanduser().absolute()))
        if scheme == "file" and rest.startswith("/"):
            return cls(Disk(Path(rest)))
        if scheme == "s3" and not rest.startswith("/") and rest:
            from multicsr.storage.s3 import Bucket

            return cls(Bucket(*parse_s3_uri(uri), s3 or S3Config()))
        raise ConfigError(
            f"store: cannot use {redact(uri)}; give a directory, file:///absolute/path or s3://bucket/prefix"
        )

    @classmethod
    def of(cls, config: Config) -> Self:
        """Open the store that a configuration names."""
        return cls.open(config.store, config.s3)

    @classmethod
    def holding(cls, uri: str, s3: S3Config | None = None) -> tuple[Self, str]:
        """Return the store of the folder that holds the file `uri`, and the name of the file in it."""
        folder, _, name = uri.rpartition("/")
        return cls.open(folder, s3), name

    def child(self, name: str) -> Self:
        """Return the store whose root is the folder `name` of this one."""
        return type(self)(self._files.child(name), self._check_lease)

    def fenced(self, check_lease: Callable[[], None]) -> Self:
        """Return this store for the holder of a lease.

        Args:
            check_lease: raises RunError if the lease is lost. It is called before every step that cannot be
                undone.
        """
        return type(self)(self._files, check_lease)

    def check_lease(self) -> None:
        """Raise RunError if this store belongs to a job that has lost its lease."""
        if self._check_lease is not None:
            self._check_lease()

    def uri(self, name: str = "") -> str:
        """Return the path or URI of `name`, for messages and for the command line."""
        return self._files.uri(name)

    @property
    def directory(self) -> Path | None:
        """Return the root if the store is a directory of this machine, else None."""
        return self._files.root if isinstance(self._files, Disk) else None

    def local_folder(self, name: str) -> Path | None:
        """Return the path of a folder if the store is a directory of this machine, else None.

        Raises:
            RunError: the name or a symbolic link leads out of the store.
        """
        return self._files.existing(name) if isinstance(self._files, Disk) else None

    @property
    def files(self) -> Files:
        """Return the storage backend."""
        return self._files

    def exists(self, name: str) -> bool:
        """Return True if there is a file `name`."""
        return self._files.exists(name)

    def names(self, folder: str) -> list[str]:
        """Return the names of all complete files under a folder, sorted."""
        return sorted(info.name for info in self._files.infos(folder))

    def infos(self, folder: str) -> Iterator[FileInfo]:
        """Yield all complete files under a folder with sizes and times, in no order."""
        return self._files.infos(folder)

    def incomplete(self, entries: Sequence[FileEntry]) -> list[FileEntry]:
        """Return the files that are missing or have another size than when they were written."""
        folders = {"/".join(entry.path.split("/")[:2]) for entry in entries}
        sizes = {info.name: info.bytes for folder in folders for info in self.infos(folder)}
        return [entry for entry in entries if sizes.get(entry.path) != entry.bytes]

    def delete(self, folder: str) -> None:
        """Delete a file or a whole folder; it need not exist.

        Raises:
            RunError: the lease is lost.
        """
        self.delete_files([folder])
        self._files.delete_folder(folder)

    def delete_files(self, names: Sequence[str]) -> None:
        """Delete files; they need not exist.

        Raises:
            RunError: the lease is lost.
        """
        self.check_lease()
        self._files.delete(names)

    def read_bytes(self, name: str, if_missing: str = "") -> bytes:
        """Return all bytes of a file; they are not verified.

        Raises:
            MissingFileError: there is no such file; the message ends with `if_missing`.
        """
        with self._reading(name, if_missing):
            return self._files.read(name)

    def read_verified(self, entry: FileEntry) -> bytes:
        """Return the bytes of a file that a manifest names.

        Raises:
            DamagedFileError: the bytes differ from those that the manifest describes.
        """
        with self._reading(entry.path, _REMEDY):
            data = self._files.read(entry.path)
        blocks = block_checksums(data) if entry.blocks else []
        if len(data) != entry.bytes or blocks != entry.blocks or checksum_of(data, blocks) != entry.checksum:
            raise self.damaged(entry.path)
        return data

    def damaged(self, name: str) -> DamagedFileError:
        """Return the error for a file whose bytes differ from those that were written."""
        return DamagedFileError(
            f"{self.uri(name)} is damaged; delete it and run `multicsr run CONFIG` again, which makes it anew"
        )

    def read_text(self, name: str) -> str:
        """Return the content of a UTF-8 text file; it is not verified."""
        return self.read_bytes(name).decode("utf-8")

    def read_json(self, name: str, kind: TypeAdapter[T], remedy: str, if_missing: str = "") -> T:
        """Return a record that `write_json` or `create_json` wrote.

        Raises:
            MissingFileError: there is no such file; the message ends with `if_missing`.
            DamagedFileError: its bytes differ from those that were written; the message ends with `remedy`.
            SchemaError: another version of the package wrote it.
        """
        data = self.read_bytes(name, if_missing)
        try:
            return kind.validate_json(decode_record(name, data, SCHEMA_VERSION))
        except (DamagedFileError, ValidationError) as error:
            raise DamagedFileError(f"{self.uri(name)} is damaged{remedy}") from error
        except SchemaError as error:
            raise SchemaError(f"{self.uri(name)} {error}") from error

    def write_json(self, name: str, record: BaseModel) -> FileEntry:
        """Write the record `name` in one step; replaces an existing one."""
        return self.write_bytes(name, encode_record(name, record, SCHEMA_VERSION))

    def create_json(self, name: str, record: BaseModel) -> bool:
        """Write the record if it does not exist. Of several writers exactly one gets True.

        The record must identify its writer (see `Files.create`).
        """
        return self._files.create(name, encode_record(name, record, SCHEMA_VERSION))

    def write_text(self, name: str, text: str) -> FileEntry:
        """Write a text file in UTF-8 in one step; replaces an existing one."""
        return self.write_bytes(name, text.encode("utf-8"))

    def write_bytes(self, name: str, data: bytes) -> FileEntry:
        """Write a file in one step; replaces an existing one."""
        self._files.write(name, data)
        return FileEntry(path=name, rows=0, bytes=len(data), checksum=checksum(data))

    def create_text(self, name: str, text: str) -> bool:
        """Write a text file if it does not exist. Of several writers exactly one gets True.

        The text must identify its writer (see `Files.create`).
        """
        return self._files.create(name, text.encode("utf-8"))

    def upload(self, folder: str, source: Path) -> list[FileEntry]:
        """Copy all files under the local directory `source` to `folder`.

        Raises:
            RunError: the lease is lost.
        """
        paths = sorted(path for path in source.rglob("*") if path.is_file())
        return [self.upload_file(f"{folder}/{path.relative_to(source).as_posix()}", path) for path in paths]

    def upload_file(self, name: str, source: Path) -> FileEntry:
        """Copy the local file `source` to `name`.

        Raises:
            RunError: the lease is lost.
        """
        self.check_lease()
        self._files.upload(name, source)
        return FileEntry(path=name, rows=0, bytes=source.stat().st_size, checksum=checksum_of_file(source))

    def download(self, folder: str, entries: Iterable[FileEntry], target: Path) -> None:
        """Copy the files of `entries` that lie under a folder to a local directory, and verify them.

        Raises:
            DamagedFileError: a file differs from its description in the manifest.
        """
        for entry, path in _within(folder, entries, target):
            with self._reading(entry.path, _REMEDY):
                self._files.download(entry.path, path)
            self._verify_file(entry, path)

    def download_file(self, name: str, target: Path) -> None:
        """Copy a file to the local path `target`, whose folder must exist. The bytes are not verified."""
        with self._reading(name):
            self._files.download(name, target)

    @contextmanager
    def as_directory(self, folder: str, entries: Iterable[FileEntry]) -> Iterator[Path]:
        """Yield a local directory with the verified files of `entries` that lie under a folder.

        The directory is deleted when the block ends.

        Raises:
            DamagedFileError: a file differs from its description in the manifest.
        """
        with tempfile.TemporaryDirectory(prefix="multicsr-") as copy:
            if isinstance(self._files, Disk):
                self._link(self._files, folder, entries, Path(copy))
            else:
                self.download(folder, entries, Path(copy))
            yield Path(copy)

    def _link(self, disk: Disk, folder: str, entries: Iterable[FileEntry], target: Path) -> None:
        """Link to the files of a directory instead of copying them: a model is large and only read."""
        for entry, path in _within(folder, entries, target):
            with self._reading(entry.path, _REMEDY):
                source = disk.existing(entry.path)
                self._verify_file(entry, source)
            path.symlink_to(source)

    def _verify_file(self, entry: FileEntry, path: Path) -> None:
        if path.stat().st_size != entry.bytes or checksum_of_file(path) != entry.checksum:
            raise self.damaged(entry.path)

    def read_table(
        self, entry: FileEntry, columns: Sequence[str] | None = None, filters: pc.Expression | None = None
    ) -> pa.Table:
        """Read a Parquet file; every byte that is used is verified.

        Args:
            entry: a description that `write_table` returned (from a manifest) or `named_entries` found.
            columns: names of the columns to read; None: all.
            filters: only rows that match are returned; None: all.

        Raises:
            DamagedFileError: the file differs from its description.
            SchemaError: another version of the package wrote it.
        """
        with self._reading(entry.path, _REMEDY), self._open_verified(entry) as file:
            names = None if columns is None else [*columns]
            if names is None and filters is None:  # without the costs of a data set
                table = pq.ParquetFile(file).read()
            else:
                table = pq.read_table(file, columns=names, filters=filters)
        if _NAMED.search(entry.path):  # the keys in such names cover the schema of the content
            return table.replace_schema_metadata(None)
        try:
            check_schema((table.schema.metadata or {}).get(_SCHEMA_KEY, b"1").decode(), SCHEMA_VERSION)
        except SchemaError as error:
            raise SchemaError(f"{self.uri(entry.path)} {error}") from error
        return table.replace_schema_metadata(None)

    def _open_verified(self, entry: FileEntry) -> pa.NativeFile:
        if not entry.blocks:
            return pa.BufferReader(self.read_verified(entry))
        file = self._files.open(entry.path)
        damaged = partial(self.damaged, entry.path)
        return pa.PythonFile(VerifiedFile(file, entry.bytes, entry.blocks, damaged), "r")

    def write_table(self, name: str, table: pa.Table) -> FileEntry:
        """Write a Parquet file in one step."""
        data = _encode(table)
        blocks = block_checksums(data)
        return self._write_table(name, data, table, checksum_of(data, blocks), blocks)

    def write_named_table(self, stem: str, table: pa.Table) -> FileEntry:
        """Write a Parquet file that no manifest will name, in one step.

        Its name is `stem`, a hyphen, its checksum and the ending `.parquet`.
        """
        data = _encode(table)
        digest = checksum(data)
        return self._write_table(f"{stem}-{digest}.parquet", data, table, digest, [])

    def named_entries(self, folder: str) -> list[FileEntry]:
        """Return the files under a folder that `write_named_table` wrote, sorted by name."""
        found = ((_NAMED.search(info.name), info) for info in self.infos(folder))
        return sorted(
            (
                FileEntry(path=info.name, rows=0, bytes=info.bytes, checksum=match[1])
                for match, info in found
                if match
            ),
            key=lambda entry: entry.path,
        )

    def _write_table(
        self, name: str, data: bytes, table: pa.Table, digest: str, blocks: list[str]
    ) -> FileEntry:
        self._files.write(name, data)
        return FileEntry(
            path=name,
            rows=table.num_rows,
            bytes=len(data),
            checksum=digest,
            ids=_ids(table),
            blocks=blocks,
        )

    @contextmanager
    def _reading(self, name: str, remedy: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise MissingFileError(f"cannot read {self.uri(name)}: no such file{remedy}") from error
        except (OSError, pa.ArrowException) as error:
            raise RunError(f"cannot read {self.uri(name)}: {first_line(error)}{remedy}") from error


def _encode(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({_SCHEMA_KEY: SCHEMA_VERSION}),
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        use_dictionary=[column for column in _REPEATED if column in table.column_names],
    )
    return bytes(sink.getvalue().to_pybytes())


def _within(folder: str, entries: Iterable[FileEntry], target: Path) -> Iterator[tuple[FileEntry, Path]]:
    """Yield each file under the folder with its path below the local directory; creates the folders."""
    for entry in entries:
        if entry.path.startswith(f"{folder}/"):
            path = target / entry.path.removeprefix(f"{folder}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            yield entry, path


def _ids(table: pa.Table) -> IdSpan | None:
    if "row_id" not in table.column_names or table["row_id"].null_count == table.num_rows:
        return None
    ends = pc.min_max(table["row_id"])
    return IdSpan(ends["min"].as_py(), ends["max"].as_py())
