"""What makes a room complete: its manifest, written last. Readers see only files that a manifest names."""

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter

from multicsr import __version__
from multicsr.store import FileEntry, Store


class Manifest(BaseModel):
    """What a stage made, from what, and where every row went."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    stage: str
    run: str
    """`name` of the configuration."""
    fingerprint: str
    """Hash of everything that decides the content."""
    code_version: str
    settings: dict[str, JsonValue]
    """What the fingerprint was made from."""
    created: str
    """ISO 8601, UTC."""
    seconds: float
    """Wall time of the run that completed it."""
    rows_in: int
    rows_out: int
    rejected: dict[str, int]
    """Rows by reason; rows_in = rows_out + their sum."""
    rows_digest: str
    """`rows_digest` of the rows that came out."""
    files: list[FileEntry]
    reject_files: list[FileEntry]
    counters: dict[str, float]
    """What else the stage counted, summed over shards: tokens, seconds of its parts."""


_manifest = TypeAdapter(Manifest)


def new_manifest(
    stage: str,
    run: str,
    settings: Mapping[str, JsonValue],
    seconds: float,
    *,
    rows_digest: str,
    files: list[FileEntry],
    counters: dict[str, float],
    rows_in: int = 0,
    rows_out: int = 0,
    rejected: dict[str, int] | None = None,
    reject_files: Sequence[FileEntry] = (),
) -> Manifest:
    """Of what was just made; the arguments are the fields, those without rows need not name them."""
    return Manifest(
        stage=stage,
        run=run,
        fingerprint=fingerprint(settings),
        code_version=code_version(),
        settings=dict(settings),
        created=now(),
        seconds=seconds,
        rows_in=rows_in,
        rows_out=rows_out,
        rejected=rejected or {},
        rows_digest=rows_digest,
        files=files,
        reject_files=[*reject_files],
        counters=counters,
    )


def write_manifest(store: Store, room: str, manifest: Manifest) -> None:
    """Mark the room as complete; everything that the manifest names must be written before."""
    text = manifest.model_dump_json(indent=1) + "\n"
    store.write_text(manifest_name(room, manifest.fingerprint), text)


def read_manifest(store: Store, room: str, fingerprint: str) -> Manifest:
    """Raises RunError when the room is not there or its manifest is damaged."""
    name = manifest_name(room, fingerprint)
    return store.read_json(name, _manifest, "; delete it and run the stage again")


def manifest_name(room: str, fingerprint: str) -> str:
    """Where a room's manifest lies in its store."""
    return f"{room}/{fingerprint}/manifest.json"


def iter_tables(store: Store, manifest: Manifest, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a room, one file at a time."""
    for entry in manifest.files:
        yield store.read_table(entry.path, columns)


def iter_rejects(
    store: Store, manifest: Manifest, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The rows a room refused, one file at a time."""
    for entry in manifest.reject_files:
        yield store.read_table(entry.path, columns)


def rows_digest(row_ids: pa.ChunkedArray) -> str:
    """Sum of the ids as numbers, modulo 2^128, hex: independent of order, and digests of parts add up."""
    digits = "".join(row_ids.to_pylist())
    words_N4 = np.frombuffer(bytes.fromhex(digits), dtype=">u4").reshape(-1, 4)
    high_to_low = words_N4.sum(axis=0, dtype=np.uint64).tolist()
    total = 0
    for word in high_to_low:
        total = (total << 32) + int(word)
    return f"{total % 2**128:032x}"


def add_digests(digests: Sequence[str]) -> str:
    """The digest of all the rows of several digests."""
    return f"{sum(int(digest, 16) for digest in digests) % 2**128:032x}"


def fingerprint(settings: Mapping[str, JsonValue]) -> str:
    """16 hex digits that change when any setting changes."""
    canonical = json.dumps(settings, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def code_version() -> str:
    """Version of the package, with the commit when it runs from a checkout."""
    checkout = Path(__file__).resolve().parents[1]
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
    """The time of day for a manifest."""
    return datetime.now(UTC).isoformat(timespec="seconds")
