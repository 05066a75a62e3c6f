"""Typed model of the Ray-specific fields of ray.io/v1 that this project uses. An unknown key is an error.

`pod_rules.py` checks pod templates; `operator_rules.py` checks what the operator rejects beyond this model. A
test compares fields and choices with the published schemas of KubeRay 1.7.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from multicsr.deploy.manifest_checks.documents import Document, mapping

_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")


def is_quantity(value: object) -> bool:
    """Return whether Kubernetes reads `value` as an amount: 500m, 1.5, 16Gi, 2e3."""
    return isinstance(value, int | float | str) and bool(_QUANTITY.fullmatch(str(value)))


def _quantity(value: str) -> str:
    if not is_quantity(value):
        raise ValueError(f"{value!r} is no quantity; write such as 500m or 16Gi")
    return value


Quantity = Annotated[str, AfterValidator(_quantity)]
Strings = dict[str, str]
Pod = Document
Count = Annotated[int, Field(ge=0)]


class KubeModel(BaseModel):
    """Base of the models: fields are in snake_case in Python and in camelCase in a manifest."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, arbitrary_types_allowed=True
    )


class AuthOptions(KubeModel):
    """Authentication of the clients of a Ray cluster (`authOptions`)."""

    mode: Literal["disabled", "token"] | None = None
    secret_name: str | None = None
    enable_k8s_token_auth: Annotated[bool | None, Field(alias="enableK8sTokenAuth")] = None


class AutoscalerOptions(KubeModel):
    """Settings of Ray's autoscaler (`autoscalerOptions`)."""

    version: Literal["v1", "v2"] | None = None
    idle_timeout_seconds: Count | None = None
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"] | None = None
    image: str | None = None
    image_pull_policy: Literal["Always", "Never", "IfNotPresent"] | None = None
    env: list[Pod] | None = None
    env_from: list[Pod] | None = None
    resources: Pod | None = None
    security_context: Pod | None = None
    volume_mounts: list[Pod] | None = None


class FaultTolerance(KubeModel):
    """Fault tolerance of a Ray cluster (`gcsFaultToleranceOptions`).

    It serves a standing cluster that must outlive its head. A RayJob has no use for it: its driver dies with
    the head.
    """

    backend: Literal["redis", "rocksdb"] | None = None
    redis_address: str | None = None
    redis_password: Pod | None = None
    redis_username: Pod | None = None
    external_storage_namespace: str | None = None


class Group(KubeModel):
    """Fields that the head group and the worker groups share."""

    template: Pod
    ray_start_params: Strings = {}
    resources: dict[str, Quantity] = {}
    labels: Strings = {}

    @property
    def template_spec(self) -> Document:
        """Return the pod spec of the template; an empty mapping if there is none."""
        return mapping(self.template.get("spec"))


class HeadGroup(Group):
    """Group of the head's node (`headGroupSpec`)."""

    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None
    head_service: Pod | None = None


class WorkerGroup(Group):
    """Group of worker nodes of one kind (an entry of `workerGroupSpecs`)."""

    group_name: str
    # An API server fills in a default; it must be written here, so that a reader of the manifest sees it.
    min_replicas: Count
    max_replicas: Count
    replicas: Count | None = None
    num_of_hosts: Annotated[int, Field(ge=1)] = 1
    idle_timeout_seconds: Count | None = None
    priority: int | None = None
    suspend: bool | None = None


class UpgradeStrategy(KubeModel):
    """Strategy for changes of the cluster's spec (`upgradeStrategy`)."""

    type: Literal["Recreate", "None"] | None = None


class ClusterSpec(KubeModel):
    """Spec of a RayCluster, or `rayClusterSpec` of a RayJob."""

    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup] = []
    ray_version: str
    auth_options: AuthOptions | None = None
    enable_in_tree_autoscaling: bool = False
    autoscaler_options: AutoscalerOptions | None = None
    gcs_fault_tolerance_options: FaultTolerance | None = None
    head_service_annotations: Strings | None = None
    managed_by: Literal["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"] | None = None
    suspend: bool | None = None
    upgrade_strategy: UpgradeStrategy | None = None


class DeletionCondition(KubeModel):
    """Status of a job, and the seconds from then until a deletion rule applies."""

    job_status: Literal["SUCCEEDED", "FAILED"] | None = None
    job_deployment_status: Literal["Failed"] | None = None
    ttl_seconds: Count = 0


class DeletionRule(KubeModel):
    """Deletion policy, and the condition under which it applies."""

    policy: Literal["DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone"]
    condition: DeletionCondition


class DeletionStrategy(KubeModel):
    """Deletion rules of a RayJob (`deletionStrategy`).

    The legacy `onSuccess` and `onFailure` are left out: they have no time to live.
    """

    deletion_rules: Annotated[list[DeletionRule], Field(min_length=1)]


class SubmitterConfig(KubeModel):
    """Settings of the job's submitter (`submitterConfig`)."""

    backoff_limit: Count | None = None


class JobSpec(KubeModel):
    """Spec of a RayJob."""

    entrypoint: str
    # The published schema has no enum here: only the operator checks the value.
    submission_mode: Literal["K8sJobMode", "SidecarMode", "HTTPMode", "InteractiveMode"] = "K8sJobMode"
    ray_cluster_spec: ClusterSpec | None = None
    cluster_selector: Strings | None = None
    job_id: str | None = None
    metadata: Strings | None = None
    runtime_env_yaml: Annotated[str | None, Field(alias="runtimeEnvYAML")] = None
    entrypoint_num_cpus: Annotated[float, Field(ge=0)] | None = None
    entrypoint_num_gpus: Annotated[float, Field(ge=0)] | None = None
    entrypoint_resources: str | None = None
    active_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    pre_running_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    backoff_limit: Count = 0
    shutdown_after_job_finishes: bool = False
    ttl_seconds_after_finished: Count = 0
    deletion_strategy: DeletionStrategy | None = None
    submitter_config: SubmitterConfig | None = None
    submitter_pod_template: Pod | None = None
    suspend: bool = False
    managed_by: Literal["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"] | None = None
