"""Records of a file, many at a time: bytes where the format has nothing to parse, else what a parser made.

Both forms offer the bytes of all texts, among which plain ones are recognised (`plain_text.py`), and make
records of the others.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from multicsr.config import Config
from multicsr.stages.ingest.file_parts import FilePart
from multicsr.stages.ingest.files import InputFile
from multicsr.stages.ingest.filters import sentence_splitter
from multicsr.stages.ingest.html_text import plain_texts
from multicsr.stages.ingest.plain_text import MAX_PLAIN_BYTES
from multicsr.stages.ingest.readers import BYTE_FORMATS, read_records, read_texts, record_of
from multicsr.stages.ingest.record import Placed

CHUNK_ROWS = 50_000
"""Number of records that are converted at once; those of one more block of a file may wait in memory."""


@dataclass(frozen=True)
class TextChunk:
    """Consecutive records that are bytes."""

    first: int
    """Number of the first one in the file."""
    texts: list[bytes | None]
    column: str | None

    @property
    def positions_N(self) -> NDArray[np.int64]:
        """Return the number of each record in the file."""
        return np.arange(self.first, self.first + len(self.texts))

    def raw(self) -> list[bytes]:
        """Return the text of each record; empty if there is none."""
        return [text or b"" for text in self.texts]

    def placed(self, rows: Iterable[int]) -> Iterator[Placed]:
        """Yield the records with some indices."""
        return (Placed(self.first + row, record_of(self.texts[row], self.column)) for row in rows)


@dataclass(frozen=True)
class RecordChunk:
    """Consecutive records that a parser made, or sentences of documents."""

    records: Sequence[Placed]

    @property
    def positions_N(self) -> NDArray[np.int64]:
        """Return the number of each record in the file; that of the document for its sentences."""
        return np.array([position for position, _ in self.records], np.int64)

    def raw(self) -> list[bytes]:
        """Return the text of each record in UTF-8; empty if it is rejected, or too long to be plain."""
        return [
            record.text.encode("utf-8", "surrogatepass")
            if record.reason is None and len(record.text) <= MAX_PLAIN_BYTES
            else b""
            for _, record in self.records
        ]

    def placed(self, rows: Iterable[int]) -> Iterator[Placed]:
        """Yield the records with some indices."""
        return (self.records[row] for row in rows)


def read_in_chunks(
    config: Config, file: InputFile, part: FilePart | None = None, most: int | None = None
) -> Iterator[TextChunk | RecordChunk]:
    """Yield the records of a file or of a part of it, `CHUNK_ROWS` at a time.

    Args:
        config: the configuration of the run.
        file: the file to read.
        part: a part of a file of lines; None: the whole file.
        most: maximum number of records, or of sentences of documents; None: all.
    """
    column = config.input.column
    if file.format in BYTE_FORMATS and not config.input.documents:
        first = 0 if part is None else part.first
        for texts in _in_chunks(read_texts(file, column, part), most):
            yield TextChunk(first, texts, column)
            first += len(texts)
        return
    placed = islice(_sentences(config, file) if config.input.documents else _records(config, file), most)
    while records := list(islice(placed, CHUNK_ROWS)):
        yield RecordChunk(records)


def _records(config: Config, file: InputFile) -> Iterator[Placed]:
    given = config.input
    records = read_records(file, given.column, header=given.header, language=config.ingest.language)
    return map(Placed._make, enumerate(records))


def _sentences(config: Config, file: InputFile) -> Iterator[Placed]:
    """Yield the sentences of documents, whose markup is converted before they are split."""
    split = sentence_splitter(config.ingest.language)
    documents = _records(config, file)
    if has_html(config, file):
        documents = plain_texts(documents, always=config.input.html is True)
    return (Placed(position, part) for position, document in documents for part in split(document))


def has_html(config: Config, file: InputFile) -> bool:
    """Return whether markup is looked for in a file; articles of a wiki are text already."""
    return config.input.html is not False and file.format != "wikipedia"


def _in_chunks(lists: Iterable[Sequence[bytes | None]], most: int | None) -> Iterator[list[bytes | None]]:
    """Yield the texts of all lists, `CHUNK_ROWS` at a time, until there were `most`."""
    waiting: list[bytes | None] = []
    left = most
    for texts in lists:
        waiting += texts if left is None else texts[:left]
        left = None if left is None else left - len(texts)
        while len(waiting) >= CHUNK_ROWS:
            yield waiting[:CHUNK_ROWS]
            del waiting[:CHUNK_ROWS]
        if left is not None and left <= 0:
            break
    if waiting:
        yield waiting
