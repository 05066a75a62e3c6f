"""What a store needs of the place its files lie in. A file is there whole or not at all."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import pyarrow as pa


class FileInfo(NamedTuple):
    """One file, as a listing tells it."""

    name: str
    """Relative to the root."""
    bytes: int
    changed_s: float
    """Time of the last change, seconds since 1970, by the clock of the place."""


class Files(Protocol):
    """A tree of files under a root. Pickles, so that actors can carry it.

    Every method raises RunError, with the remedy, when the place is gone, full or forbidden; a file that is
    missing raises FileNotFoundError.
    """

    def uri(self, name: str) -> str:
        """Where `name` is, for messages and for the command line."""

    def child(self, folder: str) -> Self:
        """The same place, with `folder` as the root."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def infos(self, folder: str) -> Iterator[FileInfo]:
        """All complete files under a folder, in no order; of a folder that is not there, none."""

    def read(self, name: str) -> bytes:
        """The whole file."""

    def open(self, name: str) -> pa.NativeFile:
        """The file for reading here and there, as Parquet is read."""

    def write(self, name: str, data: bytes) -> None:
        """Replace the file in one step."""

    def create(self, name: str, data: bytes) -> bool:
        """Write the file if there is none: of several writers exactly one gets True.

        The others get False; so the bytes must name their writer, because an answer can be lost on its way
        and then the file itself tells whose it is.
        """

    def upload(self, name: str, source: Path) -> None:
        """Replace the file with a local one."""

    def download(self, name: str, target: Path) -> None:
        """Copy the file to a local one, whose folder exists."""

    def delete(self, names: Sequence[str]) -> None:
        """Delete files; none need exist."""

    def delete_folder(self, folder: str) -> None:
        """Delete all files under a folder, incomplete ones too."""


def first_line(error: Exception) -> str:
    """What a library says of an error, without its tail."""
    return str(error).strip().partition("\n")[0]
