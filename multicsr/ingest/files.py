"""Which files are read, what each is called in its rows, and what format it has."""

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import JsonValue

from multicsr.config import InputConfig, S3Config
from multicsr.errors import ConfigError
from multicsr.manifest import fingerprint
from multicsr.store import Store

Format = Literal["text", "csv", "tsv", "jsonl", "parquet", "wikipedia"]
_ENDINGS: dict[str, Format] = {
    ".txt": "text",
    ".text": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".xml": "wikipedia",
}
_COMPRESSED = (".gz", ".bz2", ".zst")
_INDEX = "-multistream-index"
"""In the name of the table of contents that lies beside the dump of a wiki: it looks like a text file."""
_PART = re.compile(r"-p\d+p\d+$")
"""How the dump of a large wiki goes on after `.xml`: the pages that are in this file of many."""


@dataclass(frozen=True)
class InputFile:
    """One file to read."""

    path: str
    """Absolute, or an s3:// URI."""
    name: str
    """Relative to the input path it was found under, so that rows do not depend on the machine."""
    format: Format
    bytes: int
    changed_ns: int
    """Time of last change, as the file system tells it."""
    s3: S3Config | None = None
    """How the bucket is reached; None: it is a local file."""

    def open(self) -> pa.NativeFile:
        """The bytes, for reading here and there.

        Raises:
            OSError: a local file cannot be read.
            RunError: the bucket cannot be reached, or the file is gone.
        """
        if self.s3 is None:
            return pa.OSFile(self.path)
        store, name = Store.holding(self.path, self.s3)
        return store.files.open(name)

    @property
    def facts(self) -> list[JsonValue]:
        """What changes when the file does."""
        return [self.name, self.format, self.bytes, self.changed_ns]


def file_identity(facts: JsonValue) -> str:
    """A name for a file as it was: `InputFile.facts` hashed."""
    return fingerprint({"file": facts})


def find_files(config: InputConfig, s3: S3Config | None = None) -> list[InputFile]:
    """All input files, sorted by name.

    Args:
        s3: how buckets are reached.

    Raises:
        ConfigError: a path that does not exist, a glob or directory without a match, an unknown format, a
            missing or useless `input.column`, articles that would not be split, two files of the same name.
    """
    found = (
        _in_bucket(path, config, s3 or S3Config()) if path.startswith("s3://") else _expand(path, config)
        for path in config.paths
    )
    files = sorted(chain.from_iterable(found), key=lambda file: file.name)
    for one, other in pairwise(files):
        if one.name == other.name:
            raise ConfigError(
                f"input.paths: {one.path} and {other.path} would both be called {one.name}; "
                "give a directory above them, or a glob"
            )
    _check_settings(files, config)
    return files


def _check_settings(files: Sequence[InputFile], config: InputConfig) -> None:
    tabular = [file for file in files if file.format not in ("text", "wikipedia")]
    if tabular and config.column is None:
        raise ConfigError(
            f"input.column: {tabular[0].path} is {tabular[0].format}; name the column with the text"
        )
    if config.column is not None and not tabular:
        raise ConfigError(
            f"input.column has no effect on {files[0].format} files; remove it or set input.format"
        )
    dumps = [file.path for file in files if file.format == "wikipedia"]
    if dumps and not config.documents:
        raise ConfigError(f"input.documents: the records of {dumps[0]} are whole articles; set it to true")


def _expand(given: str, config: InputConfig) -> Iterator[InputFile]:
    path = Path(given).expanduser()
    if path.is_file():
        yield _file(path, path.parent, _format(path, config) or _unknown(path))
        return
    if path.is_dir():
        base, found = path, sorted(path.rglob("*"))
    elif glob.has_magic(given):
        base = _fixed_part(path)
        found = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    else:
        raise ConfigError(f"input.paths: no file, directory or glob {given}")
    files = [
        _file(match, base, format)
        for match in found
        if match.is_file() and not match.name.startswith(".") and (format := _format(match, config))
    ]
    if not files:
        raise ConfigError(f"input.paths: {given} matches no file of a known format; see input.format")
    yield from files


def _in_bucket(given: str, config: InputConfig, s3: S3Config) -> Iterator[InputFile]:
    """The object of that name, or what lies under the prefix."""
    above, _, name = given.rstrip("/").rpartition("/")
    store, prefix = (Store.open(above, s3), name) if above != "s3:/" else (Store.open(given, s3), "")
    infos = {info.name: info for info in store.infos(prefix)}
    if not infos and prefix:
        infos = {info.name: info for info in store.infos("") if info.name == name}
    base = f"{prefix}/" if prefix and name not in infos else ""
    files = [
        InputFile(
            path=store.uri(info.name),
            name=info.name.removeprefix(base),
            format=format,
            bytes=info.bytes,
            changed_ns=int(info.changed_s * 1e9),
            s3=s3,
        )
        for info in infos.values()
        if (format := _format(Path(info.name), config))
    ]
    if not files:
        raise ConfigError(f"input.paths: {given} holds no object of a known format; see input.format")
    yield from files


def _fixed_part(path: Path) -> Path:
    """The directories before the first with a wildcard in its name."""
    parts: list[str] = []
    for part in path.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _format(path: Path, config: InputConfig) -> Format | None:
    if config.format != "auto":
        return config.format
    if _INDEX in path.name:
        return None
    plain = path.with_suffix("") if path.suffix in _COMPRESSED else path
    return _ENDINGS.get(_PART.sub("", plain.suffix.lower()))


def _unknown(path: Path) -> Format:
    endings: Sequence[str] = [*_ENDINGS, *_COMPRESSED]
    raise ConfigError(
        f"input.format: cannot tell the format of {path} by its ending ({', '.join(endings)}); set it"
    )


def _file(path: Path, base: Path, format: Format) -> InputFile:
    facts = path.stat()
    return InputFile(
        path=str(path.absolute()),
        name=path.relative_to(base).as_posix(),
        format=format,
        bytes=facts.st_size,
        changed_ns=facts.st_mtime_ns,
    )
