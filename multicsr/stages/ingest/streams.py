"""Bytes of a file: decompressed, converted to UTF-8 and split into lines.

Memory is bounded for any content of the file.
"""

import codecs
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from multicsr.stages.ingest.files import InputFile
from multicsr.stages.ingest.formats import codec_of

MAX_RECORD_BYTES = 16 * 2**20
"""Maximum size of one record."""
_BLOCK_BYTES = 2**20
_FETCHED_BYTES = 8 * 2**20
"""Bytes read from the file at once; for a file in a bucket, this is one request."""
_PIECE_BYTES = 1024
"""Compressed bytes that are decompressed at once; they give at most 32 MiB (zstd)."""
_MAX_WINDOW_BYTES = 2**31
"""Window size that `zstd --long=31` needs; the default of most readers is 2^27."""
_GZIP = zlib.MAX_WBITS | 16
"""Value of `wbits` for a stream in the format of gzip."""
_BOM = codecs.BOM_UTF8
_WIDE = {  # UTF-32 first: its little-endian mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
DAMAGED = (OSError, pa.ArrowException)
"""Exceptions raised while a file is read whose content is not valid for its format or compression."""


def open_stream(file: InputFile) -> BinaryIO:
    """Return a stream of the decompressed bytes of a file, to be read once.

    Reading damaged content raises one of `DAMAGED`.
    """
    raw = pa.BufferedInputStream(file.open(), _FETCHED_BYTES)
    match codec_of(file.path):
        case "gzip":  # Arrow's reader rejects the zero bytes with which tapes and archives pad a file
            raw = _Expanded(raw, partial(zlib.decompressobj, wbits=_GZIP), zlib.error)
        case "xz":
            raw = _Expanded(raw, lzma.LZMADecompressor, lzma.LZMAError)
        case "zstd":
            import zstandard

            long = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
            raw = _Expanded(raw, long.decompressobj, zstandard.ZstdError)
        case str(codec):
            raw = pa.CompressedInputStream(raw, codec)
    return io.BufferedReader(raw, _BLOCK_BYTES)


class _Decompressor(Protocol):
    """The common interface of the decompressors of zlib, lzma and zstandard."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class _Expanded(io.RawIOBase):
    """The decompressed content of one or more concatenated streams, each of which must be complete.

    The readers of the libraries silently accept a stream that is cut off (zstandard) or whose first bytes
    are damaged (lzma).
    """

    def __init__(
        self,
        raw: Any,  # noqa: ANN401 - pyarrow's stream
        start: Callable[[], _Decompressor],
        error: type[Exception],
    ) -> None:
        self._raw, self._start, self._error = raw, start, error
        self._decompressor: _Decompressor | None = None
        self._left, self._ready = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        while not self._ready:
            piece = self._left or self._raw.read(_PIECE_BYTES)
            if not piece:
                if self._decompressor is not None:
                    raise OSError("the compressed stream is cut off")
                return 0
            self._left = b""
            self._ready = memoryview(self._expand(piece))
        taken = min(len(buffer), len(self._ready))
        buffer[:taken] = self._ready[:taken]
        self._ready = self._ready[taken:]
        return taken

    def _expand(self, piece: bytes) -> bytes:
        if self._decompressor is None:
            piece = piece.lstrip(b"\0")  # padding between two streams
            if not piece:
                return b""
            self._decompressor = self._start()
        try:
            data = self._decompressor.decompress(piece)
        except self._error as error:
            raise OSError(str(error)) from error
        if self._decompressor.eof:
            self._left = bytes(self._decompressor.unused_data)
            self._decompressor = None
        return data


def blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the text of a stream as UTF-8, in blocks.

    A byte order mark at the beginning selects UTF-16 or UTF-32. Bytes that are invalid in such an encoding
    become U+FFFD, for which the record that contains it is rejected.
    """
    first = stream.read(_BLOCK_BYTES)
    encoding = wide_encoding(first)
    if encoding is None:
        while first:
            yield first
            first = stream.read(_BLOCK_BYTES)
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    while first:
        yield decoder.decode(first).encode("utf-8", "replace")
        first = stream.read(_BLOCK_BYTES)
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def wide_encoding(first: bytes) -> str | None:
    """Return the encoding that a byte order mark at the beginning of a file selects; None if it is UTF-8."""
    return next((name for mark, name in _WIDE.items() if first.startswith(mark)), None)


def blocks_between(file: InputFile, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes of a range of an uncompressed local file in UTF-8, in blocks."""
    with file.open() as whole:
        whole.seek(start)  # no buffer before it: that would fetch up to 8 MiB beyond `stop`
        while block := whole.read(min(_BLOCK_BYTES, stop - start)):
            yield block
            start += len(block)


def lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a stream; see `line_lists`."""
    yield from lines_of(blocks(stream))


def lines_of(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of blocks of UTF-8; see `line_lists`."""
    for found in line_lists(blocks):
        yield from found


def line_lists(blocks: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines that end in each block, without a byte order mark at their beginning.

    A line ends with LF, CR LF or CR, which is not part of it. A line longer than `MAX_RECORD_BYTES` is cut
    one byte above the limit, so that the caller sees it is too long.
    """
    rest, is_skipping = b"", False
    for block in blocks:
        data = rest + block
        # A CR at the end may be half of CR LF.
        last = len(data) - 1 if data.endswith(b"\r") else len(data)
        end = max(data.rfind(b"\n", 0, last), data.rfind(b"\r", 0, last)) + 1
        whole, rest = data[:end].splitlines(), data[end:]
        if is_skipping and whole:
            del whole[0]
            is_skipping = False
        if len(data) > MAX_RECORD_BYTES:
            whole = [line[: MAX_RECORD_BYTES + 1] for line in whole]
        yield _without_marks(whole) if _BOM in data else whole
        if is_skipping:
            rest = rest[-1:] if rest.endswith(b"\r") else b""
        elif len(rest) > MAX_RECORD_BYTES + 1:
            yield [rest[: MAX_RECORD_BYTES + 1]]
            is_skipping = True
            rest = rest[-1:] if rest.endswith(b"\r") else b""
    if rest and not is_skipping:
        yield _without_marks(rest.splitlines())


def _without_marks(lines: list[bytes]) -> list[bytes]:
    return [line.removeprefix(_BOM) for line in lines]
