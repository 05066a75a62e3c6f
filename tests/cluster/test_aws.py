"""The file for `ray up`: Ray's own checks, ours for what Ray's miss, and a cluster of it in moto's EC2."""

import copy
from pathlib import Path

import pytest
import yaml

from cluster.aws_rules import RAY_VERSION, findings
from cluster.prepare_aws import main as prepare
from multicsr import __version__

FILE = Path(__file__).parents[2] / "cluster" / "aws.yaml"
EVERYWHERE = {"0.0.0.0/0", "::/0"}


@pytest.fixture
def config():
    # Through JSON-like copies, so that a change of one node type does not reach another by a YAML anchor.
    loaded = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    for node in loaded["available_node_types"].values():
        node["node_config"] = copy.deepcopy(node["node_config"])
    return loaded


def test_the_file_passes_rays_validation_and_ours(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))
    assert findings(config) == []


def test_images_carry_the_projects_version(config):
    images = [config["docker"]["image"]]
    for node in config["available_node_types"].values():
        images += [node["docker"]["worker_image"]] if "docker" in node else []
    assert len(images) == 3
    tags = [image.rpartition(":")[2] for image in images]
    assert {tag.rpartition("-")[0] for tag in tags} == {f"{__version__}-ray{RAY_VERSION}"}


def _set(path, value):
    *folders, last = path.split("/")

    def change(config):
        for folder in folders:
            config = config[folder]
        if value is None:
            del config[last]
        else:
            config[last] = value

    return change


NODES = "available_node_types"
SPOT = {"MarketType": "spot"}
BROKEN = {
    "provider.cache_stopped_nodes": _set("provider/cache_stopped_nodes", True),
    "provider.use_internal_ips": _set("provider/use_internal_ips", None),
    "idle_timeout_minutes": _set("idle_timeout_minutes", 600),
    "file_mounts: no ~/.ray/auth_token": _set("file_mounts", {}),
    "setup_commands: other users": _set("setup_commands", []),
    "head_start_ray_commands: Ray would let": _set(
        "head_start_ray_commands", ["ray start --head --dashboard-host=127.0.0.1"]
    ),
    "head_start_ray_commands: the dashboard": _set(
        "head_start_ray_commands", ["export RAY_AUTH_MODE=token; ray start --head --dashboard-host=0.0.0.0"]
    ),
    "worker_start_ray_commands: no ray start": _set("worker_start_ray_commands", None),
    "head_setup_commands: Ray's default": _set("head_setup_commands", None),
    "worker_setup_commands: pip install": _set("worker_setup_commands", ["pip install ray"]),
    "docker.image: rayproject/ray:latest": _set("docker/image", "rayproject/ray:latest"),
    "docker.image: nodes would run": _set("docker", {}),
    "head: work would be scheduled": _set(f"{NODES}/head/resources", {}),
    "head: a reclaimed head": _set(f"{NODES}/head/node_config/InstanceMarketOptions", SPOT),
    "cpu: without SecurityGroupIds": _set(f"{NODES}/cpu/node_config/SecurityGroupIds", None),
    "cpu: without IamInstanceProfile": _set(f"{NODES}/cpu/node_config/IamInstanceProfile", None),
    "cpu: workers would have": _set(f"{NODES}/cpu/node_config/IamInstanceProfile", {"Name": "multicsr-head"}),
    "cpu: no label": _set(f"{NODES}/cpu/labels", None),
    "cpu: min_workers": _set(f"{NODES}/cpu/min_workers", 1),
    "cpu: a fetched page": _set(f"{NODES}/cpu/node_config/MetadataOptions", None),
    "generate: BlockDeviceMappings": _set(
        f"{NODES}/generate/node_config/BlockDeviceMappings",
        [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 9}}],
    ),
    "generate: work without a GPU": _set(f"{NODES}/generate/resources", {"CPU": 8, "GPU": 1}),
    "train: a training waits": _set(f"{NODES}/train/node_config/InstanceMarketOptions", SPOT),
    "train: Unknown parameter": _set(f"{NODES}/train/node_config/InstanceMarketOption", SPOT),
    "train: Invalid type": _set(f"{NODES}/train/node_config/InstanceType", 16),
}


@pytest.mark.parametrize(("expected", "change"), BROKEN.items(), ids=BROKEN)
def test_a_broken_file_is_refused(config, expected, change):
    change(config)
    found = findings(config)
    assert len(found) == 1, found
    assert found[0].startswith(expected)


def test_only_a_named_network_may_use_ssh(capsys):
    for network in ("0.0.0.0/0", "::/0", "10.0.0.0/8", "somewhere"):
        with pytest.raises(SystemExit):
            prepare(["--ssh-from", network, "--bucket", "corpora"])
    assert "lets too many in" in capsys.readouterr().err


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """An account that is moto's."""
    from moto import mock_aws

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps the new key there
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        yield


def test_a_group_of_that_name_that_is_open_is_refused(aws):
    import boto3

    ec2 = boto3.client("ec2", region_name="eu-central-1")
    [vpc] = ec2.describe_vpcs()["Vpcs"]
    group = ec2.create_security_group(GroupName="multicsr-ray", Description="x", VpcId=vpc["VpcId"])
    rule = {"IpProtocol": "tcp", "FromPort": 8265, "ToPort": 8265, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[rule])
    with pytest.raises(SystemExit, match=r"multicsr-ray has a rule for 0\.0\.0\.0/0"):
        prepare(["--ssh-from", "198.51.100.7/32", "--bucket", "corpora"])


def test_a_cluster_in_moto(aws, capsys):
    """Ray's own launcher makes a spot node of the prepared file, behind a group that is closed."""
    import boto3
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config

    for _ in range(2):  # the second time everything is there
        assert prepare(["--ssh-from", "198.51.100.7/32", "--bucket", "corpora"]) == 0
    texts = capsys.readouterr().out.split("cluster_name:")
    prepared = yaml.safe_load("cluster_name:" + texts[2])
    assert findings(prepared) == []
    ready = prepare_config(prepared)
    validate_config(ready)
    ready = bootstrap_aws(ready)
    provider = AWSNodeProvider(ready["provider"], ready["cluster_name"])
    for name in ("head", "cpu"):
        node = ready["available_node_types"][name]["node_config"]
        provider.create_node(node, {"ray-node-type": name, "ray-node-name": name}, 1)
    ec2 = boto3.client("ec2", region_name="eu-central-1")
    machines = [one for made in ec2.describe_instances()["Reservations"] for one in made["Instances"]]
    groups = {group["GroupId"]: group for group in ec2.describe_security_groups()["SecurityGroups"]}
    iam = boto3.client("iam")
    worker, head = (
        iam.get_role_policy(RoleName=name, PolicyName=name)["PolicyDocument"]["Statement"]
        for name in ("multicsr-worker", "multicsr-head")
    )
    by_type = {one["InstanceType"]: one for one in machines}
    assert by_type["m7i.4xlarge"]["InstanceLifecycle"] == "spot"
    assert "InstanceLifecycle" not in by_type["m7i.2xlarge"]
    assert by_type["m7i.4xlarge"]["IamInstanceProfile"]["Arn"].endswith("/multicsr-worker")
    used = {group["GroupId"] for one in machines for group in one["SecurityGroups"]}
    assert [groups[group]["GroupName"] for group in used] == ["multicsr-ray"]
    for group in groups.values():
        sources = {
            address[key]
            for rule in group["IpPermissions"]
            for kind, key in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6"))
            for address in rule.get(kind, [])
        }
        assert not sources & EVERYWHERE, group["GroupName"]
    ssh = [rule for group in used for rule in groups[group]["IpPermissions"] if rule.get("FromPort") == 22]
    assert [rule["IpRanges"] for rule in ssh] == [[{"CidrIp": "198.51.100.7/32"}]]
    assert all(action.startswith("s3:") for rule in worker for action in _actions(rule))
    passed = [rule for rule in head if "iam:PassRole" in _actions(rule)]
    assert [rule["Resource"].rpartition("/")[2] for rule in passed] == ["multicsr-worker"]


def _actions(rule):
    return [rule["Action"]] if isinstance(rule["Action"], str) else rule["Action"]
