"""Read files in ranges, verifying every byte that is used.

A file that is larger than one block has a checksum for each block of `BLOCK_BYTES`, so that a range can be
verified without reading the rest. Parquet's own page checksums cover neither footers nor page headers, and
damage there can hide rows from a filter.
"""

from collections.abc import Callable, Sequence

import pyarrow as pa

from multicsr.hashing import checksum
from multicsr.storage.ranged import RangedFile

BLOCK_BYTES = 2**20
"""Size of a block that has a checksum of its own."""


def block_checksums(data: bytes) -> list[str]:
    """Return the checksum of each block; an empty list for a single block, whose checksum is the file's."""
    if len(data) <= BLOCK_BYTES:
        return []
    view = memoryview(data)
    return [checksum(view[start : start + BLOCK_BYTES]) for start in range(0, len(data), BLOCK_BYTES)]


def checksum_of(data: bytes, blocks: Sequence[str]) -> str:
    """Return the checksum of a file.

    If it has blocks, their checksums are hashed instead of the data, so that no byte is hashed twice.
    """
    return checksum("".join(blocks).encode()) if blocks else checksum(data)


class VerifiedFile(RangedFile):
    """A file open for reading in ranges. Verified blocks are cached until it is closed."""

    def __init__(
        self, file: pa.NativeFile, size: int, checksums: Sequence[str], damaged: Callable[[], Exception]
    ) -> None:
        """Take ownership of an open file.

        Args:
            file: the file to read; it is closed together with this one.
            size: its expected size in bytes.
            checksums: the checksum of each block.
            damaged: makes the error to raise if the size or a checksum differs.
        """
        super().__init__(size)
        self._file, self._checksums, self._damaged = file, checksums, damaged
        self._blocks: dict[int, memoryview] = {}
        if file.size() != size:
            raise damaged()

    def read_range(self, start: int, stop: int) -> bytes:
        """Implement `RangedFile.read_range`.

        Raises:
            Exception: the error that `damaged` made, if a block differs from its checksum.
        """
        first, last = start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES
        self._fetch([block for block in range(first, last + 1) if block not in self._blocks])
        parts = [self._blocks[block] for block in range(first, last + 1)]
        parts[-1] = parts[-1][: stop - last * BLOCK_BYTES]
        parts[0] = parts[0][start - first * BLOCK_BYTES :]
        return b"".join(parts)

    def close(self) -> None:
        """Close the underlying file and drop the cached blocks."""
        self._blocks.clear()
        self._file.close()
        super().close()

    def _fetch(self, blocks: Sequence[int]) -> None:
        """Read the range from the first to the last missing block in one request, and verify the blocks."""
        if not blocks:
            return
        start = blocks[0] * BLOCK_BYTES
        data = memoryview(self._file.read_at((blocks[-1] + 1) * BLOCK_BYTES - start, start))
        for block in blocks:
            offset = block * BLOCK_BYTES - start
            part = data[offset : offset + BLOCK_BYTES]
            if checksum(part) != self._checksums[block]:
                raise self._damaged()
            self._blocks[block] = part
