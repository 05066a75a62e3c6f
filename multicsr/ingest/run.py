"""The passes of ingest in order, and the room they publish."""

import time
from functools import partial

from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.ingest.duplicates import IdRange, id_ranges
from multicsr.ingest.files import InputFile, find_files
from multicsr.ingest.near_duplicates import comparer, signer
from multicsr.ingest.reading import FileShard, reader
from multicsr.ingest.sharding import sharder
from multicsr.manifest import Manifest, fingerprint, publish
from multicsr.progress import Progress
from multicsr.ray_stage import Pool, map_shards, outcome, reusable
from multicsr.store import SCHEMA_VERSION, Store
from multicsr.tally import ShardReport, Tally

_ROOM = "sentences"


def ingest(config: Config, store: Store, progress: Progress) -> Manifest:
    """Read all input files into the room `sentences`; unchanged files and settings are not read again.

    Raises:
        ConfigError: files, formats or columns are not there as configured.
        RunError: an unreadable file, an empty corpus, too many records rejected.
    """
    started = time.monotonic()
    files = find_files(config.input)
    settings = _settings(config, files)
    folder = f"{_ROOM}/{fingerprint(settings)}"
    if published := reusable(store, _ROOM, fingerprint(settings)):
        progress.start("ingest", published.rows_in, "records")
        progress.advance(published.rows_in)
        progress.finish(f"{outcome(published)}; reused")
        return published
    read = _read(config, store, folder, files, progress)
    num_candidates = sum(report.rows_out for report in read)
    progress.start("ingest", num_candidates)
    tally = Tally("ingest", config.ingest.max_rejected, None)
    for report in read:
        # A record that became a candidate is counted in pass 2, where it ends.
        ended = {"rows_in": report.rows_in - report.rows_out, "rows_out": 0, "rows_digest": "0", "files": []}
        tally.add(report.model_copy(update=ended))
    ranges = id_ranges(num_candidates, config.ingest.rows_per_shard)
    if config.ingest.near_duplicates:
        _find_near_duplicates(config, store, folder, ranges)
    for report in map_shards(
        "ingest", lambda: sharder(config.ingest, store, folder), store, folder, ranges, Pool()
    ):
        tally.add(report)
        num_candidates -= report.rows_in
        progress.advance(report.rows_in)
    if num_candidates:
        raise RunError(f"ingest: {num_candidates:,} candidates of pass 1 did not reach pass 2")
    manifest = tally.manifest(config.name, settings, time.monotonic() - started)
    if manifest.rows_out == 0:
        raise RunError(f"ingest: none of {manifest.rows_in:,} records is usable; see ingest.min_words")
    publish(store, _ROOM, manifest)
    for scratch in ("candidates", "bands", "near"):
        store.delete(f"{folder}/{scratch}")
    progress.finish(outcome(manifest))
    return manifest


def _read(
    config: Config, store: Store, folder: str, files: list[InputFile], progress: Progress
) -> list[ShardReport]:
    progress.start("read", None, "records")
    reports = []
    shards = [FileShard(number, file) for number, file in enumerate(files)]
    for report in map_shards("read", lambda: reader(config, store, folder), store, folder, shards, Pool()):
        reports.append(report)
        progress.advance(report.rows_in)
    num_records = sum(report.rows_in for report in reports)
    if num_records == 0:
        raise RunError(f"ingest: the corpus is empty: no record in {', '.join(config.input.paths)}")
    progress.finish(f"{num_records:,} records in {len(files):,} files")
    return reports


def _find_near_duplicates(config: Config, store: Store, folder: str, ranges: list[IdRange]) -> None:
    for into, make in (("bands", signer), ("near", comparer)):
        for _ in map_shards(
            "near-duplicates",
            partial(make, config.ingest, store, folder),
            store,
            f"{folder}/{into}",
            ranges,
            Pool(),
        ):
            pass


def _settings(config: Config, files: list[InputFile]) -> dict[str, JsonValue]:
    """What decides the rows. A file that was touched is read again; the ids, and what hangs on them, stay."""
    return {
        "schema": SCHEMA_VERSION,
        "column": config.input.column,
        "documents": config.input.documents,
        "files": [[file.name, file.format, file.bytes, file.changed_ns] for file in files],
        **config.ingest.model_dump(mode="json", exclude={"max_rejected"}),
    }
