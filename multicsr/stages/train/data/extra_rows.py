"""The labelled triplets of `train.extra_triplets` as files of the artifact `model`.

They are sorted by their ids and each one is kept once, so that neither the order nor the number of the files
that they come from has an effect. What is read lies on a disk until it is sorted, a range of ids at a time:
memory does not grow with the files.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from multicsr.artifacts import LABELLED_TRIPLETS
from multicsr.config import TripletFile
from multicsr.errors import RunError
from multicsr.execution.shard_report import ShardReport, StageTotals, count_reasons
from multicsr.execution.stage_runner import commit, finished_report, write_rejects
from multicsr.hashing import checksum
from multicsr.rows import LABELLED, Reason, rejects
from multicsr.stages.ingest.triplet_files import (
    LabelledReject,
    LabelledTriplet,
    read_triplets,
    readable_triplets,
)
from multicsr.storage.manifest import Contents, rows_digest
from multicsr.storage.store import Store

_SETTING = "train.extra_triplets"
_KEY = "labelled"
"""Name of the report that marks the files as complete."""
_ROWS_AT_ONCE = 20_000
"""Number of rows that are read before they are written to the disk."""
_ROWS_PER_FILE = 250_000
"""Number of rows in a file, about 50 MB of sentences; they are sorted in memory."""
_REJECTS = rejects(LABELLED)
_SPILLED = pa.schema([field.with_nullable(True) for field in _REJECTS])
"""Schema of triplets and rejects together; a triplet has no reason."""


def digest_triplets(files: Sequence[TripletFile]) -> tuple[int, str]:
    """Return the number of triplets in all files, and a hash of their texts and weights.

    The hash depends on no order, no file name and no format.

    Raises:
        ConfigError, RunError: see `readable_triplets`.
    """
    num_rows, total = 0, 0
    for file in files:
        for row in readable_triplets(file, _SETTING):
            num_rows += 1
            total += int(checksum(f"{row.row_id}:{row.weight!r}".encode()), 16)
    return num_rows, f"{total % 2**128:032x}"


def write_triplets(files: Sequence[TripletFile], num_rows: int, store: Store, folder: str) -> Contents:
    """Write the triplets of all files, each once, and the rejects, unless that was done before.

    Args:
        files: the settings of the files.
        num_rows: number of triplets, from `digest_triplets`.
        store: the store.
        folder: folder of the artifact `model`.

    Returns:
        Files, counts and digest of the triplets. Of equal triplets the one with the largest weight is kept;
        the others are rejects.

    Raises:
        ConfigError: a file is missing or has no columns of triplets.
        RunError: a file cannot be read, or it was changed while it was read.
    """
    place = f"{folder}/{LABELLED_TRIPLETS}"
    done = finished_report(store, place, _KEY)
    if done is not None:
        return done
    totals = StageTotals("train", 1.0, None)
    for number, (rows, rejected) in enumerate(_sorted_ranges(files, -(-num_rows // _ROWS_PER_FILE))):
        key = f"{_KEY}-{number:05}"
        totals.add(
            ShardReport(
                key=key,
                rows_in=rows.num_rows + rejected.num_rows,
                rows_out=rows.num_rows,
                rejected=count_reasons(rejected),
                rows_digest=rows_digest(rows["row_id"]),
                files=[store.write_table(f"{place}/rows/{key}.parquet", rows)],
                reject_files=write_rejects(store, place, key, rejected),
            )
        )
    contents = totals.contents()
    if contents.rows_out + contents.rejected.get(Reason.DUPLICATE, 0) != num_rows:
        raise RunError("train.extra_triplets: a file was changed while it was read; run the command again")
    return commit(store, place, ShardReport(key=_KEY, **dict(contents)))


def triplets_table(files: Sequence[TripletFile]) -> pa.Table:
    """Return the triplets of all files as one table in memory, each once, sorted by id.

    Raises:
        ConfigError, RunError: see `digest_triplets`.
    """
    digest_triplets(files)
    ((rows, _),) = _sorted_ranges(files, 1)
    return rows


def _sorted_ranges(files: Sequence[TripletFile], count: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the triplets and the rejects of each of `count` ranges of ids, in order.

    Records without a triplet are among the rejects of the first range.
    """
    with tempfile.TemporaryDirectory(prefix="multicsr-") as folder:
        paths = [Path(folder, f"{number}.arrow") for number in range(count)]
        _spill((row for file in files for row in read_triplets(file, _SETTING)), paths)
        for path in paths:
            with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
                yield _deduplicated(stream.read_all())


def _spill(rows: Iterator[LabelledTriplet | LabelledReject], paths: Sequence[Path]) -> None:
    """Write rows and rejects to the file of their range of ids."""
    with ExitStack() as closing:
        streams = [
            closing.enter_context(pa.ipc.new_stream(closing.enter_context(path.open("wb")), _SPILLED))
            for path in paths
        ]
        while some := [*islice(rows, _ROWS_AT_ONCE)]:
            table = pa.Table.from_pylist([*map(_as_dict, some)], schema=_SPILLED)
            first_digits = [(row_id or "0")[:8] for row_id in table["row_id"].to_pylist()]
            range_R = np.array([int(digits, 16) * len(paths) >> 32 for digits in first_digits])
            for number, stream in enumerate(streams):
                stream.write_table(table.filter(pa.array(range_R == number)))


def _as_dict(row: LabelledTriplet | LabelledReject) -> dict[str, object]:
    """Return the columns of a row or reject."""
    if isinstance(row, LabelledTriplet):
        return row._asdict()
    return {
        **(row.triplet._asdict() if row.triplet else {}),
        "reason": row.reason.value,
        "detail": row.detail,
    }


def _deduplicated(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the triplets of a range, sorted and each once, and its rejects with the repeated ones."""
    is_triplet = pc.is_null(table["reason"])
    rows = table.filter(is_triplet).sort_by([("row_id", "ascending"), ("weight", "descending")])
    is_repeated_R = np.zeros(rows.num_rows, dtype=bool)
    is_repeated_R[1:] = np.equal(*(rows["row_id"].to_numpy()[part] for part in (slice(1, None), slice(-1))))
    repeated = rows.filter(pa.array(is_repeated_R))
    reasons = pa.array([Reason.DUPLICATE.value] * repeated.num_rows, pa.string())
    repeated = repeated.set_column(_SPILLED.get_field_index("reason"), "reason", reasons)
    rejected = pa.concat_tables([table.filter(pc.invert(is_triplet)), repeated]).cast(_REJECTS)
    kept = rows.filter(pa.array(~is_repeated_R)).select(LABELLED.names).cast(LABELLED)
    return kept, rejected.sort_by([("detail", "ascending"), ("row_id", "ascending")])
