"""A Ray head of a test's own: private folder and home, free ports, closed by a token."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Self

import psutil

from multicsr.deploy.local_cluster.node import free_ports
from tests.support.paths import ROOT

_START_S = 300
"""The import of Ray alone takes more than a minute on a busy machine; a head that ended is seen at once."""
_TRIES = 4


class Head:
    """`ray start --head` with the Jobs API. A context manager."""

    def __init__(self, folder: Path, cpus: int = 4, extra: dict[str, str] | None = None) -> None:
        self.token = token_hex(32)
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.log = folder / "head.log"
        self._extra = extra or {}
        self._cpus = cpus
        self._temp = ""
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def environment(self, token: str | None = None) -> dict[str, str]:
        """Of a process that talks to this head, with its token or another one."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.home),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token if token is None else token,
            "RAY_USAGE_STATS_ENABLED": "0",
            **self._extra,
        }

    def __enter__(self) -> Self:
        for tries_left in reversed(range(_TRIES)):
            self._start()
            try:
                self._wait()
            except BaseException as error:
                self.stop()
                if not isinstance(error, RuntimeError) or not tries_left:
                    raise
            else:
                return self
        raise AssertionError("every try returns or raises")

    def _start(self) -> None:
        self._temp = tempfile.mkdtemp(prefix="ray-")  # short: sockets lie below it
        ports = free_ports(5)
        self.address = f"http://127.0.0.1:{ports[1]}"
        names = ("--port", "--dashboard-port", "--dashboard-agent-listen-port", "--ray-client-server-port")
        names = (*names, "--metrics-export-port")
        options = [f"{name}={port}" for name, port in zip(names, ports, strict=True)]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", *options]
        command += [f"--num-cpus={self._cpus}", "--num-gpus=0", f"--temp-dir={self._temp}"]
        command += ["--dashboard-host=127.0.0.1", "--object-store-memory=200000000", "--disable-usage-stats"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=self.environment()
            )

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait(self) -> None:
        """Until it has said that it runs, and a node is healthy. Ray gives a slow machine up after 30 s."""
        end = time.monotonic() + _START_S
        while time.monotonic() < end and self.alive:
            with suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"{self.address}/api/gcs_healthz", timeout=5)
                if "Ray runtime started" in self.log.read_text():
                    return
            time.sleep(0.3)
        raise RuntimeError(f"no Ray head: {self.log.read_text()}")

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def stop(self) -> None:
        """End every process that it started."""
        if self._process is None:
            return
        with suppress(psutil.NoSuchProcess):
            family = [*psutil.Process(self._process.pid).children(recursive=True)]
            self._process.terminate()
            psutil.wait_procs(family, timeout=3)
            for one in family:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        self._process.kill()
        self._process.wait()
        self._process = None
        shutil.rmtree(self._temp, ignore_errors=True)

    def logs(self) -> list[Path]:
        """Every log of the session."""
        return [path for path in Path(self._temp).rglob("*") if path.is_file() and not path.is_symlink()]
