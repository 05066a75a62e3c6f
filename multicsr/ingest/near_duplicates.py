"""Between the passes, when asked for: which sentences are near-duplicates of one that comes before them.

MinHash LSH in two steps, as parallel and as bounded in memory as the rest. `signer` writes every sentence
once per band of its signature, under the band's hash; near-duplicates meet under at least one hash.
`comparer` takes a range of hashes and compares, exactly, the sentences that met. Neither sees shards or
workers, so the outcome depends on the corpus alone.

For the user: two sentences of just the similarity asked for are found with a probability of about 97%, more
similar ones almost surely, and nothing less similar is dropped. Of a chain in which each sentence resembles
the next, the first stays, even where the last does not resemble it. Scratch space is 10 to 30 times the
corpus.
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
from multicsr.ingest.duplicates import IdRange, drop_duplicates
from multicsr.manifest import rows_digest
from multicsr.ray_stage import commit
from multicsr.store import Store
from multicsr.tally import ShardReport

_NUM_HASHES = 128
_WEIGHTS = (0.02, 0.98)
"""Of false and of missed meetings, in choosing the bands: what meets is compared, what misses is lost."""
_MAX_LEADERS = 64
"""Sentences under one hash that a later one is compared with: boilerplate must not cost its square."""
_WORD = re.compile(r"\w+")
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
    config: IngestConfig, store: Store, folder: str, candidates: Sequence[str]
) -> Callable[[IdRange], ShardReport]:
    """Step 1: candidates of one range of ids, each once, to `folder`/bands sorted by band.

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


def comparer(config: IngestConfig, store: Store, folder: str) -> Callable[[IdRange], ShardReport]:
    """Step 2: sentences that met under a range of hashes to the losers among them, in `folder`/near."""

    def compare(shard: IdRange) -> ShardReport:
        started = time.perf_counter()
        order = [(name, "ascending") for name in ("band", "source", "position", "row_id")]
        table = shard.read(store, store.names(f"{folder}/bands/rows"), column="band").sort_by(order)
        met = groupby(map(Signed._make, zip(*table.to_pydict().values(), strict=True)), lambda row: row.band)
        losers = sorted(
            loser for _, group in met for loser in _losers(list(group), config.near_duplicate_similarity)
        )
        rows = [dict(zip(_LOSERS.names, loser, strict=True)) for loser in losers]
        found = pa.Table.from_pylist(rows, schema=_LOSERS)
        return _report(store, f"{folder}/near", shard.key, found, table.num_rows, started)

    return compare


def losers_of(store: Store, folder: str, shard: IdRange) -> dict[str, str]:
    """Row id -> whom it resembles, of the near-duplicates in a range of ids."""
    table = shard.read(store, store.names(f"{folder}/near/rows"))
    table = table.sort_by([("row_id", "ascending"), ("detail", "ascending")])  # so that the last is the same
    return dict(zip(table["row_id"].to_pylist(), table["detail"].to_pylist(), strict=True))


def _shingles(text: str) -> set[str]:
    """Word trigrams, case and punctuation aside; a shorter sentence is one shingle."""
    words = _WORD.findall(text.casefold())
    return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def _bands(signature: bytes, num_bands: int, num_rows: int) -> Iterator[str]:
    width = len(signature) // _NUM_HASHES * num_rows
    for band in range(num_bands):
        part = signature[band * width : (band + 1) * width]
        yield hashlib.blake2b(part, digest_size=16, salt=band.to_bytes(2, "big")).hexdigest()


def _losers(group: Sequence[Signed], similarity: float) -> Iterator[tuple[str, str]]:
    """(row id, whom it resembles), of those that resemble one before them in (source, position)."""
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
        rejected={},
        rows_digest=rows_digest(table["row_id"]),
        seconds=time.perf_counter() - started,
        counters={},
        files=[entry],
        reject_files=[],
    )
    return commit(store, folder, report)
