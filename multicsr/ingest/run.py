"""The passes of ingest in order, and the room they make."""

import time
from collections.abc import Iterator

from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.ingest.duplicates import RANGE_ROWS, id_ranges
from multicsr.ingest.files import InputFile, file_identity, find_files
from multicsr.ingest.near_duplicates import comparer, signer
from multicsr.ingest.reading import FileShard, reader
from multicsr.ingest.sharding import sharder
from multicsr.manifest import Manifest, fingerprint, write_manifest
from multicsr.progress import Progress
from multicsr.ray_stage import Pool, map_shards, outcome, reusable
from multicsr.store import SCHEMA_VERSION, Store
from multicsr.tally import ShardReport, Tally

_ROOM = "sentences"


def ingest(config: Config, store: Store, progress: Progress) -> Manifest:
    """Read all input files into a room `sentences`; what was read before and is unchanged is not read again.

    Raises:
        ConfigError: files, formats or columns are not there as configured.
        RunError: an unreadable file, an empty corpus, too many records rejected.
    """
    started = time.monotonic()
    files = find_files(config.input, config.s3)
    settings = _settings(config, files)
    if made := reusable(store, _ROOM, fingerprint(settings)):
        progress.start("ingest", made.rows_in, "records")
        progress.advance(made.rows_in)
        progress.finish(f"{outcome(made)}; reused")
        return made
    read = _read(config, store, files, progress)
    tally = Tally("ingest", config.ingest.max_rejected, None)
    for report in read:
        # A record that became a candidate is counted in pass 2, where it ends.
        ended = {"rows_in": report.rows_in - report.rows_out, "rows_out": 0, "rows_digest": "0", "files": []}
        tally.add(report.model_copy(update=ended))
    _shard(config, store, f"{_ROOM}/{fingerprint(settings)}", read, tally, progress)
    manifest = tally.manifest(config.name, settings, time.monotonic() - started)
    if manifest.rows_out == 0:
        raise RunError(f"ingest: none of {manifest.rows_in:,} records is usable; see ingest.min_words")
    write_manifest(store, _ROOM, manifest)
    progress.finish(outcome(manifest))
    return manifest


def _read(config: Config, store: Store, files: list[InputFile], progress: Progress) -> list[ShardReport]:
    """Pass 1."""
    progress.start("read", None, "records")
    reports = []
    folder = f"records/{fingerprint(reading_settings(config))}"
    shards = [FileShard(file) for file in files]
    for report in map_shards("read", lambda: reader(config, store, folder), store, folder, shards, Pool()):
        reports.append(report)
        progress.advance(report.rows_in)
    num_records = sum(report.rows_in for report in reports)
    if num_records == 0:
        raise RunError(f"ingest: the corpus is empty: no record in {', '.join(config.input.paths)}")
    progress.finish(f"{num_records:,} records in {len(files):,} files")
    return reports


def _shard(
    config: Config, store: Store, folder: str, read: list[ShardReport], tally: Tally, progress: Progress
) -> None:
    """Pass 2, and what comes before it."""
    num_candidates = sum(report.rows_out for report in read)
    candidates = sorted(entry.path for report in read for entry in report.files)
    progress.start("ingest", num_candidates)
    if config.ingest.near_duplicates:
        _find_near_duplicates(config, store, folder, candidates, num_candidates)
    for report in map_shards(
        "ingest",
        lambda: sharder(config.ingest, store, folder, candidates),
        store,
        folder,
        id_ranges(num_candidates, config.ingest.rows_per_file),
        Pool(),
    ):
        tally.add(report)
        num_candidates -= report.rows_in
        progress.advance(report.rows_in)
    if num_candidates:
        raise RunError(f"ingest: {num_candidates:,} candidates of pass 1 did not reach pass 2")
    for scratch in ("bands", "near"):
        store.delete(f"{folder}/{scratch}")


def _find_near_duplicates(
    config: Config, store: Store, folder: str, candidates: list[str], num_candidates: int
) -> None:
    ranges = id_ranges(num_candidates, min(config.ingest.rows_per_file, RANGE_ROWS))
    steps = {
        "bands": lambda: signer(config.ingest, store, folder, candidates),
        "near": lambda: comparer(config.ingest, store, folder),
    }
    for into, make in steps.items():
        for _ in map_shards("near-duplicates", make, store, f"{folder}/{into}", ranges, Pool()):
            pass


def reading_settings(config: Config) -> dict[str, JsonValue]:
    """What decides how a file is read."""
    one_record = {"language", "min_words", "max_words"}
    return {
        "schema": SCHEMA_VERSION,
        "column": config.input.column,
        "documents": config.input.documents,
        **config.ingest.model_dump(mode="json", include=one_record),
    }


def identities(sentences: Manifest) -> Iterator[str]:
    """Of the files that a room `sentences` was read from; other rooms give none."""
    files = sentences.settings.get("files") if sentences.stage == "ingest" else None
    for facts in files if isinstance(files, list) else ():
        yield file_identity(facts)


def _settings(config: Config, files: list[InputFile]) -> dict[str, JsonValue]:
    """What decides the rows. A file that was touched is read again; the ids, and what hangs on them, stay."""
    return {
        **reading_settings(config),
        **config.ingest.model_dump(mode="json", exclude={"max_rejected"}),
        "records": fingerprint(reading_settings(config)),
        "files": [file.facts for file in files],
    }
