"""Jobs as RayJobs of KubeRay.

Only the status of the RayJob shows whether the job succeeded: the pod that submits the job exits with 0 even
if the job failed.
"""

import time
from collections.abc import Callable
from uuid import uuid4

from multicsr.deploy.kubernetes.api import KubeApi
from multicsr.deploy.kubernetes.causes import Causes, age_s
from multicsr.deploy.kubernetes.errors import Denied
from multicsr.deploy.kubernetes.follow import follow, job_called, print_log
from multicsr.deploy.kubernetes.manifests import PART_OF, config_map, config_name, ray_job
from multicsr.deploy.kubernetes.objects import CONFIGMAPS, RAYJOBS, RayJob
from multicsr.deploy.manifest_checks.documents import Document, Template, templates_of
from multicsr.deploy.resources import JOB_LABEL
from multicsr.deploy.submit.bundle import Bundle
from multicsr.deploy.submit.job import (
    ATTEMPT,
    CONFIG,
    JOB_STATUS,
    RUN,
    ClusterTarget,
    Echo,
    JobStatus,
    Phase,
    attempt_number,
    last_error,
)
from multicsr.deploy.submit.names import Attempt
from multicsr.errors import RunError

_SUBMISSION = "multicsr.io/submission"
"""Annotation that identifies the submission that created a RayJob."""
_STOP_S = 180.0
"""Time in which a deleted RayJob must be gone."""
_POLL_S = 1.0
_GONE_S = 60.0
"""Time in which the ConfigMap of an earlier job of the same name must be gone."""
_LONGEST_MESSAGE = 300
"""Limit in characters. The message of the operator quotes up to 20,000 characters of the log."""


def job_status(job: RayJob) -> JobStatus:
    """Return the state of a job from its RayJob."""
    meta, status = job.metadata, job.status
    facts = (status.jobDeploymentStatus or "not looked at yet", f"job {status.jobStatus or 'not submitted'}")
    return JobStatus(
        name=meta.name,
        phase=_phase(job),
        detail="; ".join(facts),
        cause=" ".join(part for part in (status.reason, _shortened(status.message)) if part),
        job=meta.labels.get(JOB_LABEL, ""),
        run=meta.labels.get(RUN, ""),
        attempt=attempt_number(meta.annotations.get(ATTEMPT, "1")),
        digest=meta.annotations.get(CONFIG, ""),
        deleting=meta.deletionTimestamp is not None,
        since=meta.creationTimestamp,
    )


def _shortened(message: str) -> str:
    """Return the last error of the multicsr job if the message quotes it, otherwise the shortened message.

    A long message is shortened to its beginning and its end.
    """
    if own := last_error(message):
        return own
    text = " ".join(message.split())
    half = _LONGEST_MESSAGE // 2
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:half]} [...] {text[-half:]}"


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
    """The RayJobs of one namespace: an implementation of `ClusterTarget`."""

    def __init__(self, api: KubeApi, jobs_api: Callable[[], ClusterTarget] | None = None) -> None:
        """Use the RayJobs of a namespace.

        Args:
            jobs_api: connects to the Jobs API of the Ray cluster; None if its address is not known.
        """
        self._api, self._jobs_api = api, jobs_api

    def jobs(self) -> list[JobStatus]:
        """Implement `ClusterTarget.jobs`."""
        selector = ",".join(f"{key}={value}" for key, value in PART_OF.items())
        return [job_status(job) for job in self._api.ray_jobs(f"{selector},{RUN}")]

    def find(self, name: str) -> JobStatus | None:
        """Implement `ClusterTarget.find`."""
        job = self._api.ray_job(name)
        return job_status(job) if job else None

    def follow(self, name: str, echo: Echo) -> JobStatus:
        """Implement `ClusterTarget.follow`; the causes of waiting are printed, too."""
        return follow(self._api, name, echo, job_status)

    def logs(self, name: str, echo: Echo) -> None:
        """Implement `ClusterTarget.logs`."""
        print_log(self._api, name, echo)

    def stop(self, name: str, echo: Echo) -> None:
        """Implement `ClusterTarget.stop`: delete the RayJob and wait until it is gone.

        When a RayJob is deleted, the operator stops its job and then deletes the cluster.

        Raises:
            RunError: there is no such job, multicsr did not submit it, or it still exists after 180 s.
        """
        job = job_called(self._api, name)
        if not job.metadata.labels.get(RUN):
            raise RunError(
                f"{name} is a RayJob that multicsr did not submit; if it is yours: "
                f"kubectl delete rayjob {name} -n {self._api.namespace}"
            )
        uid = job.metadata.uid
        self._api.delete(RAYJOBS, name, uid)
        end = time.monotonic() + _STOP_S
        while (now := self._api.ray_job(name)) is not None and now.metadata.uid == uid:
            if time.monotonic() > end:
                raise RunError(f"{name} is being deleted for {_STOP_S:.0f} s; is the KubeRay operator up?")
            time.sleep(_POLL_S)
        echo(f"{name} is deleted, with its cluster; the store keeps what was committed")

    def causes(self, name: str) -> list[str]:
        """Implement `ClusterTarget.causes`; the list is empty for a job that does not exist or has ended."""
        job = self._api.ray_job(name)
        if job is None or _phase(job).over:
            return []
        notes: list[str] = []
        found = Causes(self._api, notes.append).of(job, age_s(job))
        return [*map(str, found), *notes]

    def findings(self, name: str) -> list[str]:
        """Return the differences between the RayJob and the Jobs API of its cluster.

        The list is empty if there is no such job or the address of the Jobs API is not known.
        """
        job = self._api.ray_job(name)
        if job is None or self._jobs_api is None:
            return []
        try:
            there = self._jobs_api().find(job.status.jobId or name)
        except RunError as error:
            return [f"the RayJob answers, the Jobs API does not: {error}"]
        if there is None:
            return [f"the RayJob reports {job.status.jobStatus or 'nothing'}, the Jobs API knows no such job"]
        expected = JOB_STATUS.get(job.status.jobStatus, Phase.WAITING)
        if there.phase is not expected:
            return [f"the RayJob reports {job.status.jobStatus or 'nothing'}, the Jobs API {there.phase}"]
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
    """Creator of the objects of one job: an implementation of `Sender`."""

    def __init__(self, api: KubeApi, template: Document, bundle: Bundle) -> None:
        self._api, self._template, self._bundle = api, template, bundle
        self._submission = uuid4().hex

    def create(self, attempt: Attempt) -> bool:
        """Create the RayJob, after a dry run that checks that the server would accept it and its ConfigMap.

        Returns:
            False if the name of the job is taken.

        Raises:
            RunError: the namespace lacks what the pods need, or the ConfigMap's name is in use.
        """
        namespace = self._api.namespace
        document = ray_job(self._template, self._bundle, attempt, namespace, self._submission)
        self._require_accounts(document)
        configuration = config_map(self._bundle, attempt.name, namespace)
        end = time.monotonic() + _GONE_S
        while self._api.create(CONFIGMAPS, configuration, dry=True) is None:
            if self._api.ray_job(attempt.name) is not None:
                return False
            self._require_deletion(attempt.name, end)
            time.sleep(_POLL_S)
        if self._api.create(RAYJOBS, document, dry=True) is None:
            return False
        return self._api.create(RAYJOBS, document) is not None or self._is_ours(attempt.name)

    def complete(self, name: str) -> None:
        """Create the ConfigMap, unless it exists; the pods wait for it.

        The RayJob owns the ConfigMap, so it is deleted with the RayJob. The ConfigMap of an earlier RayJob of
        this name may still exist for a moment.

        Raises:
            RunError: the RayJob was deleted, or another ConfigMap has the name. In the latter case, a RayJob
                that this submission created is deleted.
        """
        end = time.monotonic() + _GONE_S
        while True:
            owner = self._api.ray_job(name)
            if owner is None:
                raise RunError(f"{name} was deleted meanwhile; submit it again")
            held = self._api.config_map(config_name(name))
            if held and any(one.uid == owner.metadata.uid for one in held.ownerReferences):
                return
            document = config_map(self._bundle, name, self._api.namespace, owner.metadata.uid)
            if held is None and self._api.create(CONFIGMAPS, document) is not None:
                return
            try:
                self._require_deletion(name, end)
            except RunError:
                # With the configuration of another job, the pods would do the work of that job.
                if owner.metadata.annotations.get(_SUBMISSION) == self._submission:
                    self._api.delete(RAYJOBS, name, owner.metadata.uid)
                raise
            time.sleep(_POLL_S)

    def _require_deletion(self, name: str, end: float) -> None:
        """Raise unless the ConfigMap that has the name will soon be deleted by the garbage collector.

        Raises:
            RunError: the ConfigMap does not belong to an earlier job of this name, or still exists at the
                time `end`.
        """
        held = self._api.config_map(config_name(name))
        if held is None:
            return
        of_jobs = [
            one
            for one in held.ownerReferences
            if (one.kind or "RayJob", one.name or name) == ("RayJob", name)
        ]
        if not of_jobs or time.monotonic() > end:
            raise RunError(
                f"{name}: there is a ConfigMap {held.name} that is not of this job; nothing is submitted: "
                "delete it, or give another --name"
            )

    def _require_accounts(self, document: Document) -> None:
        """Raise if the namespace lacks a service account of the pods: each pod would be denied on its own.

        Raises:
            RunError: an account is missing; the message names it.
        """
        namespace = self._api.namespace
        accounts = {
            str(each.spec["serviceAccountName"]) for each in templates_of(document) if _has_account(each)
        }
        for account in sorted(accounts):
            try:
                there = self._api.has_account(account)
            except Denied:
                continue  # roles of earlier releases do not permit reading accounts
            if not there:
                raise RunError(
                    f"namespace {namespace} has no service account {account}, so k8s/base is not in it: "
                    "accounts and network policies are missing; apply it with "
                    f"`namespace: {namespace}` in its kustomization.yaml, or give another --namespace"
                )

    def _is_ours(self, name: str) -> bool:
        """Return whether this submission created the RayJob of this name.

        The answer to a create request can be lost. Then the repeated request fails because the name is taken.
        """
        found = self._api.ray_job(name)
        return found is not None and found.metadata.annotations.get(_SUBMISSION) == self._submission


def _has_account(template: Template) -> bool:
    return "serviceAccountName" in template.spec
