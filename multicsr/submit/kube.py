"""Jobs as RayJobs of KubeRay.

Whether one succeeded, the RayJob's status says: the pod that submits exits with 0 even when the job failed.
"""

import time
from collections.abc import Callable
from uuid import uuid4

from multicsr.errors import RunError
from multicsr.kube.documents import Document
from multicsr.resources import JOB_LABEL
from multicsr.submit.jobs import ATTEMPT, CONFIG, JOB_STATUS, RUN, Cluster, Phase, Say, Seen
from multicsr.submit.kube_api import KubeApi
from multicsr.submit.kube_follow import follow, tell_log
from multicsr.submit.kube_objects import CONFIGMAPS, RAYJOBS, RayJob
from multicsr.submit.manifests import PART_OF, config_map, config_name, ray_job
from multicsr.submit.names import Attempt
from multicsr.submit.parcel import Parcel

_SUBMISSION = "multicsr.io/submission"
_STOP_S = 180.0
_POLL_S = 1.0
_GONE_S = 60.0


def seen(job: RayJob) -> Seen:
    """What the operator tells of a job."""
    meta, status = job.metadata, job.status
    facts = (status.jobDeploymentStatus or "not looked at yet", f"job {status.jobStatus or 'not submitted'}")
    why = " ".join(part for part in (status.reason, " ".join(status.message.split())) if part)
    return Seen(
        name=meta.name,
        phase=_phase(job),
        detail="; ".join([*facts, *([why] if why else [])]),
        job=meta.labels.get(JOB_LABEL, ""),
        run=meta.labels.get(RUN, ""),
        attempt=int(meta.annotations.get(ATTEMPT, "1")),
        digest=meta.annotations.get(CONFIG, ""),
        going=meta.deletionTimestamp is not None,
        since=meta.creationTimestamp,
    )


def _phase(job: RayJob) -> Phase:
    match job.status.jobDeploymentStatus, job.status.jobStatus:
        case "Complete", "SUCCEEDED":
            return Phase.SUCCEEDED
        case "Complete", "STOPPED":
            return Phase.STOPPED
        case (("Failed" | "ValidationFailed" | "Complete"), _):
            return Phase.FAILED
        case "Running", _:
            return Phase.RUNNING
    return Phase.WAITING


class KubeCluster:
    """The RayJobs of one namespace."""

    def __init__(self, api: KubeApi, jobs_api: Callable[[], Cluster] | None = None) -> None:
        """`jobs_api`: connects to that of the Ray cluster, if its address is known."""
        self._api, self._jobs_api = api, jobs_api

    def jobs(self) -> list[Seen]:
        selector = ",".join(f"{key}={value}" for key, value in PART_OF.items())
        return [seen(job) for job in self._api.ray_jobs(f"{selector},{RUN}")]

    def find(self, name: str) -> Seen | None:
        job = self._api.ray_job(name)
        return seen(job) if job else None

    def follow(self, name: str, say: Say) -> Seen:
        return follow(self._api, name, say, seen)

    def logs(self, name: str, say: Say) -> None:
        tell_log(self._api, name, say)

    def stop(self, name: str, say: Say) -> None:
        """The operator stops the job of a RayJob that is deleted, and then deletes the cluster."""
        self._api.delete(RAYJOBS, name)
        end = time.monotonic() + _STOP_S
        while self._api.ray_job(name) is not None:
            if time.monotonic() > end:
                raise RunError(f"{name} is being deleted for {_STOP_S:.0f} s; is the KubeRay operator up?")
            time.sleep(_POLL_S)
        say(f"{name} is deleted, with its cluster; the store keeps what was committed")

    def findings(self, name: str) -> list[str]:
        """Where the RayJob and the Jobs API of its cluster differ."""
        job = self._api.ray_job(name)
        if job is None or self._jobs_api is None:
            return []
        try:
            there = self._jobs_api().find(job.status.jobId or name)
        except RunError as error:
            return [f"the RayJob answers, the Jobs API does not: {error}"]
        if there is None:
            return [f"the RayJob says {job.status.jobStatus or 'nothing'}, the Jobs API knows no such job"]
        expected = JOB_STATUS.get(job.status.jobStatus, Phase.WAITING)
        if there.phase is not expected:
            return [f"the RayJob says {job.status.jobStatus or 'nothing'}, the Jobs API {there.phase}"]
        ended = job.status.jobDeploymentStatus in ("Complete", "Failed")
        if there.phase.over and not ended:
            return [
                f"the job has {there.phase}, but the RayJob is still {job.status.jobDeploymentStatus}: its "
                f"nodes are held; if that lasts, `multicsr stop {name}`"
            ]
        if not there.phase.over and ended:
            return [f"the RayJob has ended, but the job is {there.phase}: only deleting its cluster ends it"]
        return []


class KubeSender:
    """Makes the objects of a job."""

    def __init__(self, api: KubeApi, template: Document, parcel: Parcel) -> None:
        self._api, self._template, self._parcel = api, template, parcel
        self._submission = uuid4().hex

    def create(self, attempt: Attempt) -> bool:
        """Make the RayJob. The server is asked first whether it would take both objects."""
        namespace = self._api.namespace
        document = ray_job(self._template, self._parcel, attempt, namespace, self._submission)
        configuration = config_map(self._parcel, attempt.name, namespace)
        self._api.create(CONFIGMAPS, configuration, dry=True)
        if self._api.create(RAYJOBS, document, dry=True) is None:
            return False
        return self._api.create(RAYJOBS, document) is not None or self._is_ours(attempt.name)

    def complete(self, name: str) -> None:
        """Make the ConfigMap, if it is not there: the pods wait for it.

        It belongs to the RayJob and goes with it; one of an earlier RayJob of this name may still be going.
        """
        end = time.monotonic() + _GONE_S
        while time.monotonic() < end:
            owner = self._api.ray_job(name)
            if owner is None:
                raise RunError(f"{name} was deleted meanwhile; submit it again")
            if self._api.owner_of(config_name(name)) == owner.metadata.uid:
                return
            document = config_map(self._parcel, name, self._api.namespace, owner.metadata.uid)
            if self._api.create(CONFIGMAPS, document) is None:
                time.sleep(_POLL_S)
        raise RunError(f"{name}: the ConfigMap {config_name(name)} of another job is in the way; delete it")

    def _is_ours(self, name: str) -> bool:
        """The answer to a create can be lost, and the repeated one be refused."""
        found = self._api.ray_job(name)
        return found is not None and found.metadata.annotations.get(_SUBMISSION) == self._submission
