"""What KubeRay's operator makes of a RayJob in K8sJobMode: one line for the shell of the pod that submits.

As its source (v1.7.0) describes it: wait for the head, submit unless the id is known, follow.
"""

import json
from pathlib import Path
from typing import Any

import yaml

MOUNT = "/etc/multicsr"


def mounted(configuration: dict[str, Any], folder: Path) -> None:
    """A ConfigMap as the kubelet mounts it."""
    folder.mkdir(parents=True)
    for name, text in configuration["data"].items():
        (folder / name).write_text(text, encoding="utf-8")


def shell_line(job: dict[str, Any], address: str, mount: Path) -> str:
    """The line, where the ConfigMap lies in `mount`; nothing else of the RayJob is changed."""
    spec, name = job["spec"], job["spec"]["jobId"]
    assert spec["submissionMode"] == "K8sJobMode"
    entrypoint = spec["entrypoint"].replace(MOUNT, str(mount))
    healthy = (
        f"python3 -c \"import urllib.request as r; r.urlopen('{address}/api/gcs_healthz', timeout=5).read()\""
    )
    words = [
        *("until", healthy, ">/dev/null", "2>&1", ";", "do", "echo", '"waiting for the head"', ";"),
        *("sleep", "2", ";", "done", ";"),
        *("if", "!", "ray", "job", "status", "--address", address, name, ">/dev/null", "2>&1", ";", "then"),
        *("ray", "job", "submit", "--address", address, "--no-wait"),
    ]
    if "runtimeEnvYAML" in spec:
        words += ["--runtime-env-json", _quoted(yaml.safe_load(spec["runtimeEnvYAML"]))]
    if "metadata" in spec:
        words += ["--metadata-json", _quoted(spec["metadata"])]
    words += ["--submission-id", name, "--", entrypoint, ";", "fi", ";"]
    return " ".join([*words, "ray", "job", "logs", "--address", address, "--follow", name])


def _quoted(value: object) -> str:
    """As Go's strconv.Quote does it."""
    return json.dumps(json.dumps(value))
