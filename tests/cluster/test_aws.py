"""The file for `ray up`: Ray's own checks, ours for what Ray's miss, and a cluster of it in moto's EC2."""

import copy
import json

import pytest
import yaml

from cluster.aws_rules import RAY_VERSION, findings
from cluster.prepare_aws import main as prepare
from multicsr import __version__
from tests.support.paths import ROOT

FILE = ROOT / "cluster" / "aws.yaml"
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
def test_a_broken_file_is_rejected(config, expected, change):
    change(config)
    found = findings(config)
    assert len(found) == 1, found
    assert found[0].startswith(expected)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--ssh-from", "0.0.0.0/0", "lets too many in"),
        ("--ssh-from", "::/0", "lets too many in"),
        ("--ssh-from", "10.0.0.0/8", "lets too many in"),
        ("--ssh-from", "somewhere", "is no network"),
        ("--ssh-from", "198.51.100.7/24", "is no network"),
        ("--ssh-from", "127.0.0.1", "lets nobody in"),
        ("--ssh-from", "::1", "lets nobody in"),
        ("--ssh-from", "224.0.0.0/16", "lets nobody in"),
        ("--bucket", "*", "is no bucket"),
        ("--bucket", "corp*", "is no bucket"),
        ("--bucket", "s3://corpora/x", "is no bucket"),
        ("--bucket", "corpora/x", "is no bucket"),
        ("--prefix", "*", "would match others as well"),
        ("--prefix", "a?/b", "would match others as well"),
        ("--prefix", "${aws:username}", "would match others as well"),
    ],
)
def test_a_word_that_would_let_others_in_is_rejected(capsys, option, value, message):
    words = {"--ssh-from": "198.51.100.7/32", "--bucket": "corpora", option: value}
    with pytest.raises(SystemExit) as failed:
        prepare([word for pair in words.items() for word in pair])
    assert failed.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """An account that is moto's."""
    from moto import mock_aws

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps the new key there
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        yield


ASKED = ["--ssh-from", "198.51.100.7/32", "--bucket", "corpora"]


def client(service):
    import boto3

    return boto3.client(service, region_name="eu-central-1")


def make_group(*rules):
    ec2 = client("ec2")
    [vpc] = ec2.describe_vpcs()["Vpcs"]
    group = ec2.create_security_group(GroupName="multicsr-ray", Description="x", VpcId=vpc["VpcId"])[
        "GroupId"
    ]
    if rules:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=list(rules))
    return group


def tcp(port, *networks):
    return {
        "IpProtocol": "tcp",
        "FromPort": port,
        "ToPort": port,
        "IpRanges": [{"CidrIp": n} for n in networks],
    }


def rules_of_the_group():
    ec2 = client("ec2")
    name = [{"Name": "group-name", "Values": ["multicsr-ray"]}]
    [group] = ec2.describe_security_groups(Filters=name)["SecurityGroups"]
    found = set()
    for rule in group["IpPermissions"]:
        sources = [one["CidrIp"] for one in rule["IpRanges"]]
        sources += [one["CidrIpv6"] for one in rule.get("Ipv6Ranges", [])]
        sources += ["self" for one in rule["UserIdGroupPairs"] if one["GroupId"] == group["GroupId"]]
        found |= {(rule["IpProtocol"], rule.get("FromPort"), source) for source in sources}
    return found


WITHIN = ("-1", None, "self")


@pytest.mark.parametrize(
    "before",
    [
        [],
        [tcp(22, "203.0.113.0/24")],
        [tcp(22, "203.0.113.0/24", "198.51.100.7/32")],
        [tcp(22, "0.0.0.0/0")],
    ],
    ids=["a run that failed behind the group", "another network", "two networks", "all networks"],
)
def test_a_group_that_is_there_gets_the_rules_that_are_asked_for(aws, before):
    make_group(*before)
    for _ in range(2):
        assert prepare(ASKED) == 0
        assert rules_of_the_group() == {WITHIN, ("tcp", 22, "198.51.100.7/32")}


def test_a_second_network_replaces_the_first(aws, capsys):
    prepare(ASKED)
    prepare(["--ssh-from", "2001:db8:1::/48", "--bucket", "corpora"])
    assert rules_of_the_group() == {WITHIN, ("tcp", 22, "2001:db8:1::/48")}
    assert "no longer let in: 198.51.100.7/32" in capsys.readouterr().err


def test_an_address_without_a_prefix_is_that_address(aws):
    prepare(["--ssh-from", "198.51.100.7", "--bucket", "corpora"])
    assert ("tcp", 22, "198.51.100.7/32") in rules_of_the_group()


def test_a_group_that_somebody_opened_is_rejected_before_anything_is_made(aws):
    make_group(tcp(8265, "0.0.0.0/0"))
    with pytest.raises(SystemExit, match=r"multicsr-ray has a rule for 0\.0\.0\.0/0 \(tcp, 8265 to 8265\)"):
        prepare(ASKED)
    assert client("iam").list_roles()["Roles"] == []
    assert rules_of_the_group() == {("tcp", 8265, "0.0.0.0/0")}


@pytest.mark.parametrize("steps", [1, 2])
def test_a_role_without_its_profile_is_completed(aws, steps):
    iam = client("iam")
    iam.create_role(RoleName="multicsr-head", AssumeRolePolicyDocument="{}")
    if steps == 2:
        iam.create_instance_profile(InstanceProfileName="multicsr-head")
    prepare(ASKED)
    for name in ("multicsr-head", "multicsr-worker"):
        profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        assert [role["RoleName"] for role in profile["Roles"]] == [name]
        trust = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
        assert trust["Statement"][0]["Principal"] == {"Service": "ec2.amazonaws.com"}


def test_a_role_with_more_rights_is_rejected(aws):
    iam = client("iam")
    iam.create_role(RoleName="multicsr-worker", AssumeRolePolicyDocument="{}")
    document = json.dumps(
        {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}
    )
    iam.put_role_policy(RoleName="multicsr-worker", PolicyName="more", PolicyDocument=document)
    with pytest.raises(SystemExit, match="multicsr-worker also has the policy more"):
        prepare(ASKED)
    names = [group["GroupName"] for group in client("ec2").describe_security_groups()["SecurityGroups"]]
    assert "multicsr-ray" not in names


def test_a_profile_that_carries_another_role_is_rejected(aws):
    iam = client("iam")
    iam.create_role(RoleName="admin", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="multicsr-head")
    iam.add_role_to_instance_profile(InstanceProfileName="multicsr-head", RoleName="admin")
    with pytest.raises(SystemExit, match="multicsr-head carries the role admin"):
        prepare(ASKED)


def test_no_default_vpc_is_one_line(aws):
    ec2 = client("ec2")
    [vpc] = ec2.describe_vpcs()["Vpcs"]
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=vpc["VpcId"])
    with pytest.raises(SystemExit, match="eu-central-1 has no default VPC; name yours with --vpc"):
        prepare(ASKED)


def test_no_credentials_are_one_line(aws, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SystemExit, match="error: AWS: Unable to locate credentials; check the credentials"):
        prepare(ASKED)


@pytest.mark.parametrize("content", [None, ""])
def test_no_token_is_one_line_with_the_command_that_makes_it(aws, tmp_path, content):
    token = tmp_path / ".ray" / "auth_token"
    token.unlink()
    if content is not None:
        token.write_text(content)
    with pytest.raises(SystemExit, match=r"no token in ~/\.ray/auth_token; `ray get-auth-token --generate`"):
        prepare(ASKED)
    assert client("iam").list_roles()["Roles"] == []


def test_the_recipe_makes_the_token_before_it_is_needed():
    recipe = (FILE.parents[1] / "docs" / "how-to" / "clusters.md").read_text(encoding="utf-8")
    assert 0 < recipe.index("ray get-auth-token --generate") < recipe.index("python cluster/prepare_aws.py")


def test_the_head_may_tag_only_what_it_starts_and_what_is_of_its_cluster(aws):
    prepare([*ASKED, "--prefix", "/tickets/"])
    policy = client("iam").get_role_policy(RoleName="multicsr-head", PolicyName="multicsr-head")
    statements = policy["PolicyDocument"]["Statement"]
    tags = [one["Condition"]["StringEquals"] for one in statements if one["Action"] == "ec2:CreateTags"]
    assert tags == [
        {"ec2:CreateAction": "RunInstances", "aws:RequestTag/ray-cluster-name": "multicsr"},
        {"ec2:ResourceTag/ray-cluster-name": "multicsr"},
    ]
    [ending] = [one for one in statements if one["Action"] == "ec2:TerminateInstances"]
    assert ending["Condition"]["StringEquals"] == {"ec2:ResourceTag/ray-cluster-name": "multicsr"}
    [listing] = [one for one in statements if "s3:ListBucket" in one["Action"]]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["tickets", "tickets/*"]}}
    [objects] = [one for one in statements if "s3:GetObject" in one["Action"]]
    assert objects["Resource"] == "arn:aws:s3:::corpora/tickets/*"


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
