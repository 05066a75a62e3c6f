"""Several Ray nodes on one machine, token authentication on: to rehearse what a cluster will do.

Every process of such a cluster carries the cluster's id in its environment, which is how it is known again:
by no port, name or number that another program could have by now.
"""

import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from pydantic import BaseModel, ConfigDict, ValidationError

from multicsr.errors import ConfigError, RunError
from multicsr.marked import carries, end, marked
from multicsr.ray_node import free_ports, last_words, make_token, start_node
from multicsr.resources import ROLE_LABEL, ROLES

_START_S = 120.0
_STOP_S = 15.0


class Node(BaseModel):
    """One Ray node."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    """`head`, or what the label multicsr.io/role of a worker says."""
    pid: int
    metrics_port: int


class Cluster(BaseModel):
    """What is running, as kept in the state folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    address: str
    dashboard: str
    token_file: Path
    folder: Path
    """Ray's own files and our logs; deleted by `down`."""
    nodes: list[Node] = []

    @property
    def mark(self) -> str:
        """What all its processes have in their environment."""
        return f"MULTICSR_CLUSTER={self.id}"

    @property
    def environment(self) -> dict[str, str]:
        """What Ray's clients need to be let in."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}


def state_folder() -> Path:
    """Where the token and the record of a cluster are kept."""
    given = os.environ.get("XDG_STATE_HOME")
    return (Path(given) if given else Path.home() / ".local" / "state") / "multicsr"


def running() -> Cluster | None:
    """The cluster that is up, if one is."""
    try:
        cluster = Cluster.model_validate_json((state_folder() / "cluster.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return cluster if marked(cluster.mark) else None


def up(nodes: int, cpus_per_node: float) -> Cluster:
    """Start a head without CPUs and `nodes` - 1 workers; return when all of them are there.

    Raises:
        ConfigError: a cluster needs a worker.
        RunError: a cluster is up already, or a node did not start; none is left then.
    """
    if nodes < 2:
        raise ConfigError("--nodes: a cluster is a head, which does no work, and workers: give 2 or more")
    if cluster := running():
        raise RunError(f"a cluster is up already at {cluster.address}; `multicsr cluster down` ends it")
    gcs_port, dashboard_port, client_port, *ports = free_ports(3 + 2 * nodes)
    cluster = Cluster(
        id=secrets.token_hex(8),
        address=f"127.0.0.1:{gcs_port}",
        dashboard=f"http://127.0.0.1:{dashboard_port}",
        token_file=make_token(state_folder() / "auth_token"),
        # Not in the state folder: the names of Ray's sockets would be too long there.
        folder=Path(tempfile.mkdtemp(prefix="multicsr-")),
    )
    head = ["--head", f"--port={gcs_port}", f"--temp-dir={cluster.folder / 'ray'}", "--num-cpus=0"]
    head += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]
    head += [f"--ray-client-server-port={client_port}"]
    worker = [f"--address={cluster.address}", f"--num-cpus={cpus_per_node:g}"]
    try:
        for number in range(nodes):
            role = ROLES[(number - 1) % len(ROLES)] if number else "head"
            cluster = _start(cluster, role, worker if number else head, ports[2 * number :])
            _wait(cluster)  # one after the other: two that start at once take the same socket
    except BaseException:
        _end(cluster)
        raise
    return cluster


def down() -> Cluster:
    """End every process of the cluster, and nothing else. Raises RunError when there is none."""
    if (cluster := running()) is None:
        raise RunError("no cluster is up here; `multicsr cluster up` starts one")
    _end(cluster)
    return cluster


def alive(cluster: Cluster) -> list[Mapping[str, object]]:
    """Ray's nodes, as the head tells them."""
    token = cluster.token_file.read_text(encoding="utf-8")
    asked = Request(f"{cluster.dashboard}/api/v0/nodes", headers={"Authorization": f"Bearer {token}"})
    try:
        with urlopen(asked, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]["result"]
    except (URLError, OSError, KeyError, ValueError):
        return []
    return [node for node in found if node["state"] == "ALIVE"]


def _start(cluster: Cluster, role: str, arguments: Sequence[str], ports: Sequence[int]) -> Cluster:
    """Start a node, and write down that it is there."""
    labelled = [*arguments, f"--labels={ROLE_LABEL}={role}"]
    pid = start_node(labelled, ports, _environment(cluster), _log(cluster, len(cluster.nodes), role))
    node = Node(role=role, pid=pid, metrics_port=ports[0])
    cluster = cluster.model_copy(update={"nodes": [*cluster.nodes, node]})
    (state_folder() / "cluster.json").write_text(cluster.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return cluster


def _environment(cluster: Cluster) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")}
    # `python` of a job's entrypoint is the one that runs here.
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    name, _, value = cluster.mark.partition("=")
    return {**kept, **cluster.environment, "PATH": path, name: value}


def _wait(cluster: Cluster) -> None:
    """Until all its nodes are there."""
    deadline = time.monotonic() + _START_S
    while len(alive(cluster)) < len(cluster.nodes):
        for number, node in enumerate(cluster.nodes):
            if not carries(node.pid, cluster.mark):
                raise RunError(
                    f"the Ray node {node.role} ended: {last_words(_log(cluster, number, node.role))}"
                )
        if time.monotonic() > deadline:
            raise RunError(f"a Ray node is not up after {_START_S:g} s; is there memory and a core for it?")
        time.sleep(0.5)


def _log(cluster: Cluster, number: int, role: str) -> Path:
    return cluster.folder / f"{number}-{role}.log"


def _end(cluster: Cluster) -> None:
    """Workers first: a worker whose head is gone waits for it."""
    pids = [node.pid for node in cluster.nodes]
    end(cluster.mark, [pids[1:], pids[:1]], _STOP_S)
    shutil.rmtree(cluster.folder, ignore_errors=True)
    (state_folder() / "cluster.json").unlink(missing_ok=True)
    cluster.token_file.unlink(missing_ok=True)
