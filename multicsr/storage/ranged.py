"""A base class for files that are read in ranges of bytes, independent of their storage."""

import io
from abc import ABC, abstractmethod


class RangedFile(io.RawIOBase, ABC):
    """A file of a known size, open for reading. A subclass implements `read_range`."""

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0

    @abstractmethod
    def read_range(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` (included) to `stop` (excluded); 0 <= start < stop <= size."""

    def readable(self) -> bool:
        """Implement `io.IOBase.readable`."""
        return True

    def seekable(self) -> bool:
        """Implement `io.IOBase.seekable`."""
        return True

    def tell(self) -> int:
        """Implement `io.IOBase.tell`."""
        return self._at

    def size(self) -> int:
        """Return the size in bytes; Arrow calls this."""
        return self._size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Implement `io.IOBase.seek`."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes from the current position; all that remain if `size` is negative."""
        stop = self._size if size < 0 else min(self._size, self._at + size)
        if self._at >= stop:
            return b""
        data = self.read_range(self._at, stop)
        self._at = stop
        return data
