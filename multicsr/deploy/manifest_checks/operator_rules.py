"""Rules for what KubeRay's operator rejects although its schema allows it.

A job that the operator rejects gets no pods, and hardly an error message.
"""

import re
from collections.abc import Iterator

from packaging.version import InvalidVersion, Version

from multicsr.deploy.manifest_checks.documents import items
from multicsr.deploy.manifest_checks.model import ClusterSpec, HeadGroup, JobSpec, Pod, WorkerGroup

NAME_LIMITS = {"RayCluster": 53, "RayJob": 47}
"""Greatest length of a name in characters, by kind: KubeRay derives other names from it."""
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SIZES = {"num-cpus", "num-gpus", "memory", "resources"}
_START_PARAMS = _SIZES | {
    "dashboard-host",
    "dashboard-port",
    "metrics-export-port",
    "object-store-memory",
    "object-spilling-directory",
    "plasma-directory",
    "node-ip-address",
    "port",
    "block",
    "min-worker-port",
    "max-worker-port",
    "ray-client-server-port",
    "temp-dir",
    "disable-usage-stats",
    "include-dashboard",
}


def name_problems(kind: str, name: str) -> Iterator[str]:
    """Yield the problems of a resource's name: its characters and its length."""
    limit = NAME_LIMITS[kind]
    if not DNS_1035.fullmatch(name):
        yield f"metadata.name: {name!r} must be small letters, digits and dashes, a letter first"
    if len(name) > limit:
        yield f"metadata.name: longer than {limit} characters"


def cluster_problems(spec: ClusterSpec) -> Iterator[str]:
    """Yield the problems of a RayCluster's spec, paths relative to it."""
    yield from _group_problems("headGroupSpec", spec.head_group_spec)
    for place, group in enumerate(spec.worker_group_specs):
        yield from _group_problems(f"workerGroupSpecs.{place}", group)
        yield from _worker_problems(f"workerGroupSpecs.{place}", group, spec)
    names = [group.group_name for group in spec.worker_group_specs]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"workerGroupSpecs: two groups are called {name}"
    yield from _autoscaler_problems(spec)
    yield from _auth_problems(spec)


def _group_problems(path: str, group: HeadGroup | WorkerGroup) -> Iterator[str]:
    given = group.ray_start_params
    if not items(group.template_spec.get("containers")):
        yield f"{path}.template.spec.containers: has no container"
    if group.resources and _SIZES & set(given):
        yield f"{path}: sizes are in rayStartParams and in resources; the operator takes only one"
    if "labels" in given:
        yield f"{path}.rayStartParams.labels: the operator rejects it; use the group's labels"
    for key in sorted(set(given) - _START_PARAMS - {"labels"}):
        yield f"{path}.rayStartParams.{key}: unknown to ray start"
    for key, value in group.labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            yield f"{path}.labels: {key}={value} is no label"


def _worker_problems(path: str, group: WorkerGroup, spec: ClusterSpec) -> Iterator[str]:
    if group.min_replicas > group.max_replicas:
        yield f"{path}: minReplicas is above maxReplicas"
    scales = spec.enable_in_tree_autoscaling
    version = spec.autoscaler_options.version if spec.autoscaler_options else None
    if group.suspend and scales:
        yield f"{path}.suspend: the operator rejects it while the autoscaler is on"
    for name, value in (("idleTimeoutSeconds", group.idle_timeout_seconds), ("priority", group.priority)):
        if value is not None and not (scales and version == "v2"):
            yield f"{path}.{name}: only the autoscaler v2 knows it"
    if not scales and not group.replicas == group.min_replicas == group.max_replicas:
        yield f"{path}: without autoscaler, replicas, minReplicas and maxReplicas must be one number"


def _autoscaler_problems(spec: ClusterSpec) -> Iterator[str]:
    if _sets(spec.head_group_spec.template_spec, "RAY_enable_autoscaler_v2"):
        yield "headGroupSpec: RAY_enable_autoscaler_v2 is set; write autoscalerOptions.version instead"
    if not spec.enable_in_tree_autoscaling:
        if spec.autoscaler_options is not None:
            yield "autoscalerOptions: without effect; enableInTreeAutoscaling is false"
        return
    if spec.autoscaler_options is None or spec.autoscaler_options.version != "v2":
        yield "autoscalerOptions.version: write v2; unset, KubeRay restarts pods of the autoscaler"
    for path, group in (
        ("headGroupSpec", spec.head_group_spec),
        *((f"workerGroupSpecs.{place}", group) for place, group in enumerate(spec.worker_group_specs)),
    ):
        if group.template_spec.get("restartPolicy", "Never") != "Never":
            yield f"{path}.template.spec.restartPolicy: must be Never with the autoscaler v2"


def _auth_problems(spec: ClusterSpec) -> Iterator[str]:
    options = spec.auth_options
    if options is None or options.mode != "token":
        yield "authOptions.mode: write token; without it, everyone who reaches the cluster can run code on it"
    try:
        if Version(spec.ray_version) < Version("2.52"):
            yield f"rayVersion: {spec.ray_version} knows no tokens; 2.52 is the first that does"
    except InvalidVersion:
        yield f"rayVersion: {spec.ray_version!r} is no version"
    head = spec.head_group_spec.template_spec
    if spec.gcs_fault_tolerance_options is None and _sets(head, "RAY_REDIS_ADDRESS"):
        yield "headGroupSpec: RAY_REDIS_ADDRESS is set without gcsFaultToleranceOptions"


def _sets(pod: Pod, variable: str) -> bool:
    """Return whether the Ray container, which is the pod's first, sets an environment variable."""
    first = items(pod.get("containers"))[:1]
    return any(entry.get("name") == variable for container in first for entry in items(container.get("env")))


def job_problems(spec: JobSpec) -> Iterator[str]:
    """Yield the problems of a RayJob's spec, paths relative to it; those of its cluster are left out."""
    if (spec.ray_cluster_spec is None) == (spec.cluster_selector is None):
        yield "rayClusterSpec: give this or clusterSelector, one of the two"
    if spec.suspend and not spec.shutdown_after_job_finishes:
        yield "suspend: needs shutdownAfterJobFinishes: true"
    if spec.ttl_seconds_after_finished and not spec.shutdown_after_job_finishes:
        yield "ttlSecondsAfterFinished: needs shutdownAfterJobFinishes: true"
    if spec.cluster_selector is not None:
        yield from _selector_problems(spec)
    submitter = spec.submitter_pod_template is not None or spec.submitter_config is not None
    if spec.submission_mode == "SidecarMode" and submitter:
        yield "submissionMode: SidecarMode takes no submitterPodTemplate and no submitterConfig"
    if spec.submission_mode == "InteractiveMode" and spec.backoff_limit:
        yield "submissionMode: InteractiveMode takes no backoffLimit"
    cluster = spec.ray_cluster_spec
    head = cluster.head_group_spec.template_spec if cluster else {}
    if spec.submission_mode == "SidecarMode" and head.get("restartPolicy", "Never") != "Never":
        yield "submissionMode: SidecarMode needs the head's restartPolicy to be Never"
    if cluster and cluster.auth_options and cluster.auth_options.enable_k8s_token_auth:
        yield "rayClusterSpec.authOptions.enableK8sTokenAuth: the operator rejects it for a RayJob"


def _selector_problems(spec: JobSpec) -> Iterator[str]:
    if spec.suspend or spec.submission_mode == "SidecarMode" or spec.backoff_limit:
        yield "clusterSelector: goes with none of suspend, SidecarMode and backoffLimit"
