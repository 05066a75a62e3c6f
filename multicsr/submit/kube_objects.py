"""Of the objects of the Kubernetes API, what we read."""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict


class Resource(NamedTuple):
    """A kind of objects; they are all in a namespace."""

    group: str
    plural: str

    @property
    def full(self) -> str:
        """As a role names it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def root(self) -> str:
        return f"/apis/{self.group}/v1" if self.group else "/api/v1"


RAYJOBS = Resource("ray.io", "rayjobs")
CONFIGMAPS = Resource("", "configmaps")
PODS = Resource("", "pods")


class Part(BaseModel):
    """Of an object we read what we need."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Owner(Part):
    uid: str


class Meta(Part):
    name: str
    uid: str = ""
    resourceVersion: str = ""
    creationTimestamp: str = ""
    deletionTimestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    ownerReferences: list[Owner] = []


class Thing(Part):
    """Of an object whose content does not matter."""

    metadata: Meta


class RayJobStatus(Part):
    jobId: str = ""
    jobStatus: str = ""
    """Of the Jobs API, as the operator last saw it."""
    jobDeploymentStatus: str = ""
    """Of the operator's own work."""
    reason: str = ""
    message: str = ""


class RayJob(Part):
    metadata: Meta
    status: RayJobStatus = RayJobStatus()


class PodStatus(Part):
    phase: str = ""


class Pod(Part):
    metadata: Meta
    status: PodStatus = PodStatus()


class RayJobs(Part):
    items: list[RayJob] = []


class Pods(Part):
    items: list[Pod] = []


class Event(Part):
    type: str
    object: dict[str, object]
