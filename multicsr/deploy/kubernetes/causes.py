"""Reasons why a job on Kubernetes waits, from conditions and events of all objects that the operator makes.

A pod that the API server does not accept leaves no trace in the RayJob. The error is an event of the object
that needs the pod: of the RayCluster for Ray's nodes, of the batch Job for the pod that submits the job.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from multicsr.deploy.kubernetes.api import KubeApi
from multicsr.deploy.kubernetes.errors import ServerAway
from multicsr.deploy.kubernetes.objects import ContainerStatus, Event, Pod, RayJob
from multicsr.deploy.submit.job import Echo, JobStatus
from multicsr.errors import MulticsrError
from multicsr.messages.terminal import OutputClosed

_LOOK_S, _LOOK_RUNNING_S = 5.0, 30.0
"""Time between two looks for causes while the job waits, and while it runs."""
_OPERATOR_S = 60.0
"""Time without a status after which no operator seems to run; it writes one within a second."""
_STARTING = ("", "ContainerCreating", "PodInitializing")
"""Waiting reasons of a container that starts normally."""
_NOISE = ("Unhealthy",)
"""Reasons of warnings that every start produces: probes fail until Ray has started."""


class WaitingCause(NamedTuple):
    """A reason why a job waits."""

    place: str
    """Kind and name of the object that has the problem."""
    reason: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.reason, " ".join(self.message.split())) if part)


class Causes:
    """Reader of the causes of one job.

    A source that cannot be read is reported once to `note`, and then left out.
    """

    def __init__(self, api: KubeApi, note: Echo) -> None:
        self._api, self._note = api, note
        self._denied: set[str] = set()

    def of(self, job: RayJob, unseen_s: float) -> list[WaitingCause]:
        """Return the reasons why the job waits now.

        Args:
            unseen_s: time in seconds for which the operator has written no status, if there is none.
        """
        found = [*_of_operator(job, unseen_s, self._api.namespace)]
        if job.status.jobDeploymentStatus:
            for source in (self._of_cluster, self._of_pods, self._of_events):
                found += self._tried(source, job)
        return _without_repetitions(found, job)

    def _tried(self, source: Callable[[RayJob], Iterator[WaitingCause]], job: RayJob) -> list[WaitingCause]:
        name = source.__name__
        if name in self._denied:
            return []
        try:
            return list(source(job))
        except ServerAway:
            return []  # the code that reads the states reports it
        except MulticsrError as error:
            self._denied.add(name)
            self._note(f"note: it is not known why the job waits: {error}")
            return []

    def _of_cluster(self, job: RayJob) -> Iterator[WaitingCause]:
        name = job.status.rayClusterName
        cluster = self._api.ray_cluster(name) if name else None
        if cluster is None:
            return
        for condition in cluster.status.conditions:
            if condition.type == "ReplicaFailure" and condition.status == "True":
                yield WaitingCause(f"RayCluster {name}", condition.reason, condition.message)
        if cluster.status.reason:
            yield WaitingCause(f"RayCluster {name}", "", cluster.status.reason)

    def _of_pods(self, job: RayJob) -> Iterator[WaitingCause]:
        selectors = [f"job-name={job.metadata.name}"]
        if job.status.rayClusterName:
            selectors.append(f"ray.io/cluster={job.status.rayClusterName}")
        alike: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for pod in (pod for selector in selectors for pod in self._api.pods(selector)):
            name = pod.metadata.name
            for reason, message in _troubles(pod):
                alike.setdefault((reason, message.replace(name, "")), []).append((name, message))
        for (reason, _), found in alike.items():
            more = f" and {len(found) - 1} other pods" if len(found) > 1 else ""
            name, message = found[0]
            yield WaitingCause(f"Pod {name}{more}", reason, message)

    def _of_events(self, job: RayJob) -> Iterator[WaitingCause]:
        if _runs(job):
            return  # events describe the past, conditions the present
        for event in self._api.warnings():
            if event.reason not in _NOISE and _is_about(event, job) and not _is_older(event, job):
                yield WaitingCause(
                    f"{event.involvedObject.kind} {event.involvedObject.name}", event.reason, event.message
                )


def age_s(job: RayJob) -> float:
    """Return the age of a job in seconds by this machine's clock; 0 if its creation time is not known."""
    made = _time_of(job.metadata.creationTimestamp)
    return (datetime.now(UTC) - made).total_seconds() if made else 0.0


def _time_of(text: str) -> datetime | None:
    """Return a timestamp of Kubernetes as a datetime; None if it is not valid or has no time zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


def _runs(job: RayJob) -> bool:
    return job.status.jobDeploymentStatus == "Running"


def _of_operator(job: RayJob, unseen_s: float, namespace: str) -> Iterator[WaitingCause]:
    if not job.status.jobDeploymentStatus and unseen_s >= _OPERATOR_S:
        yield WaitingCause(
            f"RayJob {job.metadata.name}",
            "",
            f"no KubeRay operator has looked at it for {_OPERATOR_S:.0f} s; does one run, and does it watch "
            f"namespace {namespace}? kubectl get pods -A -l app.kubernetes.io/name=kuberay-operator",
        )


def _troubles(pod: Pod) -> Iterator[tuple[str, str]]:
    """Yield reason and message of every problem that keeps a pod from running."""
    if pod.status.phase in ("Pending", ""):
        for condition in pod.status.conditions:
            if condition.type == "PodScheduled" and condition.status == "False":
                yield condition.reason, condition.message
    if pod.status.phase == "Failed" and pod.status.reason:
        yield pod.status.reason, pod.status.message
    for container in (*pod.status.initContainerStatuses, *pod.status.containerStatuses):
        if (waiting := container.state.waiting) and waiting.reason not in _STARTING:
            yield (
                waiting.reason,
                f"container {container.name}: {waiting.message or 'waiting'}{_last_end(container)}",
            )


def _last_end(container: ContainerStatus) -> str:
    """Return how the container ended before, because the message of a back-off does not contain it."""
    last = container.lastState.terminated
    return f" (it ended with {last.exitCode}, {last.reason or 'Error'})" if last else ""


def _is_about(event: Event, job: RayJob) -> bool:
    about, name, cluster = event.involvedObject, job.metadata.name, job.status.rayClusterName
    if about.kind == "RayJob":
        return about.uid == job.metadata.uid if about.uid else about.name == name
    if about.kind == "RayCluster":
        return about.name == cluster
    if about.kind == "Job":
        return about.name == name
    if about.kind == "Workload":  # of Kueue; its name is that of the RayJob followed by a digest
        return re.fullmatch(rf"rayjob-{re.escape(name)}-[0-9a-f]+", about.name) is not None
    of_cluster = bool(cluster) and about.name.startswith(f"{cluster}-")
    return of_cluster or re.fullmatch(rf"{re.escape(name)}-[a-z0-9]{{5}}", about.name) is not None


def _is_older(event: Event, job: RayJob) -> bool:
    """Return whether an event precedes the creation of the job, so is about an earlier job of its name."""
    happened = _time_of(event.lastTimestamp or event.eventTime)
    made = _time_of(job.metadata.creationTimestamp)
    return happened is not None and made is not None and happened < made


def _without_repetitions(causes: Iterable[WaitingCause], job: RayJob) -> list[WaitingCause]:
    """Return the causes whose message is not repeated in that of another cause."""
    texts: dict[str, WaitingCause] = {}
    for cause in causes:
        texts.setdefault(same(cause.message, job), cause)
    return [
        cause for text, cause in texts.items() if not any(text in other and text != other for other in texts)
    ]


def same(text: str, job: RayJob) -> str:
    """Return a text with the names of pods replaced by a common prefix.

    Every attempt to create a pod has a new name, so without that the same problem would look new each time.
    """
    name = job.status.rayClusterName or job.metadata.name
    return re.sub(rf"{re.escape(name)}[-a-z0-9]*", name, " ".join(text.split()))


class CauseThread(threading.Thread):
    """A thread that prints every cause once while the job waits."""

    def __init__(
        self, api: KubeApi, job: RayJob, echo: Echo, job_status: Callable[[RayJob], JobStatus]
    ) -> None:
        super().__init__(daemon=True, name=f"causes of {job.metadata.name}")
        self.job = job
        """The job as it was last read; the owner of the thread updates it."""
        self._echo, self._job_status = echo, job_status
        self._causes = Causes(api, echo)
        self.closed: OutputClosed | None = None
        """Exception after which the thread has ended, because the output was closed."""
        self._over = threading.Event()
        self._printed: set[tuple[str, str]] = set()

    def run(self) -> None:
        """Print new causes until `finish` is called or the output is closed."""
        try:
            self._print_until_over()
        except OutputClosed as error:
            self.closed = error

    def _print_until_over(self) -> None:
        began = time.monotonic()
        while not self._over.wait(_LOOK_RUNNING_S if _runs(self.job) else _LOOK_S):
            job = self.job
            phase = self._job_status(job).phase
            for cause in self._causes.of(job, time.monotonic() - began):
                known = (cause.reason, same(cause.message, job))
                if known not in self._printed and not self._over.is_set():
                    self._printed.add(known)
                    self._echo(f"[{phase}] {cause}")

    def finish(self) -> None:
        """Ask the thread to end; do not wait for it."""
        self._over.set()
