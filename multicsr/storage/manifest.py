"""The manifest of an artifact. It is written last and makes the artifact complete.

Readers see only files that a manifest names.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import JsonValue, TypeAdapter

from multicsr import __version__
from multicsr.artifacts import FileRecord
from multicsr.storage.id_numbers import id_words
from multicsr.storage.store import FileEntry, Store

GENERATION = "generation"
"""Key of the setting that changes the name of an artifact but not its content."""
NO_ROWS = "0" * 32
"""Digest (`rows_digest`) of no rows."""


class Provenance(FileRecord):
    """The part of a manifest that states how and when an artifact was made."""

    stage: str
    run: str
    """`name` in the configuration."""
    fingerprint: str
    """Hash of everything that decides the content of the artifact."""
    code_version: str
    settings: dict[str, JsonValue]
    """The values that the fingerprint was computed from."""
    notes: list[str] = []
    """Remarks for readers, one line each, such as why a prompt set was chosen; no part of the fingerprint."""
    created: str
    """Time of creation, ISO 8601 in UTC."""
    seconds: float
    """Wall time of the run that completed it, in seconds."""


class Contents(FileRecord):
    """The files of an artifact or of one of its shards, and counts of all rows."""

    rows_in: int = 0
    rows_out: int = 0
    rejected: dict[str, int] = {}
    """Number of rejects by reason; rows_in = rows_out + the sum of these numbers."""
    rows_digest: str = NO_ROWS
    """Result of `rows_digest()` for the rows that came out."""
    files: list[FileEntry] = []
    reject_files: list[FileEntry] = []
    counters: dict[str, float] = {}
    """Other counts, summed over shards, such as tokens and seconds of the stage's parts."""


# Pydantic takes the last base class first: in the JSON the fields of Provenance come first.
class Manifest(Contents, Provenance):
    """The record of a stage's output: what made it, and what lies in it."""


_manifest = TypeAdapter(Manifest)


def write_manifest(store: Store, artifact: str, manifest: Manifest) -> None:
    """Write the manifest, which completes the artifact; all files that it names must exist before.

    Raises:
        RunError: the job that makes the artifact has lost its lease.
    """
    store.check_lease()
    store.write_json(manifest_name(artifact, manifest.fingerprint), manifest)


def read_manifest(store: Store, artifact: str, fingerprint: str) -> Manifest:
    """Return the manifest of an artifact.

    Raises:
        DamagedFileError: the manifest is damaged, or there is no such artifact (MissingFileError).
        SchemaError: another version of the package wrote it.
    """
    name = manifest_name(artifact, fingerprint)
    remedy = "; `multicsr run CONFIG` makes it again"
    return store.read_json(name, _manifest, remedy, remedy)


def manifest_name(artifact: str, fingerprint: str) -> str:
    """Return the name in the store of an artifact's manifest."""
    return f"{artifact}/{fingerprint}/manifest.json"


def iter_tables(store: Store, manifest: Manifest, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of an artifact, one table for each file.

    Args:
        columns: names of the columns to read; None: all.
    """
    for entry in manifest.files:
        yield store.read_table(entry, columns)


def iter_rejects(
    store: Store, manifest: Manifest, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yield the rejects of an artifact, one table for each file.

    Args:
        columns: names of the columns to read; None: all.
    """
    for entry in manifest.reject_files:
        yield store.read_table(entry, columns)


def rows_digest(row_ids: pa.ChunkedArray) -> str:
    """Return the sum of the ids, read as 128-bit numbers, modulo 2^128, as 32 hex digits.

    The digest does not depend on the order of rows, and `add_digests` combines those of parts.
    """
    words_N2 = id_words(row_ids)
    halves = (words_N2 >> np.uint64(32), words_N2 & np.uint64(2**32 - 1))  # whose sums fit into 64 bits
    upper, lower = (half_N2.sum(axis=0, dtype=np.uint64).tolist() for half_N2 in halves)
    total = 0
    for word in (upper[0], lower[0], upper[1], lower[1]):
        total = (total << 32) + int(word)
    return f"{total % 2**128:032x}"


def add_digests(digests: Sequence[str]) -> str:
    """Return the digest of the union of several sets of rows, given the digest of each."""
    return f"{sum(int(digest, 16) for digest in digests) % 2**128:032x}"


def fingerprint(settings: Mapping[str, JsonValue]) -> str:
    """Return 16 hex digits that change when any setting changes, followed by the generation if there is one.

    An artifact that is made again after gc deleted it has another generation and the same digits
    (`collected.py`).
    """
    base = {name: value for name, value in settings.items() if name != GENERATION}
    canonical = json.dumps(base, sort_keys=True, ensure_ascii=True)
    digest = hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()
    return f"{digest}-{settings[GENERATION]}" if GENERATION in settings else digest


def base_fingerprint(fingerprint: str) -> str:
    """Return a fingerprint without its generation, so that it depends only on what decides the content."""
    return fingerprint.partition("-")[0]


def code_version() -> str:
    """Return the version of the package, with the git commit if it runs from a checkout."""
    checkout = Path(str(files("multicsr"))).resolve().parent
    if not (checkout / ".git").exists():
        return __version__
    try:
        commit = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return __version__
    return f"{__version__}+g{commit}"


def now() -> str:
    """Return the current time for a manifest, ISO 8601 in UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
