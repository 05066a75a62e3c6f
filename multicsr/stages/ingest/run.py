"""The passes of ingest in order, and the artifact that they make."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePosixPath

from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.execution.materialise import Artifact, complete, reuse
from multicsr.execution.pool import Pool, map_items
from multicsr.execution.shard_report import ShardReport, StageTotals
from multicsr.execution.stage_runner import finished, map_shards
from multicsr.messages.terminal import one_line
from multicsr.observability.progress import Progress
from multicsr.stages.ingest.digests import keep_digests, known_digests
from multicsr.stages.ingest.duplicates import RANGE_ROWS, IdRange, id_ranges
from multicsr.stages.ingest.file_parts import cut_file, has_parts
from multicsr.stages.ingest.files import InputFile, find_files, place_of
from multicsr.stages.ingest.filters import FILTERS_VERSION
from multicsr.stages.ingest.findings import summary
from multicsr.stages.ingest.html_text import HTML_VERSION
from multicsr.stages.ingest.language_detection import IDENTIFIER_VERSION, LANGUAGE_FILTER_VERSION
from multicsr.stages.ingest.near_duplicates import NEAR_DUPLICATES_VERSION, comparer, signer
from multicsr.stages.ingest.readers import READERS_VERSION
from multicsr.stages.ingest.reading import (
    PART_ROWS,
    FileShard,
    file_identity,
    join_parts,
    reader,
    split_identity,
)
from multicsr.stages.ingest.redaction import REDACTION_VERSION
from multicsr.stages.ingest.sharding import sharder
from multicsr.storage.collected import unused
from multicsr.storage.manifest import NO_ROWS, Contents, Manifest, fingerprint
from multicsr.storage.store import SCHEMA_VERSION, FileEntry, Store

_log = logging.getLogger(__name__)
_ARTIFACT = "sentences"
_IF_SET = {"redact", "languages"}
"""Settings that are part of the fingerprint only where they differ from their default."""


def ingest(config: Config, store: Store, progress: Progress) -> Manifest:
    """Convert all input files to an artifact `sentences`; unchanged files are not read again.

    Returns:
        The manifest of the artifact, new or reused.

    Raises:
        ConfigError: the configured files, formats or columns do not exist.
        RunError: a file is unreadable, the corpus is empty, or too many records are rejected.
    """
    started_s = time.monotonic()
    found = find_files(config.input, config.s3, config.ingest.language)
    for line in found.lines():
        _log.warning("input.paths: %s", one_line(line))
    files = found.files
    digests = known_digests(store, files)
    if made := _made(config, store, files, digests, progress):
        return made
    looked_for = dict(digests)
    read = _read(config, store, files, digests, progress)
    keep_digests(store, files, digests)
    artifact = replace(_artifact(config, store, files, digests), started_s=started_s)
    if digests != looked_for and (made := reuse(artifact, progress)):
        return made
    return complete(artifact, _contents(config, artifact, read, progress), progress)


def _artifact(
    config: Config, store: Store, files: Sequence[InputFile], digests: Mapping[str, str]
) -> Artifact:
    """Return the artifact of input files whose digests are all known."""
    settings = unused(store, _settings(config, files, digests))
    return Artifact(store, "ingest", _ARTIFACT, config.name, settings, unit="records", summarise=summary)


def _contents(
    config: Config, artifact: Artifact, read: Sequence[ShardReport], progress: Progress
) -> Contents:
    """Do pass 2 and return the contents of the artifact.

    Raises:
        RunError: see `ingest`.
    """
    read = _with_own_rejects(artifact.store, artifact.folder, read)
    totals = StageTotals("ingest", config.ingest.max_rejected, None)
    for report in read:
        # A record that became a candidate is counted in pass 2, which accepts or rejects it.
        num_ended = report.rows_in - report.rows_out
        ended = {"rows_in": num_ended, "rows_out": 0, "rows_digest": NO_ROWS, "files": []}
        totals.add(report.model_copy(update=ended))
    _shard(config, artifact.store, artifact.folder, read, totals, progress)
    contents = totals.contents()
    if contents.rows_out == 0:
        raise RunError(f"ingest: none of {contents.rows_in:,} records is usable; see ingest.min_words")
    return contents


def _made(
    config: Config, store: Store, files: Sequence[InputFile], digests: Mapping[str, str], progress: Progress
) -> Manifest | None:
    """Return the manifest of an artifact made from the same bytes before; None while a digest is unknown."""
    if len(digests) < len(files):
        return None
    return reuse(_artifact(config, store, files, digests), progress)


def _read(
    config: Config, store: Store, files: list[InputFile], digests: dict[str, str], progress: Progress
) -> list[ShardReport]:
    """Do pass 1, and set each digest in `digests` to that of the bytes that were read."""
    progress.start("read", None, "records")
    reports = []
    parts: dict[str, list[ShardReport]] = {}
    folder = f"records/{fingerprint(reading_settings(config))}"
    shards = _shards_of(config, store, folder, files, digests)
    paths = {file.place: file.path for file in files}
    for report in map_shards("read", lambda: reader(config, store, folder), store, folder, shards, Pool()):
        identity, _, part = report.key.partition("-")
        place, digest = split_identity(identity)
        digests[paths[place]] = digest
        if part:
            parts.setdefault(identity, []).append(report)
        else:
            reports.append(report)
        progress.advance(report.rows_in)
    reports += [join_parts(store, folder, identity, found) for identity, found in parts.items()]
    num_records = sum(report.rows_in for report in reports)
    if num_records == 0:
        raise RunError(f"ingest: the corpus is empty: no record in {', '.join(config.input.paths)}")
    progress.finish(f"{num_records:,} records in {len(files):,} file{'s' if len(files) > 1 else ''}")
    return reports


def _shards_of(
    config: Config, store: Store, folder: str, files: Sequence[InputFile], digests: Mapping[str, str]
) -> list[FileShard]:
    """Return the shards of pass 1: parts of large files that were not read before, and all other files."""
    shards = {file.path: [FileShard(file, digests.get(file.path))] for file in files}
    large = [
        shard
        for file in files
        if has_parts(file) and not config.input.documents
        for shard in shards[file.path]
    ]
    done = {report.key for report in finished(store, folder)} if large else set()
    large = [shard for shard in large if shard.key not in done]

    def cut(shard: FileShard) -> list[FileShard]:
        parts = cut_file(shard.file, PART_ROWS)
        return [replace(shard, digest=part.unchanged.digest, part=part) for part in parts]

    for parts in map_items("read", lambda: cut, large, Pool()):
        if parts:
            first = parts[0]
            shards[first.file.path] = [replace(first, part=None)] if first.identity in done else parts
    return [shard for found in shards.values() for shard in found]


def _with_own_rejects(store: Store, folder: str, read: Sequence[ShardReport]) -> list[ShardReport]:
    """Copy the rejects of pass 1 into the artifact: no version may depend on `records/`, which is a cache."""

    def copy(entry: FileEntry) -> FileEntry:
        path = f"{folder}/rejects/{PurePosixPath(entry.path).name}"
        store.write_bytes(path, store.read_verified(entry))
        return entry.model_copy(update={"path": path})

    with ThreadPoolExecutor(max_workers=16) as threads:
        return [
            report.model_copy(update={"reject_files": list(threads.map(copy, report.reject_files))})
            for report in read
        ]


def _shard(
    config: Config,
    store: Store,
    folder: str,
    read: Sequence[ShardReport],
    totals: StageTotals,
    progress: Progress,
) -> None:
    """Do pass 2, after the search for near-duplicates if it is configured."""
    num_candidates = sum(report.rows_out for report in read)
    candidates = sorted((entry for report in read for entry in report.files), key=lambda entry: entry.path)
    progress.start("ingest", num_candidates)
    near: list[FileEntry] = []
    if config.ingest.near_duplicates:
        near = _find_near_duplicates(config, store, folder, candidates, num_candidates)
    for report in map_shards(
        "ingest",
        lambda: sharder(config.ingest, store, folder, candidates, near),
        store,
        folder,
        id_ranges(num_candidates, config.ingest.rows_per_file),
        Pool(),
    ):
        totals.add(report)
        num_candidates -= report.rows_in
        progress.advance(report.rows_in)
    if num_candidates:
        raise RunError(f"ingest: {num_candidates:,} candidates of pass 1 did not reach pass 2")
    for scratch in ("bands", "near"):
        store.delete(f"{folder}/{scratch}")


def _find_near_duplicates(
    config: Config, store: Store, folder: str, candidates: list[FileEntry], num_candidates: int
) -> list[FileEntry]:
    """Return the files with the near-duplicates."""
    ranges = id_ranges(num_candidates, min(config.ingest.rows_per_file, RANGE_ROWS))

    def run(into: str, make: Callable[[], Callable[[IdRange], ShardReport]]) -> list[FileEntry]:
        reports = map_shards("near-duplicates", make, store, f"{folder}/{into}", ranges, Pool())
        entries = [entry for report in reports for entry in report.files]
        return sorted(entries, key=lambda entry: entry.path)

    bands = run("bands", lambda: signer(config.ingest, store, folder, candidates))
    return run("near", lambda: comparer(config.ingest, store, folder, bands))


def reading_settings(config: Config) -> dict[str, JsonValue]:
    """Return the settings and versions that decide how a file is read."""
    one_record = {"language", "min_words", "max_words"}
    parsers = ("sentencex", "mwparserfromhell") if config.input.documents else ()
    rules: dict[str, JsonValue] = {
        "readers": READERS_VERSION,
        "filters": FILTERS_VERSION,
        **_installed(parsers),
    }
    if config.input.html is not False:
        rules["html"] = HTML_VERSION
    if config.ingest.redact:
        rules["redaction"] = REDACTION_VERSION
    return {
        "schema": SCHEMA_VERSION,
        "rules": rules,
        "column": config.input.column,
        "header": config.input.header,
        "documents": config.input.documents,
        **config.input.model_dump(mode="json", include={"html"}, exclude_defaults=True),
        **config.ingest.model_dump(mode="json", include=one_record),
        **config.ingest.model_dump(mode="json", include={"redact"}, exclude_defaults=True),
    }


def _installed(packages: Sequence[str]) -> dict[str, JsonValue]:
    """Return the versions of packages that decide rows; None for a package that is not installed."""
    versions: dict[str, JsonValue] = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def identities(sentences: Manifest) -> Iterator[str]:
    """Yield the identities of the input files of an artifact `sentences`; nothing for other artifacts."""
    files = sentences.settings.get("files") if sentences.stage == "ingest" else None
    for facts in files if isinstance(files, list) else ():
        name, format, digest = map(str, facts if isinstance(facts, list) else ())
        yield file_identity(place_of(name, format), digest)


def _settings(config: Config, files: Sequence[InputFile], digests: Mapping[str, str]) -> dict[str, JsonValue]:
    """Return everything that decides the rows; of a file its name, format and bytes, but not its times."""
    rules: dict[str, JsonValue] = {}
    if config.ingest.language_filter:
        rules["language_filter"] = {
            "rules": LANGUAGE_FILTER_VERSION,
            **_installed(["lingua-language-detector"]),
        }
    if config.ingest.language == "auto":
        rules["languages"] = {"rules": IDENTIFIER_VERSION, **_installed(["lingua-language-detector"])}
    if config.ingest.near_duplicates:
        rules["near_duplicates"] = {"rules": NEAR_DUPLICATES_VERSION, **_installed(["datasketch"])}
    return {
        **config.ingest.model_dump(mode="json", exclude={"max_rejected", *_IF_SET}),
        **config.ingest.model_dump(mode="json", include=_IF_SET, exclude_defaults=True),
        **reading_settings(config),
        "records": fingerprint(reading_settings(config)),
        "versions": rules,
        "files": [[file.name, file.format, digests[file.path]] for file in files],
    }
