"""Parts of a large file of lines, which several workers read at the same time.

`cut_file` reads all of a file to compute its digest, and finds on the way where its parts begin. Each part
has a fixed number of records, so that chunks, positions and rejects are those of a file that is read at once.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from multicsr.stages.ingest.digests import Unchanged
from multicsr.stages.ingest.files import InputFile
from multicsr.stages.ingest.formats import codec_of
from multicsr.stages.ingest.streams import wide_encoding

MIN_BYTES = 32 * 2**20
"""Size from which a file is read in parts: about as long as it takes to begin a task for each of them."""
_LF, _CR = b"\n\r"


@dataclass(frozen=True)
class FilePart:
    """A range of bytes of a file with the records that begin in it."""

    unchanged: Unchanged
    """State and digest of the file when its parts were found."""
    start: int
    stop: int
    first: int
    """Number of the first record."""


def has_parts(file: InputFile) -> bool:
    """Return whether a file is large, and its parts can be read without what is before them.

    An object of a bucket is left out: its digest is known, so that finding parts would fetch it once more.
    """
    return (
        file.format == "text" and file.s3 is None and file.bytes >= MIN_BYTES and codec_of(file.path) is None
    )


def cut_file(file: InputFile, rows: int) -> list[FilePart]:
    """Return the parts of a file, each with `rows` records; the last one with those that are left.

    A file in UTF-16 or UTF-32 has no parts: only its beginning shows the encoding.

    Raises:
        RunError: the file cannot be read.
    """
    starts = _LineStarts(rows)
    unchanged = Unchanged(file, starts.add_block)
    if starts.is_wide:
        return []
    cuts = [0, *(start for start in starts.found if start < starts.num_bytes)]
    ends = pairwise([*cuts, starts.num_bytes])
    return [FilePart(unchanged, start, stop, number * rows) for number, (start, stop) in enumerate(ends)]


class _LineStarts:
    """Search for the places in a file at which every n-th line begins."""

    def __init__(self, every: int) -> None:
        self.found: list[int] = []
        """Offset of the lines `every`, 2 `every`, ... from 0; empty if `is_wide`."""
        self.num_bytes = 0
        """Number of bytes seen."""
        self._every, self._num_lines = every, 0
        self._rest = b""
        self.is_wide = False
        """True if the file is in UTF-16 or UTF-32."""

    def add_block(self, block: bytes) -> None:
        """Search the next bytes of the file."""
        self.is_wide |= self.num_bytes == 0 and wide_encoding(block) is not None
        data = self._rest + block
        begin = self.num_bytes - len(self._rest)
        self.num_bytes += len(block)
        self._rest = b"\r" if block.endswith(b"\r") else b""  # it may be half of CR LF
        if self.is_wide:
            return
        ends_L = _line_ends(data[: len(data) - len(self._rest)])
        chosen_M = ends_L[self._every - 1 - self._num_lines % self._every :: self._every]
        self.found += (begin + chosen_M).tolist()
        self._num_lines += len(ends_L)


def _line_ends(data: bytes) -> NDArray[np.int64]:
    """Return the offsets behind every LF, CR LF or CR."""
    bytes_B = np.frombuffer(data, np.uint8)
    is_end_B = bytes_B == _LF
    if b"\r" in data:
        is_alone_B = bytes_B == _CR
        is_alone_B[:-1] &= ~is_end_B[1:]
        is_end_B |= is_alone_B
    return np.flatnonzero(is_end_B) + 1
