"""A Ray cluster of several nodes on one machine with token authentication, to rehearse a real cluster.

Every process of such a cluster has the cluster's id in its environment and is recognised by it. A port, a
name or a process number would not be safe, because another program could have it by now.
"""

import fcntl
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from pydantic import ValidationError

from multicsr.artifacts import FileRecord
from multicsr.deploy.local_cluster.node import LOOPBACK, free_ports, last_lines, make_token, start_node
from multicsr.deploy.local_cluster.process_registry import carries, end, tagged
from multicsr.deploy.resources import ROLE_LABEL, ROLES
from multicsr.errors import ConfigError, RunError

_START_S = 120.0
"""Time in which a node must have started."""
_STOP_S = 15.0
"""Time after which processes that have not ended are killed."""


class Node(FileRecord):
    """One Ray node."""

    role: str
    """`head`, or the value of the label multicsr.io/role of a worker."""
    pid: int
    metrics_port: int


class LocalCluster(FileRecord):
    """The record of a running cluster, as kept in the state folder."""

    id: str
    address: str
    dashboard: str
    token_file: Path
    folder: Path
    """Folder of Ray's own files and of our logs; deleted by `down`."""
    wanted: int = 0
    """Number of nodes that were requested, including the head."""
    cpus_per_node: float = 0
    nodes: list[Node] = []
    """Nodes that were started."""

    @property
    def mark(self) -> str:
        """Return the environment entry, `NAME=value`, of all processes of the cluster."""
        return f"MULTICSR_CLUSTER={self.id}"

    @property
    def num_alive(self) -> int:
        """Return the number of nodes whose process is alive."""
        return sum(carries(node.pid, self.mark) for node in self.nodes)

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables that Ray's clients need for authentication."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file), **LOOPBACK}


def state_folder() -> Path:
    """Return the folder that holds the token and the record of a cluster."""
    given = os.environ.get("XDG_STATE_HOME")
    return (Path(given) if given else Path.home() / ".local" / "state") / "multicsr"


def running() -> LocalCluster | None:
    """Return the running cluster, or None if none of its processes is alive."""
    try:
        cluster = LocalCluster.model_validate_json((state_folder() / "cluster.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return cluster if tagged(cluster.mark) else None


def up(nodes: int, cpus_per_node: float) -> LocalCluster:
    """Start a head without CPUs and `nodes` - 1 workers; return when all of them are ready.

    If a cluster of that size is already running, return it unchanged.

    Args:
        nodes: number of nodes, including the head.
        cpus_per_node: CPUs of each worker.

    Raises:
        ConfigError: `nodes` is less than 2; a cluster needs a worker.
        RunError: another cluster or a part of one is already running, or a node did not start. In the latter
            case, no node is left running.
    """
    if nodes < 2:
        raise ConfigError("--nodes: a cluster is a head, which does no work, and workers: give 2 or more")
    with _locked():
        if cluster := running():
            return _checked(cluster, nodes, cpus_per_node)
        return _start_all(nodes, cpus_per_node)


def _checked(cluster: LocalCluster, nodes: int, cpus_per_node: float) -> LocalCluster:
    """Return the running cluster; raise RunError unless it is complete and has the requested size."""
    remedy, alive = "; `multicsr cluster down` ends it", cluster.num_alive
    if alive < max(cluster.wanted, 1):
        raise RunError(
            f"a part of a cluster is up at {cluster.address}, {alive} of {cluster.wanted} nodes{remedy}"
        )
    if (cluster.wanted, cluster.cpus_per_node) != (nodes, cpus_per_node):
        raise RunError(
            f"a cluster is up already at {cluster.address}, with --nodes {cluster.wanted} --cpus "
            f"{cluster.cpus_per_node:g}, not --nodes {nodes} --cpus {cpus_per_node:g}{remedy}"
        )
    return cluster


def _start_all(nodes: int, cpus_per_node: float) -> LocalCluster:
    gcs_port, dashboard_port, client_port, *ports = free_ports(3 + 2 * nodes)
    cluster = LocalCluster(
        id=secrets.token_hex(8),
        address=f"127.0.0.1:{gcs_port}",
        dashboard=f"http://127.0.0.1:{dashboard_port}",
        token_file=make_token(state_folder() / "auth_token"),
        # Not in the state folder: the paths of Ray's sockets would be too long there.
        folder=Path(tempfile.mkdtemp(prefix="multicsr-")),
        wanted=nodes,
        cpus_per_node=cpus_per_node,
    )
    head = ["--head", f"--port={gcs_port}", f"--temp-dir={cluster.folder / 'ray'}", "--num-cpus=0"]
    head += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]
    head += [f"--ray-client-server-port={client_port}"]
    worker = [f"--address={cluster.address}", f"--num-cpus={cpus_per_node:g}"]
    try:
        _record(cluster)  # before its first process, so that `down` finds whatever was started
        for number in range(nodes):
            role = ROLES[(number - 1) % len(ROLES)] if number else "head"
            cluster = _start(cluster, role, worker if number else head, ports[2 * number :])
            _wait(cluster)  # one after the other: two that start at the same time take the same socket
    except BaseException:
        _end(cluster)
        raise
    return cluster


def down() -> LocalCluster:
    """End every process of the cluster, and no other process; return the record of the cluster.

    Raises:
        RunError: no cluster is running.
    """
    with _locked():
        if (cluster := running()) is None:
            raise RunError("no cluster is up here; `multicsr cluster up` starts one")
        _end(cluster)
        return cluster


def alive(cluster: LocalCluster) -> list[Mapping[str, object]]:
    """Return the nodes that the head reports as alive; an empty list if it does not answer as expected."""
    token = cluster.token_file.read_text(encoding="utf-8")
    asked = Request(f"{cluster.dashboard}/api/v0/nodes", headers={"Authorization": f"Bearer {token}"})
    try:
        with urlopen(asked, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]["result"]
        return [node for node in found if node["state"] == "ALIVE"]
    except (OSError, HTTPException, LookupError, TypeError, ValueError):
        return []  # the head is starting, or another program answers at its port


def _start(cluster: LocalCluster, role: str, arguments: Sequence[str], ports: Sequence[int]) -> LocalCluster:
    """Start a node and add it to the record.

    Returns:
        The record of the cluster with the new node.
    """
    labelled = [*arguments, f"--labels={ROLE_LABEL}={role}"]
    pid = start_node(labelled, ports, _environment(cluster), _log(cluster, len(cluster.nodes), role))
    node = Node(role=role, pid=pid, metrics_port=ports[0])
    cluster = cluster.model_copy(update={"nodes": [*cluster.nodes, node]})
    _record(cluster)
    return cluster


def _record(cluster: LocalCluster) -> None:
    """Replace the record of the cluster. If this process is killed meanwhile, the old record stays."""
    new = state_folder() / "cluster.json.new"
    new.write_text(cluster.model_dump_json(indent=2) + "\n", encoding="utf-8")
    new.replace(state_folder() / "cluster.json")


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock of the state folder; the system releases it when the process ends for any reason.

    Raises:
        RunError: another process holds the lock.
    """
    state_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state_folder() / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                "another `multicsr cluster` command is running on this machine; wait for its end"
            ) from None
        yield


def _environment(cluster: LocalCluster) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")}
    # The `python` in a job's entrypoint must be the interpreter that runs here.
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    name, _, value = cluster.mark.partition("=")
    return {**kept, **cluster.environment, "PATH": path, name: value}


def _wait(cluster: LocalCluster) -> None:
    """Wait until all nodes of the cluster are alive.

    Raises:
        RunError: a node ended, or was not alive in time.
    """
    deadline = time.monotonic() + _START_S
    while len(alive(cluster)) < len(cluster.nodes):
        for number, node in enumerate(cluster.nodes):
            if not carries(node.pid, cluster.mark):
                raise RunError(
                    f"the Ray node {node.role} ended: {last_lines(_log(cluster, number, node.role))}"
                )
        if time.monotonic() > deadline:
            raise RunError(f"a Ray node did not start within {_START_S:g} s; check free memory and CPUs")
        time.sleep(0.5)


def _log(cluster: LocalCluster, number: int, role: str) -> Path:
    return cluster.folder / f"{number}-{role}.log"


def _end(cluster: LocalCluster) -> None:
    """End all processes of the cluster and delete its files.

    Workers are ended before the head, because a worker without a head waits for it.
    """
    pids = [node.pid for node in cluster.nodes]
    end(cluster.mark, [pids[1:], pids[:1]], _STOP_S)
    shutil.rmtree(cluster.folder, ignore_errors=True)
    (state_folder() / "cluster.json").unlink(missing_ok=True)
    cluster.token_file.unlink(missing_ok=True)
