"""Lists of jobs as a table and as JSON records.

Names are never shortened, because commands need the whole name.
"""

from collections.abc import Sequence

from multicsr.deploy.submit.job import JobStatus

_TITLES = ("name", "job", "attempt", "state", "since")


def as_table(jobs: Sequence[JobStatus]) -> str:
    """Return a table with one line per job, oldest first. A column is as wide as its longest entry."""
    rows = [_TITLES, *(_cells(status) for status in in_order(jobs))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _cells(status: JobStatus) -> tuple[str, ...]:
    return status.name, status.job, str(status.attempt), str(status.phase), status.since


def in_order(jobs: Sequence[JobStatus]) -> list[JobStatus]:
    """Return the jobs sorted by time, oldest first, and then by name."""
    return sorted(jobs, key=lambda status: (status.since, status.name))


def as_record(status: JobStatus, **more: object) -> dict[str, object]:
    """Return a job as a record for JSON.

    Args:
        more: further fields of the record.
    """
    return {
        "name": status.name,
        "job": status.job,
        "run": status.run,
        "attempt": status.attempt,
        "state": str(status.phase),
        "detail": status.detail,
        "cause": status.cause,
        "since": status.since,
        "deleting": status.deleting,
        **more,
    }
