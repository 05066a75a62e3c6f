"""A file as a stream of records, whatever its format; a damaged record is a record with a reason.

Memory is bounded by the longest record that is taken, `MAX_RECORD_BYTES`, not by the file; for a dump of a
wiki, by its longest page. `.gz`, `.bz2` and `.zst` are decompressed on the way. CSV is quoted as usual; TSV
is not quoted at all.
"""

import csv
import difflib
import io
import json
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from multicsr.errors import ConfigError, RunError
from multicsr.ingest.files import InputFile
from multicsr.ingest.wikipedia import articles
from multicsr.rows import Reason

MAX_RECORD_BYTES = 16 * 2**20
_BUFFER_BYTES = 2**20
_FETCHED_BYTES = 8 * 2**20
"""Read from the file at once: one request, when it lies in a bucket."""
_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_LOOK_FOR_COLUMN = 1000
"""JSON lines without the column before it counts as misspelt."""
_BOM = b"\xef\xbb\xbf"


class Record(NamedTuple):
    """One record of a file; its position is its place in the stream."""

    text: str
    """Not normalised; of a damaged record, as much as can be shown."""
    reason: Reason | None = None
    detail: str | None = None


def read_records(file: InputFile, column: str | None) -> Iterator[Record]:
    """Stream a file's records in order.

    Raises:
        ConfigError: no column of that name, or it holds no text; the ingest extra is not installed.
        RunError: the file cannot be read or decompressed, or is not what its format says.
    """
    try:
        if file.format == "text":
            with _open(file) as stream:
                yield from map(_text, _lines(stream))
        elif file.format == "wikipedia":
            with _open(file) as stream:
                yield from _wikipedia(stream, file)
        elif column is None:
            raise ConfigError(f"input.column: {file.path} is {file.format}; name the column with the text")
        elif file.format == "jsonl":
            with _open(file) as stream:
                yield from _json_lines(_lines(stream), column, file)
        elif file.format == "parquet":
            yield from _parquet(file, column)
        else:
            with _open(file) as stream:
                yield from _separated(stream, column, file)
    except (OSError, pa.ArrowException) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise RunError(f"input.paths: cannot read {file.path}: {first_line}") from error


def _open(file: InputFile) -> BinaryIO:
    # pyarrow notices a truncated or damaged stream in every compression; Python's zstandard does not.
    raw = pa.BufferedInputStream(file.open(), _FETCHED_BYTES)
    codec = next((codec for ending, codec in _CODECS.items() if file.path.endswith(ending)), None)
    return io.BufferedReader(pa.CompressedInputStream(raw, codec) if codec else raw, _BUFFER_BYTES)


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines without their end; of one that is too long, one byte more than is allowed."""
    first = True
    while line := stream.readline(MAX_RECORD_BYTES + 1):
        end = line
        while len(end) > MAX_RECORD_BYTES and not end.endswith(b"\n"):
            end = stream.readline(MAX_RECORD_BYTES + 1)
        yield (line.removeprefix(_BOM) if first else line).rstrip(b"\r\n")
        first = False


def _text(raw: bytes) -> Record:
    if len(raw) > MAX_RECORD_BYTES:
        return Record(_shown(raw[:1000]), Reason.TOO_LONG, f"more than {MAX_RECORD_BYTES} bytes")
    try:
        return Record(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Record(_shown(raw), Reason.UNDECODABLE, f"byte {error.start}: {error.reason}")


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", errors="backslashreplace")


def _json_lines(lines: Iterator[bytes], column: str, file: InputFile) -> Iterator[Record]:
    keys: list[str] = []
    for number, line in enumerate(lines):
        record = _text(line)
        if record.reason is None and record.text.strip():
            record, found = _json(record.text, column)
            if column in found:
                yield record
                yield from (_json_line(line, column) for line in lines)
                return
            keys = keys or found
        yield record
        if keys and number >= _LOOK_FOR_COLUMN:
            break
    if keys:
        raise _no_column(column, keys, file)


def _json_line(line: bytes, column: str) -> Record:
    record = _text(line)
    return record if record.reason or not record.text.strip() else _json(record.text, column)[0]


def _json(text: str, column: str) -> tuple[Record, list[str]]:
    """The record in one line of JSON, and the names it has."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Record(text, Reason.MALFORMED, f"not JSON: {error}"), []
    if not isinstance(value, dict):
        return Record(text, Reason.MALFORMED, "not a JSON object"), []
    if column not in value:
        return Record(text, Reason.MALFORMED, f"no {column}"), list(value)
    if not isinstance(value[column], str):
        return Record(text, Reason.MALFORMED, f"{column} is not a string"), list(value)
    return Record(value[column]), list(value)


def _separated(stream: BinaryIO, column: str, file: InputFile) -> Iterator[Record]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    rows = (
        csv.reader(text) if file.format == "csv" else csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    )
    header = next(rows, None)
    if header is None:
        return
    if column not in header:
        raise _no_column(column, header, file)
    at = header.index(column)
    while True:
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Record("", Reason.MALFORMED, str(error))
            continue
        if len(fields) == len(header):
            # Bytes that are no UTF-8 came through as surrogates; back to bytes, they get their reason.
            yield Record(fields[at]) if fields[at].isascii() else _text(_bytes(fields[at]))
        elif fields:
            detail = f"{len(fields)} fields, the header has {len(header)}"
            yield Record(_shown(_bytes(" ".join(fields))), Reason.MALFORMED, detail)
        else:
            yield Record("", Reason.EMPTY)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")


def _parquet(file: InputFile, column: str) -> Iterator[Record]:
    with pq.ParquetFile(file.open(), pre_buffer=False) as parquet:
        schema = parquet.schema_arrow
        if column not in schema.names:
            raise _no_column(column, schema.names, file)
        kind = schema.field(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise ConfigError(f"input.column: {column} of {file.path} is {kind}, not text")
        for batch in parquet.iter_batches(columns=[column], batch_size=8192):
            # As bytes, because a Parquet string need not be UTF-8 and one that is not would stop the batch.
            for raw in batch.column(0).cast(kind).cast(pa.large_binary()).to_pylist():
                yield Record("", Reason.MALFORMED, f"{column} is null") if raw is None else _text(raw)


def _wikipedia(stream: BinaryIO, file: InputFile) -> Iterator[Record]:
    try:
        from multicsr.ingest.wikitext import BrokenMarkup, prose
    except ImportError as error:
        raise ConfigError("input.format: wikipedia needs pip install 'multicsr[ingest]'") from error
    for article in articles(stream, file.path):
        if len(article.wikitext) > MAX_RECORD_BYTES:
            detail = f"{article.name}: more than {MAX_RECORD_BYTES} characters"
            yield Record(article.wikitext[:1000], Reason.TOO_LONG, detail)
            continue
        try:
            text = prose(article.wikitext, article.unseen)
        except BrokenMarkup as error:
            yield Record(article.wikitext, Reason.MALFORMED, f"{article.name}: {error}")
        else:
            yield Record(text) if text else Record("", Reason.EMPTY, article.name)


def _no_column(column: str, names: Sequence[str], file: InputFile) -> ConfigError:
    near = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
    return ConfigError(f"input.column: {file.path} has no column {column!r}; {remedy}")
