"""The ledger: rows that the LLM has done, found by their id and by what caused them.

`ledger/<writing>/<scoring>/<least id>-<greatest id>-<digest>.parquet` holds rows.WRITTEN, sorted by id.
`writing` is a hash of what decides hypotheses, `scoring` of what decides the scores of given ones. A file is
put in one step and never changed, and this commits its rows: a killed job, a grown corpus and a changed
prompt all find what is done in the same way. Names alone tell which files a range of ids needs; the ids
themselves are compared in workers, a range at a time, so that nobody holds those of the corpus.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from multicsr.manifest import Manifest, fingerprint, rows_digest
from multicsr.rows import WRITTEN
from multicsr.store import FileEntry, Span, Store

_FOLDER = "ledger"


def read_ids(store: Store, paths: Iterable[str], span: Span) -> pa.Array:
    """The ids of a span in some files, in no order."""
    columns = [store.read_table(path, ["row_id"], span.rows)["row_id"] for path in paths]
    chunks = [chunk for column in columns for chunk in column.chunks]
    return pa.concat_arrays([pa.array([], pa.string()), *chunks])


@dataclass(frozen=True)
class Source:
    """A file with rows that the LLM has done."""

    path: str
    span: Span
    is_scored: bool
    """Its scores are those that are wanted; otherwise its hypotheses are."""


@dataclass(frozen=True)
class Known:
    """The sources of a span of ids. Pickles, so that a worker can look for itself."""

    span: Span
    sources: tuple[Source, ...]

    def within(self, span: Span) -> "Known":
        """What a part of the span needs."""
        return Known(span, tuple(source for source in self.sources if source.span.meets(span)))

    def done(self, store: Store) -> pa.Array:
        """Ids of the rows that are written and scored."""
        return read_ids(store, (source.path for source in self.sources if source.is_scored), self.span)

    def rows(self, store: Store) -> pa.Table:
        """WRITTEN rows that are written and scored."""
        return self._read(store, is_scored=True)

    def hypotheses(self, store: Store) -> pa.Table:
        """WRITTEN rows whose hypotheses are right and whose scores are not."""
        return self._read(store, is_scored=False)

    def _read(self, store: Store, is_scored: bool) -> pa.Table:
        chosen = [source for source in self.sources if source.is_scored == is_scored]
        tables = [_as_written(store.read_table(source.path, filters=self.span.rows)) for source in chosen]
        return pa.concat_tables([WRITTEN.empty_table(), *tables])


@dataclass(frozen=True)
class Cause:
    """Why a row of the ledger says what it says."""

    writing: str
    scoring: str

    @classmethod
    def of(cls, settings: dict[str, JsonValue]) -> "Cause":
        """Of the settings that a scored room was made with."""
        return cls(*(fingerprint({"settings": settings[name]}) for name in ("writing", "scoring")))

    @property
    def folder(self) -> str:
        """Where the rows are that it alone decided."""
        return f"{_FOLDER}/{self.writing}/{self.scoring}"

    def file(self, row_ids: pa.ChunkedArray) -> str:
        """The file of these rows: the same whoever writes it."""
        ends = pc.min_max(row_ids)
        return f"{self.folder}/{ends['min']}-{ends['max']}-{rows_digest(row_ids)}.parquet"


class Ledger:
    """What is known of a cause: the files under its name, and the scored room of the current version."""

    def __init__(self, store: Store, cause: Cause, scored: Manifest | None) -> None:
        names = store.names(f"{_FOLDER}/{cause.writing}")
        self._sources = [Source(name, _span(name), name.startswith(f"{cause.folder}/")) for name in names]
        theirs = Cause.of(scored.settings) if scored else None
        if scored and theirs and theirs.writing == cause.writing:
            entries = [*scored.files, *scored.reject_files]
            self._sources += _of_room(entries, is_scored=theirs.scoring == cause.scoring)

    def known(self, span: Span) -> Known:
        """Where to look for the rows of a span."""
        return Known(span, tuple(source for source in self._sources if source.span.meets(span)))


def _span(name: str) -> Span:
    first, last, _ = name.rpartition("/")[2].split("-")
    return Span(first, last)


def _of_room(entries: Sequence[FileEntry], is_scored: bool) -> Iterable[Source]:
    return [Source(entry.path, entry.ids, is_scored) for entry in entries if entry.ids]


def _as_written(table: pa.Table) -> pa.Table:
    """Rows of a scored room, its rejects, or the ledger."""
    columns = [
        table[field.name] if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in WRITTEN
    ]
    return pa.table(columns, schema=WRITTEN)
