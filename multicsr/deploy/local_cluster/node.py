"""The process of one Ray node, of which several run on this machine."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Environment with which Ray keeps a loopback address. By default it does so only on Windows and macOS."""
_OBJECT_STORE_BYTES = 256 * 2**20


def start_node(
    arguments: Sequence[str], ports: Sequence[int], environment: Mapping[str, str], log: Path
) -> int:
    """Start a node; return the number of a process that lives as long as the node does.

    Args:
        arguments: arguments of `ray start`, in addition to those that every such node needs.
        ports: port of the node's metrics and port of its dashboard agent.
        environment: environment of the process.
        log: file for the output of the process.
    """
    command = [
        sys.executable,
        "-m",
        "multicsr.deploy.local_cluster.loopback_node",
        "start",
        "--block",
        *arguments,
    ]
    command += ["--node-ip-address=127.0.0.1", "--num-gpus=0"]
    command += [f"--metrics-export-port={ports[0]}", f"--dashboard-agent-listen-port={ports[1]}"]
    # With the default range, nodes on one machine would give the same ports to their workers.
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--object-store-memory={_OBJECT_STORE_BYTES}", "--disable-usage-stats"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    while not _environment_of(process.pid) and process.poll() is None:
        time.sleep(0.01)
    return process.pid


def _environment_of(pid: int) -> bytes:
    """Return the environment of a process; it is empty for a moment while the process starts its program.

    Nodes are recognised by their environment, so a node without one would count as ended.
    """
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def last_lines(log: Path) -> str:
    """Return the reason why a node ended: the last line of its log with an error, else its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [line for line in lines if "Error" in line or "Exception:" in line]
    return (errors or lines or ["it wrote no output"])[-1]


def make_token(path: Path) -> Path:
    """Write a new token to a file that no other user can read at any time; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    return path


def free_ports(count: int) -> list[int]:
    """Return `count` different free ports of 127.0.0.1.

    If another program takes one of them before Ray does, the start of the node fails.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
