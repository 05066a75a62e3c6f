"""Labelled triplets in files as people have them: TSV, CSV, JSONL or Parquet, with or without negatives."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import pyarrow.parquet as pq

from multicsr.config import TripletFile
from multicsr.errors import ConfigError, RunError
from multicsr.messages.error_chain import first_line
from multicsr.rows import Reason, labelled_row_id, normalise
from multicsr.stages.ingest import streams
from multicsr.stages.ingest.files import InputFile
from multicsr.stages.ingest.formats import COLUMNS, LeftOut, format_of
from multicsr.stages.ingest.record import text_record
from multicsr.stages.ingest.separated import separated_rows
from multicsr.stages.ingest.triplet_columns import Columns, find_columns
from multicsr.storage.local_copy import local_copy

_BATCH_ROWS = 8192
"""Number of rows that are read of a Parquet file at a time."""
_LOOK_FOR_ROWS = 1000
"""Number of records that `check_triplet_file` reads at most."""
_MAX_UNREADABLE = 0.05
"""Maximum share of records that cannot be read. Beyond it, the file is not what its header promises."""


class LabelledTriplet(NamedTuple):
    """One row to train on."""

    row_id: str
    text: str
    """The anchor, normalised."""
    entailment: str
    """The positive."""
    contradiction: str | None
    """The hard negative; None: the row has none."""
    weight: float


class LabelledReject(NamedTuple):
    """A record or row that is not trained on."""

    reason: Reason
    detail: str
    """File and line, and what is wrong there."""
    triplet: LabelledTriplet | None = None
    """The row, if the record could be read."""


class _Record(NamedTuple):
    """The texts of one record, before they are checked."""

    line: int
    anchor: list[str]
    positives: list[str]
    negatives: list[str]


class _Unreadable(NamedTuple):
    """A record whose texts cannot be read."""

    line: int
    reason: Reason
    detail: str


class _NotText(ValueError):
    """A value that is neither a text nor a list of texts."""


def read_triplets(file: TripletFile, setting: str) -> Iterator[LabelledTriplet | LabelledReject]:
    """Yield the triplets of a file in order.

    A record with several positives or negatives gives as many rows as there are of the more frequent kind:
    row k has positive k and negative k, counted again from the first where there are fewer. They share the
    weight of the record, so that a record counts the same however many negatives it has.

    Args:
        file: the settings of the file.
        setting: the setting that names the file, for messages.

    Raises:
        ConfigError: there is no such file, its format is not known, or it has no columns of triplets.
        RunError: the file cannot be read or decompressed.
    """
    source = _open(file, setting)
    try:
        for record in _records(source, file):
            if isinstance(record, _Unreadable):
                detail = f"{source.name}, line {record.line:,}: {record.detail}"
                yield LabelledReject(record.reason, detail)
            else:
                yield from _triplets(record, file.weight, f"{source.name}, line {record.line:,}")
    except streams.DAMAGED as error:
        raise RunError(f"{setting}: cannot read {source.shown}: {first_line(error)}") from error


def readable_triplets(file: TripletFile, setting: str) -> Iterator[LabelledTriplet]:
    """Yield the triplets of a file in order, and judge the file when all of it is read.

    Raises:
        ConfigError: see `read_triplets`; or the file has no triplets, or too many records that are none.
        RunError: the file cannot be read.
    """
    num_read, num_unreadable, first = 0, 0, ""
    for row in read_triplets(file, setting):
        if isinstance(row, LabelledTriplet):
            num_read += 1
            yield row
        elif row.triplet is None:
            num_unreadable, first = num_unreadable + 1, first or f"{row.detail} ({row.reason})"
    if num_unreadable > _MAX_UNREADABLE * (num_read + num_unreadable):
        raise ConfigError(
            f"{setting}: {num_unreadable:,} records of {file.path} are no triplets, the first is {first}; "
            "correct it"
        )
    if num_read == 0:
        raise ConfigError(f"{setting}: {file.path} has no triplets")


def check_triplet_file(file: TripletFile, setting: str, *, with_negative: bool = False) -> None:
    """Read the first records of a file.

    Args:
        file: the settings of the file.
        setting: the setting that names the file, for messages.
        with_negative: look for a triplet that has a hard negative.

    Raises:
        ConfigError, RunError: see `read_triplets`; or none of the first records is such a triplet.
    """
    has_pairs = False
    first: LabelledReject | None = None
    for row in islice(read_triplets(file, setting), _LOOK_FOR_ROWS):
        if isinstance(row, LabelledTriplet):
            if row.contradiction is not None or not with_negative:
                return
            has_pairs = True
        else:
            first = first or row
    if has_pairs:
        raise ConfigError(f"{setting}: {file.path} has no triplet with a negative at its beginning")
    found = f"{first.detail} ({first.reason})" if first else "it has no rows"
    raise ConfigError(f"{setting}: {file.path} has no triplet at its beginning: {found}")


def _open(file: TripletFile, setting: str) -> InputFile:
    """Return the file to read; one in a bucket is copied to this machine first."""
    path = local_copy(file.path)
    if not path.is_file():
        raise ConfigError(f"{setting}: no file {file.path}")
    format = format_of(path.name, "auto", "und")
    if isinstance(format, LeftOut) or format not in COLUMNS:
        raise ConfigError(
            f"{setting}: {file.path} is no TSV, CSV, JSONL or Parquet file by the ending of its name; "
            "rename it"
        )
    if not file.header and format not in ("csv", "tsv"):
        raise ConfigError(f"{setting}: header has no effect on {file.path}, a {format} file; remove it")
    bytes_ = path.stat().st_size
    return InputFile(str(path.absolute()), path.name, format, bytes_, "", 0.0, setting=setting)


def _records(source: InputFile, file: TripletFile) -> Iterator[_Record | _Unreadable]:
    """Yield the records of a file of any format."""
    match source.format:
        case "parquet":
            yield from _of_parquet(source, file)
        case "jsonl":
            yield from _of_json(source, file)
        case _:
            yield from _of_separated(source, file)


def _of_separated(source: InputFile, file: TripletFile) -> Iterator[_Record | _Unreadable]:
    with streams.open_stream(source) as stream:
        rows = separated_rows(stream, source, header=file.header)
        first = next(rows, None)
        if first is None or first.fields is None:
            return
        names = first.fields if file.header else [str(number + 1) for number in range(len(first.fields))]
        columns = find_columns(names, file, _place(source, first.line))
        for row in rows:
            if row.fields is not None:
                yield _record(row.line, dict(zip(names, row.fields, strict=True)), columns)
            elif row.reason is not Reason.EMPTY:  # not a blank line
                detail = str(row.detail).partition(": ")[2]
                yield _Unreadable(row.line, row.reason or Reason.MALFORMED, detail)


def _of_json(source: InputFile, file: TripletFile) -> Iterator[_Record | _Unreadable]:
    """Yield the records of a JSON object or array of texts in each line. Objects may differ in their keys."""
    found: dict[tuple[str, ...], Columns] = {}
    with streams.open_stream(source) as stream:
        for line, raw in enumerate(streams.lines(stream), start=1):
            if not raw.strip():
                continue
            text = text_record(raw)
            if text.reason is not None:
                yield _Unreadable(line, text.reason, text.detail or "")
                continue
            try:
                value = json.loads(text.text)
            except (ValueError, RecursionError) as error:
                yield _Unreadable(line, Reason.MALFORMED, f"not JSON in one line: {first_line(error)}")
                continue
            named = _named(value)
            if named is None:
                yield _Unreadable(line, Reason.MALFORMED, "neither a JSON object nor an array of texts")
                continue
            names = tuple(named)
            try:
                in_order = file if isinstance(value, dict) else file.model_copy(update={"header": False})
                columns = found.get(names) or find_columns(names, in_order, _place(source, line))
            except ConfigError as error:
                if not found:
                    raise
                detail = f"other keys than before: {str(error).rpartition(': ')[2]}"
                yield _Unreadable(line, Reason.MALFORMED, detail)
                continue
            found[names] = columns
            yield _record(line, named, columns)


def _place(source: InputFile, line: int) -> str:
    """Return setting, file and line, for messages."""
    return f"{source.setting}: {source.name}, line {line:,}"


def _named(value: object) -> Mapping[str, object] | None:
    """Return the values of a JSON object by key, those of an array by number from 1; None for others."""
    if isinstance(value, list):
        return {str(number): each for number, each in enumerate(value, start=1)}
    return value if isinstance(value, dict) else None


def _of_parquet(source: InputFile, file: TripletFile) -> Iterator[_Record | _Unreadable]:
    with pq.ParquetFile(source.open(), pre_buffer=False) as parquet:
        columns = find_columns(parquet.schema_arrow.names, file, _place(source, 1))
        wanted = [columns.anchor, *columns.positives, *columns.negatives]
        line = 0
        for batch in parquet.iter_batches(columns=wanted, batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                line += 1
                yield _record(line, row, columns)


def _record(line: int, values: Mapping[str, object], columns: Columns) -> _Record | _Unreadable:
    """Return the texts of a row's columns."""
    try:
        anchor, positives, negatives = (
            [text for name in names for text in _texts(name, values[name])]
            for names in ([columns.anchor], columns.positives, columns.negatives)
        )
    except _NotText as error:
        return _Unreadable(line, Reason.MALFORMED, str(error))
    except UnicodeEncodeError:
        return _Unreadable(line, Reason.UNDECODABLE, "bytes that are not UTF-8, or half a surrogate pair")
    return _Record(line, anchor, positives, negatives)


def _texts(name: str, value: object) -> list[str]:
    """Return the normalised texts of a cell: a text or a list of texts. Empty ones are left out.

    Raises:
        _NotText: it is anything else.
        UnicodeEncodeError: a text has no UTF-8 form.
    """
    values = value if isinstance(value, list) else [value]
    texts = []
    for each in values:
        if each is not None and not isinstance(each, str):
            raise _NotText(f"{name} is {type(each).__name__}, not text")
        text = normalise(each or "")
        text.encode()
        texts += [text] if text else []
    return texts


def _triplets(record: _Record, weight: float, place: str) -> Iterator[LabelledTriplet | LabelledReject]:
    """Yield the rows of a record; see `read_triplets`."""
    for kind, texts in (("anchor", record.anchor), ("positive", record.positives)):
        if not texts:
            yield LabelledReject(Reason.EMPTY, f"{place}: no {kind}")
            return
    if len(record.anchor) > 1:
        yield LabelledReject(Reason.MALFORMED, f"{place}: {len(record.anchor)} anchors")
        return
    positives, negatives = record.positives, record.negatives
    num_rows = max(len(positives), len(negatives))
    for number in range(num_rows):
        anchor, positive = record.anchor[0], positives[number % len(positives)]
        negative = negatives[number % len(negatives)] if negatives else None
        row_id = labelled_row_id(anchor, positive, negative)
        triplet = LabelledTriplet(row_id, anchor, positive, negative, weight / num_rows)
        sentences = [text.casefold() for text in (anchor, positive, negative) if text is not None]
        if len(set(sentences)) < len(sentences):
            yield LabelledReject(Reason.SAME_HYPOTHESES, f"{place}: it has one sentence twice", triplet)
        else:
            yield triplet
