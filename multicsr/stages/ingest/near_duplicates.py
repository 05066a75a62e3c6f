"""Optional step between the passes: the search for near-duplicates of an earlier sentence.

MinHash LSH is computed in two steps, which are as parallel and as bounded in memory as the passes. `signer`
writes every sentence once per band of its signature, under the hash of the band; near-duplicates share at
least one hash with high probability. `comparer` takes a range of hashes and computes the exact Jaccard
similarity of the sentences under the same hash. Neither depends on shards or workers, so the result is a
function of the corpus alone.

Properties for the user: two sentences of exactly the configured similarity are found with a probability of
about 97%, more similar ones almost surely, and no less similar sentence is dropped. In a chain in which each
sentence is similar to the next, the first one is kept, and the last one may be dropped although it is not
similar to the first. Scratch space is 10 to 30 times the size of the corpus.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import pyarrow as pa

from multicsr.config import IngestConfig
from multicsr.errors import ConfigError
from multicsr.execution.shard_report import ShardReport
from multicsr.execution.stage_runner import commit
from multicsr.stages.ingest.duplicates import IdRange, drop_duplicates
from multicsr.stages.ingest.words import WITHOUT_BLANKS
from multicsr.storage.manifest import rows_digest
from multicsr.storage.store import FileEntry, Store

_NUM_HASHES = 128
_WEIGHTS = (0.02, 0.98)
"""Weights of false positives and false negatives in the choice of the bands. A false positive only costs an
exact comparison, a false negative is a near-duplicate that is not found."""
_MAX_LEADERS = 64
"""Maximum number of sentences under one hash that a later one is compared with, so that the time for
boilerplate does not grow with the square of its number of sentences."""
NEAR_DUPLICATES_VERSION = 2
"""Version of the rule for near-duplicates; raise it when the rule changes."""
_WORD = re.compile(f"[{WITHOUT_BLANKS}]|[^\\W_{WITHOUT_BLANKS}]+")
_SIGNED = pa.schema(
    [(name, pa.string()) for name in ("band", "row_id", "text", "source")] + [("position", pa.int64())]
)
_LOSERS = pa.schema([(name, pa.string()) for name in ("row_id", "detail")])


class Signed(NamedTuple):
    """A sentence under the hash of one band."""

    band: str
    row_id: str
    text: str
    source: str
    position: int


def signer(
    config: IngestConfig, store: Store, folder: str, candidates: Sequence[FileEntry]
) -> Callable[[IdRange], ShardReport]:
    """Return the function of step 1, which writes the signed candidates of one range of ids.

    Each distinct sentence is written once per band to `folder`/bands, sorted by band.

    Raises:
        ConfigError: the ingest extra is not installed.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError as error:
        raise ConfigError("ingest.near_duplicates needs pip install 'multicsr[ingest]'") from error
    lsh = MinHashLSH(threshold=config.near_duplicate_similarity, num_perm=_NUM_HASHES, weights=_WEIGHTS)

    def sign(shard: IdRange) -> ShardReport:
        started = time.perf_counter()
        rows, _ = drop_duplicates(shard.read(store, candidates))
        # A sentence without a letter or digit has no shingle, so it is similar to no other sentence.
        rows = rows.filter(
            pa.array([bool(_WORD.search(text)) for text in rows["text"].to_pylist()], pa.bool_())
        )
        columns = [rows[name].to_pylist() for name in ("row_id", "text", "source", "position")]
        shingles = [[shingle.encode() for shingle in _shingles(text)] for text in columns[1]]
        signed = [
            Signed(band, *sentence)
            for signature, *sentence in zip(
                MinHash.bulk(shingles, num_perm=_NUM_HASHES), *columns, strict=True
            )
            for band in _bands(signature.hashvalues.tobytes(), lsh.b, lsh.r)
        ]
        table = pa.Table.from_pylist([row._asdict() for row in signed], schema=_SIGNED).sort_by("band")
        return _report(store, f"{folder}/bands", shard.key, table, rows.num_rows, started)

    return sign


def comparer(
    config: IngestConfig, store: Store, folder: str, bands: Sequence[FileEntry]
) -> Callable[[IdRange], ShardReport]:
    """Return the function of step 2, which compares the sentences under a range of hashes.

    The near-duplicates to drop are written to `folder`/near.
    """

    def compare(shard: IdRange) -> ShardReport:
        started = time.perf_counter()
        order = [(name, "ascending") for name in ("band", "source", "position", "row_id")]
        table = shard.read(store, bands, column="band").sort_by(order)
        met = groupby(map(Signed._make, zip(*table.to_pydict().values(), strict=True)), lambda row: row.band)
        losers = sorted(
            loser for _, group in met for loser in _losers(list(group), config.near_duplicate_similarity)
        )
        rows = [dict(zip(_LOSERS.names, loser, strict=True)) for loser in losers]
        found = pa.Table.from_pylist(rows, schema=_LOSERS)
        return _report(store, f"{folder}/near", shard.key, found, table.num_rows, started)

    return compare


def losers_of(store: Store, near: Sequence[FileEntry], shard: IdRange) -> dict[str, str]:
    """Return the near-duplicates in a range of ids: row id -> the sentence that each is similar to."""
    table = shard.read(store, near)
    table = table.sort_by(
        [("row_id", "ascending"), ("detail", "ascending")]
    )  # so that dict() always keeps the same detail
    return dict(zip(table["row_id"].to_pylist(), table["detail"].to_pylist(), strict=True))


def _shingles(text: str) -> set[str]:
    """Return the word trigrams of a sentence, without case and punctuation.

    In scripts without blanks each character counts as a word. A sentence of one or two words is one shingle;
    a sentence without words has none.
    """
    words = _WORD.findall(text.casefold())
    if not words:
        return set()
    return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def _bands(signature: bytes, num_bands: int, num_rows: int) -> Iterator[str]:
    width = len(signature) // _NUM_HASHES * num_rows
    for band in range(num_bands):
        part = signature[band * width : (band + 1) * width]
        yield hashlib.blake2b(part, digest_size=16, salt=band.to_bytes(2, "big")).hexdigest()


def _losers(group: Sequence[Signed], similarity: float) -> Iterator[tuple[str, str]]:
    """Yield the near-duplicates in `group`, which is sorted by (source, position).

    Yields:
        The row id of each sentence that is similar to an earlier one, and the detail that names the latter.
    """
    if len(group) == 1:
        return
    leaders: list[tuple[Signed, set[str]]] = []
    for row in group:
        shingles = _shingles(row.text)
        for leader, theirs in leaders:
            jaccard = len(shingles & theirs) / len(shingles | theirs)
            if jaccard >= similarity:
                yield row.row_id, f"{jaccard:.2f} like {leader.source}:{leader.position}"
                break
        else:
            if len(leaders) < _MAX_LEADERS:
                leaders.append((row, shingles))


def _report(
    store: Store, folder: str, key: str, table: pa.Table, rows_in: int, started: float
) -> ShardReport:
    entry = store.write_table(f"{folder}/rows/{key}.parquet", table)
    report = ShardReport(
        key=key,
        rows_in=rows_in,
        rows_out=table.num_rows,
        rows_digest=rows_digest(table["row_id"]),
        seconds=time.perf_counter() - started,
        files=[entry],
    )
    return commit(store, folder, report)
