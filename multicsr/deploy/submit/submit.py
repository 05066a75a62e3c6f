"""Submission that runs the same name and configuration once, however often it is submitted.

A job that failed or was stopped continues as the next attempt.
"""

from collections.abc import Callable

from multicsr.deploy.submit.job import ClusterTarget, Echo, JobStatus, Phase
from multicsr.deploy.submit.names import LONGEST, Attempt
from multicsr.errors import RunError

_RACES = 5
"""Number of times that another submission may take the name before we give up."""
_SUCCEEDED = (
    "has succeeded: nothing is submitted; --again runs it once more, such as on new files at input.paths"
)
_THERE = "is there already: nothing is submitted"


def submit(
    cluster: ClusterTarget,
    run: str,
    digest: str,
    create: Callable[[Attempt], bool],
    echo: Echo,
    *,
    again: bool = False,
) -> str:
    """Submit the job unless it runs or has succeeded; return its name on the cluster.

    Args:
        run: name of the job, without the number of the attempt.
        digest: digest of the bundle, which identifies the work.
        create: creates an attempt; returns False if its name is taken.
        again: run the job once more although it has succeeded.

    Raises:
        RunError: the name belongs to another job or configuration, its job is being deleted, there were too
            many attempts, or other submissions took the name again and again.
    """
    ended = (Phase.FAILED, Phase.STOPPED, *((Phase.SUCCEEDED,) if again else ()))
    for _ in range(_RACES):
        latest = _latest(cluster, run)
        if latest is not None and latest.deleting:
            raise RunError(f"{latest.name} is being deleted; submit it again when it is gone")
        if latest is not None and latest.digest != digest:
            raise RunError(
                f"{latest.name} exists with another configuration ({latest.phase}); give another --name, or "
                f"`multicsr stop {latest.name}` first"
            )
        if latest is not None and latest.phase not in ended:
            echo(f"{latest.name} {_SUCCEEDED if latest.phase is Phase.SUCCEEDED else _THERE}")
            return latest.name
        attempt = Attempt(run, latest.attempt + 1 if latest else 1)
        if len(attempt.name) > LONGEST:
            raise RunError(f"{run}: attempt {attempt.number} would have too long a name; give another --name")
        if latest is not None:
            echo(f"{latest}: the work goes on as {attempt.name}")
        if create(attempt):
            echo(f"{attempt.name} is submitted")
            return attempt.name
        _look_who_it_is(cluster, attempt)
    raise RunError(f"{run}: gave up because others submit the same job at the same time; see `multicsr jobs`")


def _latest(cluster: ClusterTarget, run: str) -> JobStatus | None:
    ours = (status for status in cluster.jobs() if status.run == run)
    return max(ours, key=lambda status: status.attempt, default=None)


def _look_who_it_is(cluster: ClusterTarget, attempt: Attempt) -> None:
    """Raise if the name of an attempt was taken by another job since the last look at the cluster.

    If the same run took the name, return: the caller looks at the cluster again.
    """
    other = cluster.find(attempt.name)
    if other is not None and other.run != attempt.run:
        raise RunError(f"{attempt.name} exists and is not this job; give another --name")
