"""One Ray node of several on a machine, as a process of its own."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

_OBJECT_STORE_BYTES = 256 * 2**20


def start_node(
    arguments: Sequence[str], ports: Sequence[int], environment: Mapping[str, str], log: Path
) -> int:
    """The number of a process that lives as long as the node does.

    Args:
        arguments: of `ray start`, beside what every such node needs.
        ports: of its metrics and of its agent.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments]
    command += ["--node-ip-address=127.0.0.1", "--num-gpus=0"]
    command += [f"--metrics-export-port={ports[0]}", f"--dashboard-agent-listen-port={ports[1]}"]
    # Nodes of one machine would hand out the same ports to their workers.
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
    return process.pid


def last_words(log: Path) -> str:
    """Why a node ended, as far as its log tells."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [line for line in lines if "Error" in line or "Exception:" in line]
    return (errors or lines or ["it said nothing"])[-1]


def make_token(path: Path) -> Path:
    """A new token, which nobody else may read at any time."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    return path


def free_ports(count: int) -> list[int]:
    """All different; if another program takes one before Ray does, the start fails."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
