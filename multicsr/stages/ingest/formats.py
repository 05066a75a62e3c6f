"""Format and compression of a file from its name, or the reason to leave the file out."""

import re
from dataclasses import dataclass
from typing import Literal

from multicsr.language_tags import is_language

Format = Literal["text", "csv", "tsv", "jsonl", "parquet", "tmx", "wikipedia"]
COLUMNS: frozenset[Format] = frozenset({"csv", "tsv", "jsonl", "parquet"})
"""Formats of which `input.column` selects a column."""
ENDINGS: dict[str, Format] = {
    ".txt": "text",
    ".text": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".tmx": "tmx",
    ".xml": "wikipedia",
}
CODECS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zstd": "zstd"}
_ARCHIVES = {".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar"}
_INDEX = "-multistream-index"
"""Part of the name of a wiki dump's table of contents, which otherwise looks like a text file."""
_DUMP_PART = re.compile(r"-p\d+p\d+$")
"""Suffix after `.xml` in the dump of a large wiki: the range of pages in one of its many files."""
_HADOOP_PART = re.compile(r"part-(?:[mr]-)?\d{5}")
"""Name of a part of a text file, written by Hadoop or Spark without an ending."""


@dataclass(frozen=True)
class LeftOut:
    """A kind of file that is not read, and, where there is one, the remedy."""

    kind: str


HIDDEN = LeftOut("hidden or temporary, as their names begin with . or _")
UNKNOWN = LeftOut("of no known ending; see input.format")
ARCHIVE = LeftOut("archives; unpack them")
INDEX = LeftOut("tables of contents of wiki dumps")
NO_FILE = LeftOut("no regular files: pipes, sockets, devices or broken links")
FOLDER = LeftOut("folders that the glob matches; end it in /** to read what they hold")
LINK = LeftOut("links to what is read anyway")
MARKER = LeftOut("markers of folders")


def codec_of(name: str) -> str | None:
    """Return the compression that a file's ending names, in upper or lower case; None if there is none."""
    return CODECS.get(_ending(name))


def format_of(name: str, configured: Format | Literal["auto"], language: str) -> Format | LeftOut:
    """Return the format of a file, or the reason to leave it out; endings are case-insensitive.

    Args:
        name: name of the file, without its directory.
        configured: `input.format`.
        language: language of the corpus; a file that ends in it, such as `TED2020.en-tl.tl`, is text.
    """
    plain = name[: -len(_ending(name))] if codec_of(name) else name
    ending = _ending(plain)
    if ending in _ARCHIVES:
        return ARCHIVE
    if configured != "auto":
        return configured
    if _INDEX in name:
        return INDEX
    if not ending and _HADOOP_PART.fullmatch(plain):
        return "text"
    format = ENDINGS.get(_DUMP_PART.sub("", ending), UNKNOWN)
    return "text" if format == UNKNOWN and is_language(ending[1:], language) else format


def _ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return f".{ending.lower()}" if dot and stem else ""
