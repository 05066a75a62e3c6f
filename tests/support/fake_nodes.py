"""Ray's own autoscaler (v2) on one machine: its nodes are real Ray nodes, but no pods.

The head, the autoscaler and whatever they start are ended by their process ids, never by name. Temporary
directory and token are of this run alone.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

HEAD_ID = "f" * 51 + "00000"
"""What Ray's provider of fake nodes calls the head."""
HEAD_TYPE = "ray.head.default"
_MB = 1_000_000
_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
_NOTHING = {
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
    "auth": {},
}


class FakeNodes:
    """A head without work, and an autoscaler beside it that knows the given node types."""

    def __init__(self, node_types: Mapping[str, object]) -> None:
        # Short, because sockets lie in it.
        self.folder = Path(tempfile.mkdtemp(prefix="mc"))
        self.started: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        }
        self.node_types = node_types
        self.address = ""

    def __enter__(self) -> "FakeNodes":
        try:
            self._start_head()
            self._start_autoscaler()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        # The autoscaler first, which would start what is missing.
        ours = [psutil.Process(process.pid) for process in reversed(self.started) if process.poll() is None]
        ours += [child for process in ours for child in process.children(recursive=True)]
        for process in (*ours, *self._strays()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for started in self.started:
            started.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _strays(self) -> list[psutil.Process]:
        """Processes that lost their parent; they carry the name of our directory."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if str(self.folder) in " ".join(process.info["cmdline"] or []):
                found.append(process)
        return found

    def _start(self, name: str, *command: str, **extra: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command, env=self.environment | extra, stdout=log, stderr=subprocess.STDOUT
            )
        self.started.append(process)
        return process

    def _start_head(self) -> None:
        head = self._start(
            "head",
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0"),
            *("--num-cpus=0", "--num-gpus=0", f"--object-store-memory={80 * _MB}", "--no-monitor"),
            *("--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={self.folder}/ray"),
            RAY_OVERRIDE_NODE_ID_FOR_TESTING=HEAD_ID,
            RAY_CLOUD_INSTANCE_ID=HEAD_ID,
            RAY_NODE_TYPE_NAME=HEAD_TYPE,
        )
        where = self.folder / "ray" / "ray_current_cluster"
        deadline = time.monotonic() + 60
        while not where.is_file():
            assert head.poll() is None, self.log("head")
            assert time.monotonic() < deadline, self.log("head")
            time.sleep(0.2)
        self.address = where.read_text().strip()

    def _start_autoscaler(self) -> None:
        config = self.folder / "autoscaler.yaml"
        config.write_text(json.dumps(self._config()))
        self._start(
            "autoscaler",
            *(sys.executable, "-m", "ray.autoscaler.v2.monitor", f"--gcs-address={self.address}"),
            *(f"--autoscaling-config={config}", f"--logs-dir={self.folder}", "--logging-filename="),
        )

    def _config(self) -> dict[str, object]:
        workers = sum(int(str(node["max_workers"])) for node in self.node_types.values())  # type: ignore[index]
        provider = {
            "type": "external",
            "module": _PROVIDER,
            "gcs_address": self.address,
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "foreground_node_launch": True,
            "worker_liveness_check": False,
        }
        return {
            "cluster_name": "fake",
            "provider": provider,
            "head_node_type": HEAD_TYPE,
            "available_node_types": self.node_types,
            "max_workers": workers,
            "idle_timeout_minutes": 1,
            "upscaling_speed": 1000,
            **_NOTHING,
        }

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]
