"""Reports of shards, and their sum: the contents of an artifact, unless the sums are inconsistent."""

import math
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.errors import RunError
from multicsr.storage.manifest import Contents, add_digests


class ShardReport(Contents):
    """The result of one shard. It is stored beside the files of the shard and marks the shard as done."""

    key: str
    seconds: float = 0
    """Wall time of the work on the shard, in seconds."""


class StageTotals:
    """The sum of the reports of a stage. Inconsistent sums raise RunError."""

    def __init__(self, stage: str, max_rejected: float, rows_in: int | None) -> None:
        """Start with no reports.

        Args:
            stage: name of the stage, for messages.
            max_rejected: maximum fraction of the rows that may be rejected.
            rows_in: number of rows of the input artifact; None for the first stage, where it is known only at
                the end.
        """
        self._stage = stage
        self._max_rejected = max_rejected
        self._expected = rows_in
        self._reports: list[ShardReport] = []
        self._counters: Counter[str] = Counter()
        self._rows_in = 0
        self._rejected: Counter[str] = Counter()

    def add(self, report: ShardReport) -> None:
        """Add the report of one shard.

        Raises:
            RunError: too many rows are rejected already; this does not wait for the other shards.
        """
        self._reports.append(report)
        self._rows_in += report.rows_in
        self._rejected.update(report.rejected)
        if self._expected is not None:
            # Shards are ranges of hashes, so the finished ones are a random sample of all rows. The margin is
            # three standard deviations of the sampled fraction.
            self._stop_past(self._max_rejected + 3 * math.sqrt(0.25 / max(self._rows_in, 1)))

    def count(self, **amounts: float) -> None:
        """Add amounts to the counters that are in no report of a shard."""
        self._counters.update(amounts)

    @property
    def counters(self) -> dict[str, float]:
        """Return the amounts of `count` so far."""
        return dict(self._counters)

    def contents(self) -> Contents:
        """Return the files and the sums of all reports.

        Raises:
            RunError: rows were lost or added, or too many were rejected.
        """
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
        return Contents(
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
    """Return the number of rejects for each reason."""
    counts = pc.value_counts(rejects["reason"].combine_chunks())
    return {str(entry["values"]): entry["counts"].as_py() for entry in counts}
