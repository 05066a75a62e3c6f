"""The column of a corpus that holds the text, and whether its files begin with the names of columns."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from multicsr.errors import ConfigError
from multicsr.stages.ingest.files import InputFile
from multicsr.stages.ingest.formats import COLUMNS
from multicsr.stages.ingest.readers import column_names, read_records
from multicsr.stages.ingest.words import count_words

RECORDS = 1_000
"""Records that are read of a corpus, for each column."""
_LEAST_WORDS = 3
"""Words of a value below which it is a name, a code or a category rather than a sentence."""
_LEAST_LETTERS = 0.6
"""Share of letters, vowel signs and blanks in a sentence; URLs and numbers have less."""
_MOST_IN_NAME = 4
"""Words that the name of a column has at most."""
_ENDS = ".!?\u3002\uff01\uff1f"
"""Ends of sentences, those of East Asian scripts too."""
_NUMBER = re.compile(r"[-+]?[\d.,:/ -]*\d[\d.,:/ %-]*")


@dataclass(frozen=True)
class Column:
    """A column of a corpus, as far as it was read."""

    name: str | None
    """Its name, or its number without a header; None for a format without columns."""
    texts: list[str]
    """Its values that are text."""

    @property
    def size(self) -> tuple[int, int]:
        """Return how much text it holds: words in sentences, then characters."""
        return self.num_words, sum(map(len, self.texts))

    @property
    def has_words(self) -> bool:
        """Return True if a value has a letter: numbers alone are no text."""
        return any(map(str.isalpha, "".join(self.texts)))

    @property
    def num_words(self) -> int:
        """Return the number of words in its sentences; a value that occurs often counts once."""
        return sum(count_words(text) for text in {*self.texts} if _is_sentence(text))


@dataclass(frozen=True)
class Table:
    """Columns of a corpus."""

    header: bool
    """True if CSV and TSV files begin with the names of columns."""
    columns: list[Column]
    """All columns, the one with the most words in sentences first."""


def read_columns(files: Sequence[InputFile], language: str) -> Table:
    """Read the first records of some files, column by column.

    Args:
        files: files of a corpus, of which the first with columns decides their names.
        language: the language to read from a TMX file.

    Raises:
        ConfigError: no column holds text, or the files have no columns in common.
        RunError: a file cannot be read.
    """
    tabular = [file for file in files if file.format in COLUMNS]
    if not tabular:
        return Table(True, [Column(None, _texts(files, None, language, header=True))])
    names = column_names(tabular[0])
    header = tabular[0].format not in ("csv", "tsv") or has_header(names)
    if not header:
        names = [str(number) for number in range(1, len(names) + 1)]
    columns = [Column(name, _texts(files, name, language, header=header)) for name in names]
    columns = sorted((each for each in columns if each.texts), key=lambda each: each.size, reverse=True)
    if not columns or not columns[0].has_words:
        raise ConfigError(_without_text(tabular[0], names))
    return Table(header, columns)


def _without_text(file: InputFile, names: Sequence[str]) -> str:
    """Return the error for a file of which no column holds text that can be read."""
    remedy = "each record is an object with a text, and the text is UTF-8"
    if file.format in ("csv", "tsv"):
        separator = "commas" if file.format == "csv" else "tabs"
        remedy = f"fields are separated by {separator}, and the text is UTF-8 (iconv converts it)"
    shown = f"it has {', '.join(names)}" if names else "it has none"
    return f"--input: no column of {file.shown} holds text that can be read; {shown}. See that {remedy}"


def has_header(first: Sequence[str]) -> bool:
    """Return True if the fields of a first line look like names: short, different, and no numbers."""
    names = [field.strip() for field in first]
    return len({*names}) == len(names) and all(map(_is_name, names))


def _is_name(field: str) -> bool:
    return (
        bool(field)
        and not _NUMBER.fullmatch(field)
        and count_words(field) <= _MOST_IN_NAME
        and field[-1] not in _ENDS
        and len(field) <= 40
    )


def _is_sentence(text: str) -> bool:
    letters = sum(unicodedata.category(character)[0] in "LMZ" for character in text)
    return count_words(text) >= _LEAST_WORDS and letters >= _LEAST_LETTERS * len(text)


def _texts(files: Sequence[InputFile], column: str | None, language: str, *, header: bool) -> list[str]:
    """Return the texts of a column in the first records of each file; none if it holds none."""
    return list(_read(files, column, language, header=header))


def _read(files: Sequence[InputFile], column: str | None, language: str, *, header: bool) -> Iterator[str]:
    for file in files:
        records = read_records(file, column, header=header, language=language)
        try:
            for record in islice(records, max(1, RECORDS // len(files))):
                if record.reason is None and record.text.strip():
                    yield record.text
        except ConfigError:
            if column is None:
                raise
            continue  # a file without this column, or whose column holds something else
