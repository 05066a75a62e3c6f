"""The same name and configuration twice runs once; what failed or was stopped goes on as the next attempt."""

from collections.abc import Callable

from multicsr.errors import RunError
from multicsr.submit.jobs import Cluster, Phase, Say, Seen
from multicsr.submit.names import Attempt

_RACES = 5


def submit(cluster: Cluster, run: str, digest: str, create: Callable[[Attempt], bool], say: Say) -> str:
    """Have the job run, if it does not and did not already; its name.

    Args:
        run: name of the work, without the number of the attempt.
        digest: of what is to be done.
        create: makes the job; False: its name is taken.

    Raises:
        RunError: the name belongs to something else.
    """
    for _ in range(_RACES):
        latest = _latest(cluster, run)
        if latest is not None and latest.going:
            raise RunError(f"{latest.name} is being deleted; submit it again when it is gone")
        if latest is not None and latest.digest != digest:
            raise RunError(
                f"{latest.name} exists with another configuration ({latest.phase}); give another --name, or "
                f"`multicsr stop {latest.name}` first"
            )
        if latest is not None and latest.phase not in (Phase.FAILED, Phase.STOPPED):
            done = "has succeeded" if latest.phase is Phase.SUCCEEDED else "is there already"
            say(f"{latest.name} {done}: nothing is submitted")
            return latest.name
        attempt = Attempt(run, latest.attempt + 1 if latest else 1)
        if latest is not None:
            say(f"{latest}: the work goes on as {attempt.name}")
        if create(attempt):
            say(f"{attempt.name} is submitted")
            return attempt.name
        _look_who_it_is(cluster, attempt)
    raise RunError(f"{run}: others submit it all the time; see `multicsr jobs`")


def _latest(cluster: Cluster, run: str) -> Seen | None:
    ours = (seen for seen in cluster.jobs() if seen.run == run)
    return max(ours, key=lambda seen: seen.attempt, default=None)


def _look_who_it_is(cluster: Cluster, attempt: Attempt) -> None:
    """A name was taken since we looked: by the same run (then look again), or by something else."""
    other = cluster.find(attempt.name)
    if other is not None and other.run != attempt.run:
        raise RunError(f"{attempt.name} exists and is not this job; give another --name")
