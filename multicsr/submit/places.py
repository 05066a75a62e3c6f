"""From the words of a command to a cluster, and to what is sent there."""

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.kube.documents import Document
from multicsr.resources import JOBS
from multicsr.submit.jobs import Cluster, Say
from multicsr.submit.names import Attempt, checked, daily_name, run_name, stem
from multicsr.submit.parcel import Parcel, pack
from multicsr.submit.send import submit


class Where(NamedTuple):
    """A cluster, in the user's words."""

    to: str
    address: str | None = None
    """Of the Jobs API."""
    namespace: str = "multicsr"
    context: str | None = None
    """Of the kubeconfig."""


class Order(NamedTuple):
    """A job to be done."""

    parcel: Parcel
    run: str
    """Its name, without the number of the attempt."""


class Sender(Protocol):
    """Makes jobs of one order on one cluster."""

    def create(self, attempt: Attempt) -> bool:
        """Start it; False: the name is taken."""

    def complete(self, name: str) -> None:
        """Make what may be missing yet."""


def order(
    job: str, config: Config, name: str | None = None, zone: str | None = None, now: datetime | None = None
) -> Order:
    """A job with its name.

    Args:
        zone: for a name with the date that it is there.

    Raises:
        ConfigError: there is no such job, or the name or a data file cannot be used.
    """
    if job not in JOBS:
        raise ConfigError(f"{job}: there is no such job; take one of {', '.join(JOBS)}")
    parcel = pack(config, job)
    if zone is not None:
        first = checked(name, daily=True) if name else stem(config.name, job)
        return Order(parcel, daily_name(first, zone, now or datetime.now(UTC)))
    return Order(parcel, checked(name) if name else run_name(config.name, job, parcel.digest))


def cluster_at(where: Where) -> Cluster:
    """The cluster, for looking at its jobs."""
    if where.to == "ray":
        from multicsr.submit.ray_door import connect
        from multicsr.submit.ray_jobs import RayCluster

        return RayCluster(connect(where.address))
    from multicsr.submit.kube import KubeCluster
    from multicsr.submit.kube_api import KubeApi
    from multicsr.submit.kube_door import connect as connect_kubernetes

    beside = where._replace(to="ray")
    api = KubeApi(connect_kubernetes(where.context), where.namespace)
    return KubeCluster(api, (lambda: cluster_at(beside)) if where.address else None)


def preview(order: Order, where: Where, overlay: Path | None) -> str:
    """What would be sent, as YAML. No server is asked anything."""
    if where.to == "ray":
        from multicsr.submit import ray_send

        ray_send.require_shared_places(order.parcel)
        return ray_send.as_yaml(order.parcel, Attempt(order.run, 1))
    from multicsr.submit.manifests import as_yaml

    return as_yaml(_checked(order, where, overlay).made)


def send(order: Order, where: Where, overlay: Path | None, say: Say) -> tuple[Cluster, str]:
    """Have the job run; the cluster and the job's name there.

    Raises:
        ConfigError: it could not work; nothing was created.
        RunError: the cluster refuses it, or cannot be reached.
    """
    cluster, sender = _ray(order, where, say) if where.to == "ray" else _kubernetes(order, where, overlay)
    name = submit(cluster, order.run, order.parcel.digest, sender.create, say)
    found = cluster.find(name)
    if found is None:
        raise RunError(f"{name} was deleted meanwhile; submit it again")
    if not found.phase.over:
        sender.complete(name)
    return cluster, name


def _ray(order: Order, where: Where, say: Say) -> tuple[Cluster, Sender]:
    from multicsr.submit.checks import look_at_nodes
    from multicsr.submit.ray_door import connect
    from multicsr.submit.ray_jobs import RayCluster
    from multicsr.submit.ray_send import RaySender, require_shared_places

    require_shared_places(order.parcel)
    door = connect(where.address)
    cluster = RayCluster(door)
    try:
        look_at_nodes(order.parcel, cluster.nodes(), say)
    except RunError as error:
        say(f"note: whether the nodes suffice is not known: {error}")
    return cluster, RaySender(door, cluster, order.parcel)


def _kubernetes(order: Order, where: Where, overlay: Path | None) -> tuple[Cluster, Sender]:
    from multicsr.submit.kube import KubeCluster, KubeSender
    from multicsr.submit.kube_api import KubeApi
    from multicsr.submit.kube_door import connect

    template = _checked(order, where, overlay).template
    api = KubeApi(connect(where.context), where.namespace)
    return KubeCluster(api), KubeSender(api, template, order.parcel)


class _Checked(NamedTuple):
    """What may be sent."""

    template: Document
    """The overlay's RayJob."""
    made: list[Document]
    """The first attempt's ConfigMap and RayJob, as they would be created."""


def _checked(order: Order, where: Where, overlay: Path | None) -> _Checked:
    """After all that can be said against the overlay and the configuration together."""
    from multicsr.kube.render import render
    from multicsr.submit import manifests
    from multicsr.submit.checks import check_groups, check_manifests

    if overlay is None:
        raise ConfigError("--to k8s: with which cluster? Give --overlay, such as k8s/overlays/autoscale")
    manifests.require_buckets(order.parcel)
    documents = render(overlay)
    template = manifests.template(documents, order.parcel.job)
    attempt = Attempt(order.run, 1)
    job = manifests.ray_job(template, order.parcel, attempt, where.namespace, "dry-run")
    configuration = manifests.config_map(order.parcel, attempt.name, where.namespace)
    check_manifests([job, configuration], documents)
    check_groups(order.parcel, job)
    return _Checked(template, [configuration, job])
