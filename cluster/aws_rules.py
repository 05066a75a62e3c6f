"""What Ray's own validation of a cluster file misses: open doors, unencrypted disks, costs that do not end.

python cluster/aws_rules.py my-aws.yaml
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Config = Mapping[str, Any]
RAY_VERSION = "2.60.0"
_ROLE = "multicsr.io/role"
_TOKEN = "~/.ray/auth_token"
_MAX_IDLE_MINUTES = 30


def findings(config: Config) -> list[str]:
    """What is wrong, one line each, with the setting's name first; nothing when all is well."""
    checks: list[Callable[[Config], Iterator[str]]] = [_provider, _token, _commands, _images, _head, _nodes]
    return [finding for check in checks for finding in check(config)]


def _provider(config: Config) -> Iterator[str]:
    provider = config.get("provider", {})
    if provider.get("cache_stopped_nodes", True):
        yield "provider.cache_stopped_nodes: stopped nodes keep costing; set it to false"
    if not provider.get("use_internal_ips"):
        yield "provider.use_internal_ips: nodes would get public addresses; set it to true"
    if not 0 < config.get("idle_timeout_minutes", 0) <= _MAX_IDLE_MINUTES:
        yield f"idle_timeout_minutes: idle nodes cost; set 1 to {_MAX_IDLE_MINUTES}"


def _token(config: Config) -> Iterator[str]:
    if _TOKEN not in config.get("file_mounts", {}):
        yield f"file_mounts: no {_TOKEN}: nodes would have no token"
    if not any(f"chmod 600 {_TOKEN}" in command for command in config.get("setup_commands", [])):
        yield f"setup_commands: other users could read the token; chmod 600 {_TOKEN}"


def _commands(config: Config) -> Iterator[str]:
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        for command in config.get(name, []):
            if "ray start" in command and "RAY_AUTH_MODE=token" not in command.partition("ray start")[0]:
                yield f"{name}: Ray would let everybody in; export RAY_AUTH_MODE=token before ray start"
            if "--head" in command and "--dashboard-host=127.0.0.1" not in command:
                yield f"{name}: the dashboard would listen everywhere; add --dashboard-host=127.0.0.1"
        if not any("ray start" in command for command in config.get(name, [])):
            yield f"{name}: no ray start; Ray's default has no token and an open dashboard"
    for name in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        if name not in config:
            yield f"{name}: Ray's default installs a nightly build; set it, to [] if there is nothing to do"
        elif any("pip install" in command for command in config[name]):
            yield f"{name}: pip install repeats on every new node; put it into the image"


def _images(config: Config) -> Iterator[str]:
    docker = config.get("docker", {})
    named = {f"docker.{key}": docker[key] for key in ("image", "head_image", "worker_image") if key in docker}
    for name, node in _node_types(config):
        if image := node.get("docker", {}).get("worker_image"):
            named[f"{name}.docker.worker_image"] = image
    if not docker.keys() & {"image", "head_image"}:
        yield "docker.image: nodes would run what the machine image has; name the project's image"
    for setting, image in named.items():
        if f"ray{RAY_VERSION}" not in image.rpartition(":")[2]:
            yield f"{setting}: {image} is not pinned to Ray {RAY_VERSION}"


def _head(config: Config) -> Iterator[str]:
    head = config.get("available_node_types", {}).get(config.get("head_node_type"), {})
    if head.get("resources", {}).get("CPU") != 0:
        yield "head: work would be scheduled there; set resources: {CPU: 0}"
    if "InstanceMarketOptions" in head.get("node_config", {}):
        yield "head: a reclaimed head ends every job; no InstanceMarketOptions there"


def _nodes(config: Config) -> Iterator[str]:
    head = str(config.get("head_node_type"))
    profiles = {name: node["node_config"].get("IamInstanceProfile") for name, node in _node_types(config)}
    for name, node in _node_types(config):
        node_config = node["node_config"]
        yield from _node(name, node_config)
        if name == head:
            continue
        role = node.get("labels", {}).get(_ROLE)
        if role is None:
            yield f"{name}: no label {_ROLE}: no stage could ask for it"
        if role == "train" and "InstanceMarketOptions" in node_config:
            yield f"{name}: a training waits for every reclaimed worker; no InstanceMarketOptions there"
        if node.get("resources", {}).get("GPU") and node["resources"].get("CPU") != 0:
            yield f"{name}: work without a GPU would hold the GPU node; set resources: {{CPU: 0}}"
        if node.get("min_workers", 0) > 0:
            yield f"{name}: min_workers nodes never go, whatever is idle; set it to 0"
        if profiles[name] is not None and profiles[name] == profiles.get(head):
            yield f"{name}: workers would have the head's rights; give them a profile of their own"


def _node(name: str, node: Mapping[str, Any]) -> Iterator[str]:
    if not node.get("SecurityGroupIds"):
        yield f"{name}: without SecurityGroupIds Ray makes a group that is open to SSH from 0.0.0.0/0"
    if not node.get("IamInstanceProfile"):
        yield f"{name}: without IamInstanceProfile Ray gives the head AmazonEC2FullAccess, workers nothing"
    if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
        yield f"{name}: a fetched page could take the role's keys; MetadataOptions.HttpTokens: required"
    disks = node.get("BlockDeviceMappings", [])
    if not disks or not all(disk.get("Ebs", {}).get("Encrypted") for disk in disks):
        yield f"{name}: BlockDeviceMappings: set Encrypted: true on every disk"
    for problem in _unknown_to_ec2(node):
        yield f"{name}: {problem}"


def _unknown_to_ec2(node: Mapping[str, Any]) -> list[str]:
    """Ray's schema leaves node_config open; EC2's own description of RunInstances does not."""
    import botocore.session
    from botocore.validate import ParamValidator

    ec2 = botocore.session.get_session().get_service_model("ec2")
    shape = ec2.operation_model("RunInstances").input_shape
    asked = {**node, "MinCount": 1, "MaxCount": 1}
    report = ParamValidator().validate(asked, shape).generate_report()
    return [line for line in report.splitlines() if line]


def _node_types(config: Config) -> list[tuple[str, Mapping[str, Any]]]:
    return list(config.get("available_node_types", {}).items())


def main() -> int:
    """Print the findings of the files that are named."""
    found = [
        f"{path}: {finding}"
        for path in sys.argv[1:]
        for finding in findings(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    ]
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
