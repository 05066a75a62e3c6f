"""Format and compression of a file from its name, or the reason to leave the file out."""

import re
from dataclasses import dataclass
from typing import Literal

Format = Literal["text", "csv", "tsv", "jsonl", "parquet", "wikipedia"]
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


def format_of(name: str, configured: Format | Literal["auto"]) -> Format | LeftOut:
    """Return the format of a file, or the reason to leave it out; endings are case-insensitive."""
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
    return ENDINGS.get(_DUMP_PART.sub("", ending), UNKNOWN)


def _ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return f".{ending.lower()}" if dot and stem else ""
