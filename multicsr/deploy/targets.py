"""Conversion of command-line options into a cluster and into a job that is sent to it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from multicsr.config import Config
from multicsr.deploy.manifest_checks.documents import Document
from multicsr.deploy.resources import JOBS
from multicsr.deploy.submit.bundle import Bundle, pack
from multicsr.deploy.submit.job import ClusterTarget, Echo
from multicsr.deploy.submit.names import Attempt, checked, daily_name, run_name, stem
from multicsr.deploy.submit.submit import submit
from multicsr.errors import ConfigError, RunError


class TargetOptions(NamedTuple):
    """The cluster that the options of a command select."""

    to: str
    """Kind of the cluster: `ray`, or else Kubernetes."""
    address: str | None = None
    """Address of the Jobs API."""
    namespace: str = "multicsr"
    context: str | None = None
    """Context of the kubeconfig."""


class JobRequest(NamedTuple):
    """A job that is to be submitted."""

    bundle: Bundle
    run: str
    """Name of the job, without the number of the attempt."""


class Sender(Protocol):
    """Creator of the attempts of one `JobRequest` on one cluster."""

    def create(self, attempt: Attempt) -> bool:
        """Start an attempt; return False if a job of that name exists already."""

    def complete(self, name: str) -> None:
        """Create what the job of this name needs and does not have yet."""


def make_request(
    job: str, config: Config, name: str | None = None, zone: str | None = None, now: datetime | None = None
) -> JobRequest:
    """Return a job with its data files and its name.

    Args:
        name: name given by the user; without it, the name is derived from `config.name`.
        zone: time zone; if given, the name ends with the current date in that zone.
        now: current time; by default that of the system clock.

    Raises:
        ConfigError: there is no such job, or the name, the zone or a data file cannot be used.
    """
    if job not in JOBS:
        raise ConfigError(f"{job}: there is no such job; take one of {', '.join(JOBS)}")
    bundle = pack(config, job)
    if zone is not None:
        first = checked(name, daily=True) if name else stem(config.name, job)
        return JobRequest(bundle, daily_name(first, zone, now or datetime.now(UTC)))
    return JobRequest(bundle, checked(name) if name else run_name(config.name, job, bundle.digest))


def cluster_at(target: TargetOptions) -> ClusterTarget:
    """Return the cluster, to list and control its jobs."""
    if target.to == "ray":
        from multicsr.deploy.ray.client import connect
        from multicsr.deploy.ray.jobs import RayClusterTarget

        return RayClusterTarget(connect(target.address))
    from multicsr.deploy.kubernetes.api import KubeApi
    from multicsr.deploy.kubernetes.client import connect as connect_kubernetes
    from multicsr.deploy.kubernetes.jobs import KubeCluster

    beside = target._replace(to="ray")
    api = KubeApi(connect_kubernetes(target.context), target.namespace)
    return KubeCluster(api, (lambda: cluster_at(beside)) if target.address else None)


def preview(request: JobRequest, target: TargetOptions, overlay: Path | None) -> str:
    """Return as YAML what would be sent. This contacts no server."""
    if target.to == "ray":
        from multicsr.deploy.ray import submit as ray_send

        ray_send.require_shared_paths(request.bundle)
        return ray_send.as_yaml(request.bundle, Attempt(request.run, 1))
    from multicsr.deploy.kubernetes.manifests import as_yaml

    return as_yaml(_checked(request, target, overlay).made)


def send(
    request: JobRequest, target: TargetOptions, overlay: Path | None, echo: Echo, *, again: bool = False
) -> tuple[ClusterTarget, str]:
    """Submit the job unless it runs or has succeeded; return the cluster and the job's name there.

    Args:
        again: run the job once more although it has succeeded.

    Raises:
        ConfigError: the job could not work; nothing was created.
        RunError: the cluster rejects the job, or cannot be reached.
    """
    cluster, sender = (
        _ray(request, target, echo) if target.to == "ray" else _kubernetes(request, target, overlay)
    )
    name = submit(cluster, request.run, request.bundle.digest, sender.create, echo, again=again)
    found = cluster.find(name)
    if found is None:
        raise RunError(f"{name} was deleted meanwhile; submit it again")
    if not found.phase.over:
        sender.complete(name)
    return cluster, name


def _ray(request: JobRequest, target: TargetOptions, echo: Echo) -> tuple[ClusterTarget, Sender]:
    from multicsr.deploy.ray.client import connect
    from multicsr.deploy.ray.jobs import RayClusterTarget
    from multicsr.deploy.ray.submit import RaySender, require_shared_paths
    from multicsr.deploy.submit.preflight import look_at_nodes

    require_shared_paths(request.bundle)
    client = connect(target.address)
    cluster = RayClusterTarget(client)
    try:
        look_at_nodes(request.bundle, cluster.nodes(), echo)
    except RunError as error:
        echo(f"note: whether the nodes suffice is not known: {error}")
    return cluster, RaySender(client, cluster, request.bundle)


def _kubernetes(
    request: JobRequest, target: TargetOptions, overlay: Path | None
) -> tuple[ClusterTarget, Sender]:
    from multicsr.deploy.kubernetes.api import KubeApi
    from multicsr.deploy.kubernetes.client import connect
    from multicsr.deploy.kubernetes.jobs import KubeCluster, KubeSender

    template = _checked(request, target, overlay).template
    api = KubeApi(connect(target.context), target.namespace)
    return KubeCluster(api), KubeSender(api, template, request.bundle)


class _Checked(NamedTuple):
    """Documents that have passed all checks and may be sent."""

    template: Document
    """The overlay's RayJob."""
    made: list[Document]
    """The first attempt's ConfigMap and RayJob, as they would be created."""


def _checked(request: JobRequest, target: TargetOptions, overlay: Path | None) -> _Checked:
    """Return the documents to be sent, after all checks of the overlay together with the configuration.

    Raises:
        ConfigError: no overlay is given, or a check fails.
    """
    from multicsr.deploy.kubernetes import manifests
    from multicsr.deploy.manifest_checks.render import render
    from multicsr.deploy.submit.preflight import check_groups, check_manifests

    if overlay is None:
        raise ConfigError("--to k8s needs an overlay: give --overlay, such as k8s/overlays/autoscale")
    manifests.require_buckets(request.bundle)
    documents = render(overlay)
    template = manifests.template(documents, request.bundle.job)
    attempt = Attempt(request.run, 1)
    job = manifests.ray_job(template, request.bundle, attempt, target.namespace, "dry-run")
    configuration = manifests.config_map(request.bundle, attempt.name, target.namespace)
    check_manifests([job, configuration], documents)
    check_groups(request.bundle, job)
    return _Checked(template, [configuration, job])
