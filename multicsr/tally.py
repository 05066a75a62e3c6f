"""Adding up: reports of shards become a stage's manifest, unless the sums cannot be right."""

import math
from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, JsonValue

from multicsr.errors import RunError
from multicsr.manifest import Manifest, add_digests, new_manifest
from multicsr.store import FileEntry


class ShardReport(BaseModel):
    """What became of one shard. Stored beside its files: the shard is done when this is there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    rows_in: int
    rows_out: int
    rejected: dict[str, int]
    rows_digest: str
    seconds: float
    counters: dict[str, float]
    files: list[FileEntry]
    reject_files: list[FileEntry]


class Tally:
    """Adds up reports, and refuses sums that cannot be right."""

    def __init__(self, stage: str, max_rejected: float, rows_in: int | None) -> None:
        """`rows_in` is what the room before holds; None for the first stage, where only the end tells."""
        self._stage = stage
        self._max_rejected = max_rejected
        self._expected = rows_in
        self._reports: list[ShardReport] = []
        self._counters: Counter[str] = Counter()
        self._rows_in = 0
        self._rejected: Counter[str] = Counter()

    def add(self, report: ShardReport) -> None:
        """Count one shard; raise RunError once too many rows are rejected, without waiting for the end."""
        self._reports.append(report)
        self._rows_in += report.rows_in
        self._rejected.update(report.rejected)
        if self._expected is not None:
            # Shards are ranges of hashes, so those done are a fair sample of all: three standard deviations.
            self._stop_past(self._max_rejected + 3 * math.sqrt(0.25 / max(self._rows_in, 1)))

    def count(self, **amounts: float) -> None:
        """Count what no report of a shard says."""
        self._counters.update(amounts)

    def manifest(self, run: str, settings: Mapping[str, JsonValue], seconds: float) -> Manifest:
        """The sums. Raises RunError when rows were lost or made up, or too many rejected."""
        reports = sorted(self._reports, key=lambda report: report.key)
        rows_out = sum(report.rows_out for report in reports)
        rejected = self._rejected.total()
        if rows_out + rejected != self._rows_in or self._expected not in (None, self._rows_in):
            expected = self._rows_in if self._expected is None else self._expected
            raise RunError(
                f"{self._stage}: {expected:,} rows went in, {rows_out:,} came out and {rejected:,} were "
                "rejected; nothing was published"
            )
        self._stop_past(self._max_rejected)
        counters = self._counters.copy()
        for report in reports:
            counters.update({**report.counters, "worker_seconds": report.seconds})
        return new_manifest(
            self._stage,
            run,
            settings,
            round(seconds, 3),
            rows_in=self._rows_in,
            rows_out=rows_out,
            rejected=dict(self._rejected.most_common()),
            rows_digest=add_digests([report.rows_digest for report in reports]),
            files=[entry for report in reports for entry in report.files],
            reject_files=[entry for report in reports for entry in report.reject_files],
            counters={name: round(value, 6) for name, value in counters.items()},
        )

    def _stop_past(self, fraction: float) -> None:
        rejected = self._rejected.total()
        if rejected <= fraction * self._rows_in:
            return
        reasons = ", ".join(f"{reason} ({rows:,})" for reason, rows in self._rejected.most_common(3))
        raise RunError(
            f"{self._stage}: {rejected:,} of {self._rows_in:,} rows rejected, more than "
            f"{self._stage}.max_rejected = {self._max_rejected:g} allows; mostly {reasons}"
        )


def count_reasons(rejects: pa.Table) -> dict[str, int]:
    """Rows by reason."""
    counts = pc.value_counts(rejects["reason"].combine_chunks())
    return {str(entry["values"]): entry["counts"].as_py() for entry in counts}
