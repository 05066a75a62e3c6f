"""The protocol of a storage backend. A file is either there completely, or not at all."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import pyarrow as pa


class FileInfo(NamedTuple):
    """A file in a listing."""

    name: str
    """Name relative to the root."""
    bytes: int
    changed_s: float
    """Time of the last change, in seconds since 1970, by the clock of the machine that stores the file."""
    etag: str = ""
    """ETag of an object in a bucket, without quotes: it changes with the bytes. Empty for a directory."""


class UnfinishedUpload(NamedTuple):
    """An incomplete file that its writer left."""

    name: str
    """Name relative to the root."""
    id: str = ""
    """Id of a multipart upload in a bucket; empty for a directory."""


class Files(Protocol):
    """A tree of files under a root. It can be pickled, so that it can be sent to actors.

    Every method raises RunError, with the remedy, if the storage is gone, full or forbidden, and
    FileNotFoundError if a file is missing.
    """

    def uri(self, name: str) -> str:
        """Return the path or URI of `name`, for messages and for the command line."""

    def child(self, folder: str) -> Self:
        """Return the tree of the same storage whose root is `folder`."""

    def exists(self, name: str) -> bool:
        """Return True if there is such a file."""

    def infos(self, folder: str) -> Iterator[FileInfo]:
        """Yield all complete files under a folder, in no order; none if the folder does not exist."""

    def read(self, name: str) -> bytes:
        """Return all bytes of a file."""

    def open(self, name: str) -> pa.NativeFile:
        """Open a file for random access, which reading Parquet needs."""

    def write(self, name: str, data: bytes) -> None:
        """Replace the file in one step."""

    def create(self, name: str, data: bytes) -> bool:
        """Write the file if it does not exist. Of several concurrent writers exactly one gets True.

        The bytes must identify their writer: if the answer to a request is lost, the content of the file is
        the only evidence of who wrote it.

        Returns:
            True if this call wrote the file, False if another writer did.
        """

    def upload(self, name: str, source: Path) -> None:
        """Copy the local file `source` to `name`; replaces an existing file."""

    def download(self, name: str, target: Path) -> None:
        """Copy the file to the local path `target`, whose folder must exist."""

    def delete(self, names: Sequence[str]) -> None:
        """Delete files; those that do not exist are ignored."""

    def abandoned_uploads(self, older_than_s: float) -> Iterator[UnfinishedUpload]:
        """Yield the incomplete files that killed writers left.

        Args:
            older_than_s: minimum age in seconds; a younger one may belong to a running writer.
        """

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Delete an incomplete file that `abandoned_uploads` found."""

    def delete_folder(self, folder: str) -> None:
        """Delete all files under a folder, including incomplete ones."""


def check_name(name: str) -> str:
    """Return `name` if it is a valid name of a file in a store.

    Names in a manifest or a log are untrusted: anyone who can write to the store may have written them.

    Raises:
        ValueError: the name is not valid, or could lead out of its folder.
    """
    parts = name.split("/")
    is_drive = any(part[1:2] == ":" for part in parts)
    if {"", ".", ".."} & {*parts} or is_drive or any(letter in name for letter in "\\\0"):
        raise ValueError(f"{name!r} is no name of a file in a store")
    return name
