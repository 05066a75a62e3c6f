"""A file of any format as a stream of records; a damaged record is a record with a reason.

Memory does not grow with the size of the file. A parser holds one record, at most of
`streams.MAX_RECORD_BYTES`, or one page of a wiki; `read_texts` holds the texts of one block of the file.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from multicsr.errors import ConfigError, RunError
from multicsr.messages.error_chain import first_line
from multicsr.rows import Reason
from multicsr.stages.ingest import streams
from multicsr.stages.ingest.file_parts import FilePart
from multicsr.stages.ingest.files import InputFile
from multicsr.stages.ingest.formats import Format
from multicsr.stages.ingest.json_records import field_names, json_records
from multicsr.stages.ingest.parser_errors import ParserFailed, parser_errors
from multicsr.stages.ingest.record import Record, no_column, text_record
from multicsr.stages.ingest.separated import first_fields, separated
from multicsr.stages.ingest.tmx import segments
from multicsr.stages.ingest.unclosed_markup import BrokenMarkup
from multicsr.stages.ingest.wikipedia import articles

__all__ = [
    "BYTE_FORMATS",
    "READERS_VERSION",
    "Record",
    "column_names",
    "read_records",
    "read_texts",
    "record_of",
]

READERS_VERSION = 4
"""Version of the readers; raise it when a file gives other records than before."""
BYTE_FORMATS: frozenset[Format] = frozenset({"text", "parquet"})
"""Formats in which records are bytes, before anything is parsed."""
_BATCH_ROWS = 8192
_BATCH_BYTES = 64 * 2**20


def read_records(
    file: InputFile, column: str | None, *, header: bool = True, language: str = "en"
) -> Iterator[Record]:
    """Yield the records of a file in order.

    Args:
        file: the file to read.
        column: the column with the text; formats without columns ignore it.
        header: whether a CSV or TSV file begins with the names of its columns.
        language: the language to read from a TMX file.

    Raises:
        ConfigError: there is no such column or language, or the column does not contain text; the ingest
            extra is not installed.
        RunError: the file cannot be read or decompressed, or does not have its stated format.
    """
    if file.format in BYTE_FORMATS:
        yield from (record_of(raw, column) for texts in read_texts(file, column) for raw in texts)
        return
    try:
        yield from _records(file, column, header=header, language=language)
    except streams.DAMAGED as error:
        raise _unreadable(file, error) from error


def read_texts(
    file: InputFile, column: str | None, part: FilePart | None = None
) -> Iterator[Sequence[bytes | None]]:
    """Yield the texts of a file of a format of `BYTE_FORMATS` in order, as bytes, some thousands at a time.

    `record_of` makes the record of each, so that these are the records of `read_records`.

    Args:
        file: the file to read.
        column: the column with the text, of Parquet.
        part: a part of a file of lines; None: the whole file.

    Raises:
        ConfigError: there is no such column, or it does not contain text.
        RunError: the file cannot be read or decompressed, or does not have its stated format.
    """
    try:
        if file.format == "parquet":
            yield from _parquet(file, _named(column, file))
        elif part is not None:
            yield from streams.line_lists(streams.blocks_between(file, part.start, part.stop))
        else:
            with streams.open_stream(file) as stream:
                yield from streams.line_lists(streams.blocks(stream))
    except streams.DAMAGED as error:
        raise _unreadable(file, error) from error


def record_of(raw: bytes | None, column: str | None) -> Record:
    """Return the record of a text that `read_texts` found; None is a null of Parquet."""
    return Record("", Reason.MALFORMED, f"{column} is null") if raw is None else text_record(raw)


def column_names(file: InputFile) -> list[str]:
    """Return the names of the columns of a file, or the fields of its first line if it is CSV or TSV.

    Raises:
        ConfigError: the first line has an unclosed quote.
        RunError: the file cannot be read or decompressed, or does not have its stated format.
    """
    try:
        if file.format == "parquet":
            with pq.ParquetFile(file.open(), pre_buffer=False) as parquet:
                return [field.name for field in parquet.schema_arrow if _is_text(field.type)]
        with streams.open_stream(file) as stream:
            return field_names(stream, file) if file.format == "jsonl" else first_fields(stream, file)
    except streams.DAMAGED as error:
        raise _unreadable(file, error) from error


def _unreadable(file: InputFile, error: Exception) -> RunError:
    return RunError(
        f"input.paths: cannot read {file.shown}: {first_line(error)}; the file is damaged, cut off or "
        "not what its name promises: fetch it again, or leave it out"
    )


def _records(file: InputFile, column: str | None, *, header: bool, language: str) -> Iterator[Record]:
    with streams.open_stream(file) as stream:
        match file.format:
            case "wikipedia":
                yield from _wikipedia(stream, file)
            case "jsonl":
                yield from json_records(stream, _named(column, file), file)
            case "tmx":
                yield from segments(stream, language, file)
            case _:
                yield from separated(stream, _named(column, file), file, header=header)


def _named(column: str | None, file: InputFile) -> str:
    if column is None:
        raise ConfigError(f"input.column: {file.shown} is {file.format}; name the column with the text")
    return column


def _parquet(file: InputFile, column: str) -> Iterator[list[bytes | None]]:
    with pq.ParquetFile(file.open(), pre_buffer=False) as parquet:
        schema = parquet.schema_arrow
        if column not in schema.names:
            raise no_column(column, schema.names, file)
        if schema.names.count(column) > 1:
            raise ConfigError(
                f"input.column: {file.shown} has {schema.names.count(column)} columns {column!r}; rename one"
            )
        kind = schema.field(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not _is_text(kind):
            raise ConfigError(f"input.column: {column} of {file.shown} is {kind}, not text")
        for batch in parquet.iter_batches(columns=[column], batch_size=_batch_rows(parquet.metadata)):
            # Read as bytes: a Parquet string may be invalid UTF-8, which would make the whole batch fail.
            yield batch.column(0).cast(kind).cast(pa.large_binary()).to_pylist()


def _is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type can hold text; a column without values has the type null."""
    tests = (
        "is_string",
        "is_large_string",
        "is_string_view",
        "is_binary",
        "is_large_binary",
        "is_binary_view",
    )
    return any(getattr(pa.types, test)(kind) for test in (*tests, "is_null"))


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """Return the number of rows for which a batch of average rows fits into `_BATCH_BYTES`."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    row_bytes = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(row_bytes, 1)))


def _wikipedia(stream: BinaryIO, file: InputFile) -> Iterator[Record]:
    try:
        from multicsr.stages.ingest.wikitext import prose
    except ImportError as error:
        raise ConfigError("input.format: wikipedia needs pip install 'multicsr[ingest]'") from error
    for article in articles(stream, file.shown):
        if len(article.wikitext) > streams.MAX_RECORD_BYTES:
            detail = f"{article.name}: more than {streams.MAX_RECORD_BYTES} characters"
            yield Record(article.wikitext[:1000], Reason.TOO_LONG, detail)
            continue
        try:
            with parser_errors("the parser of wikitext fails"):
                text = prose(article.wikitext, article.hidden)
        except ParserFailed as error:
            problem = error.__cause__ if isinstance(error.__cause__, BrokenMarkup) else error
            yield Record(article.wikitext, Reason.MALFORMED, f"{article.name}: {problem}")
        else:
            yield Record(text) if text else Record("", Reason.EMPTY, article.name)
