"""Search for input files: their paths, their names in the rows, and the state that shows a change."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise, takewhile
from pathlib import Path
from typing import NoReturn

import pyarrow as pa

from multicsr.config import InputConfig, S3Config
from multicsr.errors import ConfigError, RunError
from multicsr.stages.ingest.formats import (
    ARCHIVE,
    CODECS,
    COLUMNS,
    ENDINGS,
    FOLDER,
    HIDDEN,
    LINK,
    MARKER,
    NO_FILE,
    Format,
    LeftOut,
    format_of,
)
from multicsr.storage.manifest import fingerprint

_ESCAPED = re.compile(r"\[([*?[])\]")
"""A character that `glob.escape` protects."""
_SHOWN = 3
"""Number of example names in a message about files that are left out."""


@dataclass(frozen=True)
class InputFile:
    """One file to read."""

    path: str
    """Absolute path, or an s3:// URI that ends with the unescaped key of the object."""
    name: str
    """Path relative to the input path that contains the file, so that rows do not depend on the machine."""
    format: Format
    bytes: int
    state: str
    """Hash that changes with the file and is known without reading it: path, size, times, inode and device of
    a local file; URI, size and ETag of an object."""
    changed_s: float
    """Time of the last change, in seconds since 1970."""
    etag: str = ""
    """ETag of the object from the listing of the bucket; empty for a local file."""
    s3: S3Config | None = None
    """Access to the bucket; None for a local file."""
    setting: str = "input.paths"
    """Setting that names the file, for messages."""

    def open(self) -> pa.NativeFile:
        """Open the file for random access.

        Raises:
            OSError: a local file cannot be read.
            RunError: the bucket cannot be reached, or the object was deleted or replaced after the listing.
        """
        if self.s3 is None:
            return pa.OSFile(os.fsencode(self.path))
        from multicsr.storage.s3 import Bucket

        bucket, _, key = self.path.removeprefix("s3://").partition("/")
        return Bucket(bucket, "", self.s3).open(key, self.etag)

    @property
    def shown(self) -> str:
        """Return the path for messages; bytes that are not UTF-8 are escaped."""
        return _shown(self.path)

    @property
    def place(self) -> str:
        """Return the hash of name and format.

        Together with the digest of the bytes, it decides the records of the file.
        """
        return place_of(self.name, self.format)


PLACE_DIGITS = 16
"""Length of `InputFile.place` in hex digits."""


def place_of(name: str, format: str) -> str:
    """Return the value of `InputFile.place` for a file of this name and format."""
    return fingerprint({"name": name, "format": format})


@dataclass
class FoundFiles:
    """Result of the search for input files."""

    files: list[InputFile] = field(default_factory=list)
    left_out: dict[LeftOut, list[str]] = field(default_factory=dict)
    """Names of the files that are not read, by reason."""

    def leave_out(self, why: LeftOut, name: str) -> None:
        """Record that a file is not read, and the reason."""
        self.left_out.setdefault(why, []).append(name)

    def lines(self) -> Iterator[str]:
        """Yield one line of text for every kind of file that is left out."""
        for why, names in self.left_out.items():
            more = ", ..." if len(names) > _SHOWN else ""
            files = "1 file" if len(names) == 1 else f"{len(names):,} files"
            yield f"left out {files}: {why.kind} ({', '.join(names[:_SHOWN])}{more})"


def find_files(config: InputConfig, s3: S3Config | None = None, language: str = "en") -> FoundFiles:
    """Return all input files, sorted by name, and the files beside them that are not read.

    Args:
        config: settings of the input.
        s3: access to buckets; defaults if None.
        language: language of the corpus; files that end in it are text.

    Raises:
        ConfigError: a path does not exist, a glob or directory has no match, a format is unknown,
            `input.column` is missing, it or `input.header` has no effect, articles would not be split, or
            two files have the same name.
        RunError: a directory or bucket cannot be read.
    """
    found = search(config, s3, language)
    _check_settings(found.files, config)
    memories = [file.shown for file in found.files if file.format == "tmx"]
    if memories and language == "auto":
        raise ConfigError(
            f"ingest.language: {memories[0]} has segments in several languages; name one of them"
        )
    return found


def search(config: InputConfig, s3: S3Config | None = None, language: str = "en") -> FoundFiles:
    """Return what `find_files` returns, without a look at the settings of columns and documents."""
    found = FoundFiles()
    for path in config.paths:
        before = len(found.files)
        try:
            if path.startswith("s3://"):
                _search_bucket(path, config, s3 or S3Config(), language, found)
            else:
                _search_disk(path, config, language, found)
        except OSError as error:
            place = _shown(os.fsdecode(error.filename)) if error.filename else path
            raise RunError(f"input.paths: cannot read {place}: {error.strerror or error}") from error
        if len(found.files) == before:
            _nothing_found(path, found)
    found.files.sort(key=lambda file: file.name)
    for one, other in pairwise(found.files):
        if one.name == other.name:
            raise ConfigError(
                f"input.paths: {one.shown} and {other.shown} would both be called {one.name}; "
                "give a directory above them, or a glob"
            )
    return found


def _nothing_found(path: str, found: FoundFiles) -> NoReturn:
    seen = "".join(f"; {line}" for line in found.lines())
    raise ConfigError(f"input.paths: {path} matches no file of a known format; see input.format{seen}")


def _check_settings(files: Sequence[InputFile], config: InputConfig) -> None:
    tabular = [file for file in files if file.format in COLUMNS]
    if tabular and config.column is None:
        raise ConfigError(
            f"input.column: {tabular[0].shown} is {tabular[0].format}; name the column with the text"
        )
    if config.column is not None and not tabular:
        raise ConfigError(
            f"input.column has no effect on {files[0].format} files; remove it or set input.format"
        )
    if not config.header and not any(file.format in ("csv", "tsv") for file in tabular):
        raise ConfigError(f"input.header has no effect on {files[0].format} files; remove it")
    if config.html != "auto" and all(file.format == "wikipedia" for file in files):
        raise ConfigError("input.html has no effect on wikipedia files, whose markup is wikitext; remove it")
    dumps = [file.shown for file in files if file.format == "wikipedia"]
    if dumps and not config.documents:
        raise ConfigError(f"input.documents: the records of {dumps[0]} are whole articles; set it to true")


def _search_disk(given: str, config: InputConfig, language: str, found: FoundFiles) -> None:
    path = Path(given).expanduser()
    if path.is_file():
        format = format_of(path.name, config.format, language)
        found.files.append(_local_file(path, path.parent, _known(format, path)))
    elif path.is_dir():
        for match in _walk(path, found):
            _add_local(match, path, config, language, found, hide=True)
    elif glob.has_magic(given):
        _search_glob(path, config, language, found)
    elif path.exists() or path.is_symlink():
        raise ConfigError(f"input.paths: {given} is no regular file (a pipe, device or broken link)")
    else:
        raise ConfigError(f"input.paths: no file, directory or glob {given}")


def _search_glob(path: Path, config: InputConfig, language: str, found: FoundFiles) -> None:
    base = _fixed_part(path)
    # A glob that names hidden files explicitly includes them.
    hide = not any(part.startswith((".", "_")) for part in path.relative_to(base).parts)
    base = Path(_ESCAPED.sub(r"\1", str(base)))
    matches = sorted(
        map(Path, glob.glob(str(path), recursive=True)), key=lambda each: (len(each.parts), each)
    )
    seen: set[str] = set()
    for match in matches:
        real = os.path.realpath(match)
        if match.is_dir():
            if "**" not in path.parts:
                found.leave_out(FOLDER, _shown(str(match)))
        elif real in seen:
            found.leave_out(LINK, _shown(str(match)))
        else:
            seen.add(real)
            _add_local(match, base, config, language, found, hide=hide)


def _add_local(
    match: Path, base: Path, config: InputConfig, language: str, found: FoundFiles, *, hide: bool
) -> None:
    relative = match.relative_to(base)
    name = _shown(relative.as_posix())
    format = format_of(match.name, config.format, language)
    if hide and any(part.startswith((".", "_")) for part in relative.parts):
        found.leave_out(HIDDEN, name)
    elif not match.is_file():
        found.leave_out(NO_FILE, name)
    elif isinstance(format, LeftOut):
        found.leave_out(format, name)
    else:
        found.files.append(_local_file(match, base, format))


def _walk(top: Path, found: FoundFiles) -> Iterator[Path]:
    """Yield everything below a directory that is not itself a directory.

    Links to directories outside the tree are followed, each directory once. Hidden directories are left out.
    """
    base = os.path.realpath(top)
    pending, seen = [top], {base}
    while pending:
        folder = pending.pop()
        for entry in sorted(folder.iterdir()):
            if not entry.is_dir():
                yield entry
                continue
            if entry.name.startswith((".", "_")):
                found.leave_out(HIDDEN, _shown(f"{entry.relative_to(top).as_posix()}/"))
                continue
            real = os.path.realpath(entry)
            if real in seen or (entry.is_symlink() and os.path.commonpath([real, base]) in (real, base)):
                found.leave_out(LINK, _shown(entry.relative_to(top).as_posix()))
                continue
            seen.add(real)
            pending.append(entry)


def _search_bucket(given: str, config: InputConfig, s3: S3Config, language: str, found: FoundFiles) -> None:
    """Add the objects under a prefix, or the one object with that key, or the objects that a glob matches."""
    from multicsr.storage.s3 import Bucket

    name, _, key = given.removeprefix("s3://").partition("/")
    bucket = Bucket(name, "", s3)
    prefix = f"{key.removesuffix('/')}/" if key else ""
    infos = list(bucket.objects(prefix))
    is_object = bool(prefix) and not infos
    if is_object:
        infos = [info for info in bucket.objects(key) if info.name == key]
        prefix = key[: key.rfind("/") + 1]
    hide = not is_object
    if not infos and glob.has_magic(key):
        fixed = takewhile(lambda part: not glob.has_magic(part), key.split("/"))
        prefix, is_object = "".join(f"{part}/" for part in fixed), False
        pattern = key.removeprefix(prefix).split("/")
        hide = not any(part.startswith((".", "_")) for part in pattern)
        infos = [
            info
            for info in bucket.objects(prefix)
            if _matches(info.name.removeprefix(prefix).split("/"), pattern)
        ]
    for info in infos:
        relative = info.name.removeprefix(prefix).lstrip("/")
        format = format_of(relative.rpartition("/")[2], config.format, language)
        if info.name.endswith("/"):
            found.leave_out(MARKER, info.name)
        elif hide and any(part.startswith((".", "_")) for part in relative.split("/")):
            found.leave_out(HIDDEN, relative)
        elif isinstance(format, LeftOut) and not is_object:
            found.leave_out(format, relative)
        else:
            uri = f"s3://{name}/{info.name}"
            found.files.append(
                InputFile(
                    path=uri,
                    name=relative,
                    format=_known(format, Path(relative)),
                    bytes=info.bytes,
                    state=fingerprint({"uri": uri, "bytes": info.bytes, "etag": info.etag}),
                    changed_s=info.changed_s,
                    etag=info.etag,
                    s3=s3,
                )
            )


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a glob matches the key of an object; both are split at "/".

    `**` stands for any number of parts, as in `glob.glob`, which reads only local directories.
    """
    if not pattern:
        return not parts
    if pattern[0] == "**" and _matches(parts, pattern[1:]):
        return True
    if not parts or not (pattern[0] == "**" or fnmatchcase(parts[0], pattern[0])):
        return False
    return _matches(parts[1:], pattern if pattern[0] == "**" else pattern[1:])


def _fixed_part(path: Path) -> Path:
    """Return the leading directories of a glob, before the first part that contains a wildcard.

    Characters that `glob.escape` protects are no wildcards.
    """
    parts: list[str] = []
    for part in path.parts[:-1]:
        if glob.has_magic(_ESCAPED.sub("", part)):
            break
        parts.append(part)
    return Path(*parts)


def _known(format: Format | LeftOut, path: Path) -> Format:
    """Return the format of a file that the settings name directly; raise ConfigError if it is not known."""
    if format == ARCHIVE:
        raise ConfigError(f"input.paths: {_shown(str(path))} is an archive; unpack it and name what it holds")
    if isinstance(format, LeftOut):
        endings = ", ".join([*ENDINGS, *CODECS])
        raise ConfigError(
            f"input.format: cannot infer the format of {_shown(str(path))} by its ending "
            f"({endings}, or the code in ingest.language); set it"
        )
    return format


def _local_file(path: Path, base: Path, format: Format) -> InputFile:
    facts = path.stat()
    absolute = str(path.absolute())
    return InputFile(
        path=absolute,
        name=_shown(path.relative_to(base).as_posix()),
        format=format,
        bytes=facts.st_size,
        state=fingerprint({"path": absolute, "facts": [*file_state(facts), facts.st_dev]}),
        changed_s=max(facts.st_mtime, facts.st_ctime),
    )


def file_state(facts: os.stat_result) -> tuple[int, ...]:
    """Return size, times and inode: values that differ after a file was written to or replaced.

    The device is no part of it: that of a network file system has another number on each machine.
    """
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
