"""Objects of the Kubernetes API, with the fields that multicsr reads.

Fields are named as in the Kubernetes API, except `ListMeta.more`, which is `continue` there.
"""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Resource(NamedTuple):
    """A resource type of the API. All that are used here are namespaced."""

    group: str
    plural: str

    @property
    def full(self) -> str:
        """Return the name with its API group, such as `rayjobs.ray.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def root(self) -> str:
        """Return the first part of the URL path of the resource."""
        return f"/apis/{self.group}/v1" if self.group else "/api/v1"


RAYJOBS = Resource("ray.io", "rayjobs")
CONFIGMAPS = Resource("", "configmaps")
PODS = Resource("", "pods")
RAYCLUSTERS = Resource("ray.io", "rayclusters")
EVENTS = Resource("", "events")
SERVICEACCOUNTS = Resource("", "serviceaccounts")


class Part(BaseModel):
    """Base class of objects and their parts.

    Unknown fields are ignored. As in Kubernetes, a null means that the field is absent.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, found: object) -> object:
        if isinstance(found, dict):
            return {key: value for key, value in found.items() if value is not None}
        return found


class Owner(Part):
    """A reference to an object that owns another one."""

    uid: str
    kind: str = ""
    name: str = ""


class Meta(Part):
    """Metadata of an object."""

    name: str
    uid: str = ""
    resourceVersion: str = ""
    creationTimestamp: str = ""
    deletionTimestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    ownerReferences: list[Owner] = []


class Thing(Part):
    """An object of which only the metadata matters."""

    metadata: Meta


class Condition(Part):
    """An observation of a controller about its object."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class RayJobStatus(Part):
    """Status of a RayJob, as the operator has written it."""

    jobId: str = ""
    jobStatus: str = ""
    """Status of the job in the Jobs API, as the operator last read it."""
    jobDeploymentStatus: str = ""
    """Progress of the operator's own work on the RayJob."""
    rayClusterName: str = ""
    reason: str = ""
    message: str = ""


class Container(Part):
    """A container of a pod."""

    name: str = ""


class PodSpec(Part):
    """Specification of a pod."""

    containers: list[Container] = []


class PodTemplate(Part):
    """Template from which a pod is created."""

    spec: PodSpec = PodSpec()


class RayJobSpec(Part):
    """Specification of a RayJob."""

    submitterPodTemplate: PodTemplate | None = None


class RayJob(Part):
    """A job of the KubeRay operator."""

    metadata: Meta
    spec: RayJobSpec = RayJobSpec()
    status: RayJobStatus = RayJobStatus()


class RayClusterStatus(Part):
    """Status of a RayCluster."""

    state: str = ""
    reason: str = ""
    conditions: list[Condition] = []


class RayCluster(Part):
    """A Ray cluster of the KubeRay operator."""

    metadata: Meta
    status: RayClusterStatus = RayClusterStatus()


class Waiting(Part):
    """State of a container that has not started yet."""

    reason: str = ""
    message: str = ""


class ContainerTermination(Part):
    """State of a container that has ended."""

    reason: str = ""
    message: str = ""
    exitCode: int = 0


class ContainerState(Part):
    """State of a container; at most one of the three fields is set."""

    waiting: Waiting | None = None
    running: dict[str, object] | None = None
    terminated: ContainerTermination | None = None


class ContainerStatus(Part):
    """Current and previous state of a container."""

    name: str = ""
    state: ContainerState = ContainerState()
    lastState: ContainerState = ContainerState()
    restartCount: int = 0


class PodStatus(Part):
    """Status of a pod."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = []
    initContainerStatuses: list[ContainerStatus] = []
    containerStatuses: list[ContainerStatus] = []


class Pod(Part):
    """A pod."""

    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Involved(Part):
    """A reference to the object that an event is about."""

    kind: str = ""
    name: str = ""
    uid: str = ""


class Event(Part):
    """An event of the core API group."""

    involvedObject: Involved = Involved()
    type: str = ""
    reason: str = ""
    message: str = ""
    lastTimestamp: str = ""
    eventTime: str = ""


class RayJobs(Part):
    """A list of RayJobs."""

    items: list[RayJob] = []


class Pods(Part):
    """A list of pods."""

    items: list[Pod] = []


class ListMeta(Part):
    """Metadata of a list."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)
    more: str = Field(default="", alias="continue")
    """Token with which the next part of the list is requested; empty after the last part."""


class Events(Part):
    """A list of events, or a part of one."""

    metadata: ListMeta = ListMeta()
    items: list[Event] = []


class Change(Part):
    """A change that a watch reports in one line."""

    type: str
    object: dict[str, object]
