"""Output of a RayJob while it runs: its states, and in two more threads its log and the reasons why it waits.

The states come from a watch, which may break and is then repeated. Only the RayJob decides when the job has
ended. A log ends with the container that submits the job, and after a retry there is another such pod.
"""

import threading
import time
from collections.abc import Callable, Iterator

from multicsr.deploy.kubernetes.api import KubeApi
from multicsr.deploy.kubernetes.causes import CauseThread
from multicsr.deploy.kubernetes.errors import ServerAway
from multicsr.deploy.kubernetes.objects import Pod, RayJob
from multicsr.deploy.submit.job import Echo, JobStatus, unknown
from multicsr.deploy.submit.retry import ApiError, pause_s
from multicsr.errors import MulticsrError, RunError
from multicsr.messages.terminal import OutputClosed

_LOOK_S = 2.0
"""Time between two looks for pods with a log."""
_REST_OF_LOG_S = 10.0
"""Time that the rest of the log may take after the job has ended."""
_AWAY_S = 600.0
"""Time for which an unreachable API server is tolerated.

A single control plane is unreachable for minutes during its upgrade, and the job continues meanwhile.
"""
_SHORT_WATCH_S = 1.0
"""A watch that ends sooner is started again after a pause."""
_TRIES_OF_REST = 5
"""Number of tries to read the rest of a log, if the connection breaks after the job has ended."""
_SUBMITTER = "ray-job-submitter"
"""The operator's name for the submitting container if the RayJob has no template for it."""
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def follow(api: KubeApi, name: str, echo: Echo, job_status: Callable[[RayJob], JobStatus]) -> JobStatus:
    """Print states, log lines and causes of waiting until the job has ended; return its last state.

    Args:
        echo: callback for each line.
        job_status: conversion of a RayJob into the state of a job.

    Raises:
        RunError: there is no such job, it was deleted, or it can no longer be read.
        OutputClosed: the output was closed.
    """
    first = job_called(api, name)
    log, causes = _LogThread(api, first, echo), CauseThread(api, first, echo, job_status)
    log.start()
    causes.start()
    printed, rest_s = "", 0.0
    try:
        for job in states(api, first, echo):
            causes.job = job
            for thread in (log, causes):
                if thread.closed:
                    raise thread.closed
            now = job_status(job)
            line = f"[{now.phase}] {now.detail}" + (
                f"; {now.cause}" if now.cause and not now.phase.over else ""
            )
            if line != printed:
                echo(line)
                printed = line
            if now.phase.over:
                rest_s = _REST_OF_LOG_S
                return now
        raise AssertionError("states do not end")
    finally:
        causes.finish()
        log.finish(rest_s)


def job_called(api: KubeApi, name: str) -> RayJob:
    """Return the RayJob of this name.

    Raises:
        RunError: there is none.
    """
    job = api.ray_job(name)
    if job is None:
        raise RunError(unknown(name))
    return job


def states(api: KubeApi, job: RayJob, echo: Echo) -> Iterator[RayJob]:
    """Yield the job as it is now, and then after every change, without end.

    When a watch ends or breaks, the job is read again and a new watch starts from there. So a lasting change
    is never missed.

    Raises:
        RunError: the job was deleted, or the API server stayed unreachable.
    """
    broken = 0
    while True:
        yield job
        began, asked_s = time.monotonic(), None
        try:
            for change in api.watch(job):
                if change is None:
                    break
                broken = 0
                yield change
            ended_early = time.monotonic() - began < _SHORT_WATCH_S
        except ApiError as fault:
            ended_early, asked_s = True, fault.retry_after_s
        if ended_early:  # broken, or ended by a proxy that allows no long answers
            time.sleep(pause_s(broken, asked_s))
            broken += 1
        job = _read_again(api, job, echo)


def _read_again(api: KubeApi, job: RayJob, echo: Echo) -> RayJob:
    """Return the job as it is now; wait up to 10 minutes for an unreachable server.

    Raises:
        RunError: the job was deleted, or the server is still unreachable.
    """
    name, end, noted = job.metadata.name, time.monotonic() + _AWAY_S, False
    while True:
        try:
            now = api.ray_job(name)
        except ServerAway as error:
            if time.monotonic() > end:
                raise RunError(
                    f"{error} (for {_AWAY_S / 60:.0f} minutes); the job does not depend on that: "
                    f"`multicsr logs {name} --follow` takes it up again"
                ) from error
            if not noted:
                echo(f"note: {error}; the job goes on, and is looked at again for {_AWAY_S / 60:.0f} minutes")
                noted = True
            continue
        if now is None or now.metadata.uid != job.metadata.uid:
            raise RunError(f"{name} was deleted; submit it again to go on where it stopped")
        return now


def print_log(api: KubeApi, name: str, echo: Echo) -> None:
    """Print the log, as it is now, of the newest pod that submits the job.

    Raises:
        RunError: there is no such job, or it has no log that can be read.
    """
    job = job_called(api, name)
    pods = _pods(api, name)
    if not pods:
        raise RunError(
            f"{name}: no pod has submitted it yet, or the pods are deleted; see `multicsr status {name}`"
        )
    try:
        for line in api.log(pods[-1].metadata.name, _container(job, pods[-1]), follow=False):
            echo(line.partition(" ")[2])
    except ApiError as fault:
        raise RunError(f"{name}: its log cannot be read: {fault.text}") from fault


def _pods(api: KubeApi, name: str) -> list[Pod]:
    """Return the started pods of the operator's batch Job, which has the RayJob's name; oldest first."""
    pods = [pod for pod in api.pods(f"job-name={name}") if pod.status.phase not in ("", "Pending")]
    return sorted(pods, key=lambda pod: pod.metadata.creationTimestamp)


def _container(job: RayJob, pod: Pod) -> str:
    """Return the name of the container that submits the job; empty if the pod lists no container.

    A service mesh may have added other containers before and after it.
    """
    names = [container.name for container in pod.spec.containers]
    template = job.spec.submitterPodTemplate
    ours = template.spec.containers[0].name if template and template.spec.containers else _SUBMITTER
    if ours in names or not names:
        return ours if names else ""
    return pod.metadata.annotations.get(_DEFAULT_CONTAINER, names[0])


def _ended(pod: Pod, container: str) -> bool:
    """Return whether a container has ended, although other containers of its pod may still run."""
    states = [status.state for status in pod.status.containerStatuses if status.name == container]
    return pod.status.phase in ("Succeeded", "Failed") or any(state.terminated for state in states)


class _LogThread(threading.Thread):
    """A thread that prints the log of every pod that submits the job, one after the other."""

    def __init__(self, api: KubeApi, job: RayJob, echo: Echo) -> None:
        super().__init__(daemon=True, name=f"log of {job.metadata.name}")
        self._api, self._job, self._echo = api, job, echo
        self.closed: OutputClosed | None = None
        """Exception after which the thread has ended, because the output was closed."""
        self._over = threading.Event()
        self._printed: dict[str, str] = {}
        """Map from the uid of a pod to the time of its last printed line."""
        self._ended: set[str] = set()
        """Uids of the pods whose log is complete."""

    def run(self) -> None:
        """Print logs until `finish` is called or the output is closed."""
        try:
            while not self._over.is_set():
                self._print_all()
                self._over.wait(_LOOK_S)
            for tries in range(_TRIES_OF_REST):
                if self._print_all():
                    break
                time.sleep(pause_s(tries))
        except OutputClosed as error:
            self.closed = error
        except MulticsrError as error:  # a renewed kubeconfig may be invalid, too
            self._echo(f"the log cannot be read: {error}")

    def finish(self, rest_s: float) -> None:
        """Ask the thread to end; wait for the rest of the log.

        Args:
            rest_s: longest time to wait, in seconds.
        """
        self._over.set()
        self.join(rest_s)

    def _print_all(self) -> bool:
        """Print the new lines of all pods; return False if the connection broke before the end of a log."""
        try:
            pods = _pods(self._api, self._job.metadata.name)
        except ServerAway:
            return False  # the code that reads the states reports it
        is_complete = True
        for pod in pods:
            if pod.metadata.uid not in self._ended:
                container = _container(self._job, pod)
                was_read = self._print_new(pod, container)
                is_complete &= was_read
                if was_read and _ended(pod, container):
                    self._ended.add(pod.metadata.uid)
        return is_complete

    def _print_new(self, pod: Pod, container: str) -> bool:
        """Print the lines that were not printed yet; return False if the connection broke before the end."""
        uid = pod.metadata.uid
        since = self._printed.get(uid, "")
        try:
            for line in self._api.log(pod.metadata.name, container, follow=True, since=since):
                when, _, text = line.partition(" ")
                if when > self._printed.get(uid, ""):
                    self._printed[uid] = when
                    self._echo(text)
        except ApiError:
            return False
        return True
