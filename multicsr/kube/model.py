"""The Ray-specific fields of ray.io/v1, as far as this project uses them: strict, an unknown key is an error.

Pod templates are looked at by pods.py; what the operator refuses beyond this is in operator_rules.py. A test
holds fields and choices against the published schemas of KubeRay 1.7.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from multicsr.kube.documents import Document, mapping

_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")


def is_quantity(value: object) -> bool:
    """Whether Kubernetes would read it as an amount: 500m, 1.5, 16Gi, 2e3."""
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
    """Fields in snake_case here, in camelCase there."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, arbitrary_types_allowed=True
    )


class AuthOptions(KubeModel):
    mode: Literal["disabled", "token"] | None = None
    secret_name: str | None = None
    enable_k8s_token_auth: Annotated[bool | None, Field(alias="enableK8sTokenAuth")] = None


class AutoscalerOptions(KubeModel):
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
    """For a standing cluster that must outlive its head; of no use to a RayJob, whose driver dies with it."""

    backend: Literal["redis", "rocksdb"] | None = None
    redis_address: str | None = None
    redis_password: Pod | None = None
    redis_username: Pod | None = None
    external_storage_namespace: str | None = None


class Group(KubeModel):
    """What head and workers have in common."""

    template: Pod
    ray_start_params: Strings = {}
    resources: dict[str, Quantity] = {}
    labels: Strings = {}

    @property
    def template_spec(self) -> Document:
        return mapping(self.template.get("spec"))


class HeadGroup(Group):
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None
    head_service: Pod | None = None


class WorkerGroup(Group):
    group_name: str
    # A real API server fills them in; we want them written, so that a reader sees them.
    min_replicas: Count
    max_replicas: Count
    replicas: Count | None = None
    num_of_hosts: Annotated[int, Field(ge=1)] = 1
    idle_timeout_seconds: Count | None = None
    priority: int | None = None
    suspend: bool | None = None


class UpgradeStrategy(KubeModel):
    type: Literal["Recreate", "None"] | None = None


class ClusterSpec(KubeModel):
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
    job_status: Literal["SUCCEEDED", "FAILED"] | None = None
    job_deployment_status: Literal["Failed"] | None = None
    ttl_seconds: Count = 0


class DeletionRule(KubeModel):
    policy: Literal["DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone"]
    condition: DeletionCondition


class DeletionStrategy(KubeModel):
    """Without the legacy `onSuccess` and `onFailure`, which know no time to live."""

    deletion_rules: Annotated[list[DeletionRule], Field(min_length=1)]


class SubmitterConfig(KubeModel):
    backoff_limit: Count | None = None


class JobSpec(KubeModel):
    entrypoint: str
    # No enum in the published schema: the operator finds out.
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
