"""Makes, once, what `ray up` must not make itself: the security group, and the two roles.

    python cluster/prepare_aws.py --ssh-from 198.51.100.7/32 --bucket corpora > my-aws.yaml

Prints aws.yaml with the security group's id. Everything is looked at before anything is made. A group or a
role that is there is brought to what is asked, whatever run left it so; what somebody else added to it is
rejected. Who runs this needs the right to make roles; who runs `ray up` does not.
"""

import argparse
import ipaddress
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError

_TEMPLATE = Path(__file__).parent / "aws.yaml"
_PLACEHOLDER = "sg-00000000000000000"
_GROUP = "multicsr-ray"
_HEAD, _WORKER = "multicsr-head", "multicsr-worker"
_TAG = "ray-cluster-name"
_TOKEN = "~/.ray/auth_token"
_SMALLEST_PREFIX = {4: 16, 6: 48}
_SSH = 22


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ssh-from", required=True, type=_network, help="the network that may use SSH")
    parser.add_argument("--bucket", required=True, type=_bucket, help="the bucket of the store")
    parser.add_argument("--prefix", default="", type=_prefix, help="of the store in the bucket")
    parser.add_argument("--vpc", help="default: the region's default VPC")
    given = parser.parse_args(argv)
    text = _TEMPLATE.read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    _check_token()
    try:
        session = boto3.session.Session(region_name=config["provider"]["region"])
        group = _prepare(session, given, config["cluster_name"])
    except (BotoCoreError, ClientError) as error:
        reason = " ".join(str(error).split())
        raise SystemExit(
            f"error: AWS: {reason}; check the credentials, their rights and the region"
        ) from error
    sys.stdout.write(text.replace(_PLACEHOLDER, group))
    return 0


def _prepare(session: boto3.session.Session, given: argparse.Namespace, cluster: str) -> str:
    """Look at everything, then make what is missing; return the id of the security group."""
    account = session.client("sts").get_caller_identity()["Account"]
    vpc = given.vpc or _default_vpc(session)
    found = _find_group(session, vpc)
    if found:
        _check_rules(found)
    for name in (_WORKER, _HEAD):
        _check_role(session, name)
    group = _make_group(session, found, vpc, given.ssh_from)
    data = _bucket_rights(given.bucket, given.prefix)
    _make_role(session, _WORKER, data)
    _make_role(session, _HEAD, [*data, *_head_rights(account, cluster)])
    return group


def _network(text: str) -> str:
    """Return the network as AWS spells it."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no network such as 198.51.100.7/32") from error
    if network.prefixlen < _SMALLEST_PREFIX[network.version]:
        raise argparse.ArgumentTypeError(f"{text} lets too many in; name your own network")
    if network.is_loopback or network.is_multicast or network.is_unspecified:
        raise argparse.ArgumentTypeError(f"{text} lets nobody in; name the network that SSH comes from")
    return str(network)


def _bucket(text: str) -> str:
    """Return the name of a bucket; in a policy an asterisk would stand for all of them."""
    if not re.fullmatch(r"[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]", text):
        raise argparse.ArgumentTypeError(f"{text} is no bucket; write its name alone, such as corpora")
    return text


def _prefix(text: str) -> str:
    """Return a prefix without the characters that stand for others in a policy."""
    if found := re.search(r"[*?$\s]", text):
        raise argparse.ArgumentTypeError(f"{text}: a prefix with {found[0]!r} would match others as well")
    return text


def _check_token() -> None:
    """Raise unless the token is there that `ray up` copies to the nodes."""
    try:
        is_there = bool(Path(_TOKEN).expanduser().read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        is_there = False
    if not is_there:
        raise SystemExit(f"error: no token in {_TOKEN}; `ray get-auth-token --generate` makes it")


def _default_vpc(session: boto3.session.Session) -> str:
    answer = session.client("ec2").describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])
    if not answer["Vpcs"]:
        raise SystemExit(f"error: {session.region_name} has no default VPC; name yours with --vpc")
    return str(answer["Vpcs"][0]["VpcId"])


class _Rule(NamedTuple):
    """What may come in: one source of one permission."""

    protocol: str
    first_port: int | None
    last_port: int | None
    kind: str
    """The key of the source in AWS's permission."""
    source: str

    @property
    def is_ssh(self) -> bool:
        ports = (self.protocol, self.first_port, self.last_port)
        return ports == ("tcp", _SSH, _SSH) and self.kind in ("IpRanges", "Ipv6Ranges")

    def __str__(self) -> str:
        ports = "all ports" if self.first_port is None else f"{self.first_port} to {self.last_port}"
        return f"{self.source} ({self.protocol}, {ports})"

    def permission(self) -> dict[str, Any]:
        """Return the rule as AWS takes it."""
        ports = {} if self.first_port is None else {"FromPort": self.first_port, "ToPort": self.last_port}
        return {"IpProtocol": self.protocol, **ports, self.kind: [{_SOURCES[self.kind]: self.source}]}


_SOURCES = {
    "IpRanges": "CidrIp",
    "Ipv6Ranges": "CidrIpv6",
    "PrefixListIds": "PrefixListId",
    "UserIdGroupPairs": "GroupId",
}


def _rules(group: Mapping[str, Any]) -> Iterator[_Rule]:
    for permission in group["IpPermissions"]:
        ports = permission["IpProtocol"], permission.get("FromPort"), permission.get("ToPort")
        for kind, key in _SOURCES.items():
            for source in permission.get(kind, ()):
                yield _Rule(*ports, kind, source[key])


def _within(group: str) -> _Rule:
    return _Rule("-1", None, None, "UserIdGroupPairs", group)


def _find_group(session: boto3.session.Session, vpc: str) -> Mapping[str, Any] | None:
    of_name = [{"Name": "group-name", "Values": [_GROUP]}, {"Name": "vpc-id", "Values": [vpc]}]
    found = session.client("ec2").describe_security_groups(Filters=of_name)["SecurityGroups"]
    return found[0] if found else None


def _check_rules(group: Mapping[str, Any]) -> None:
    """Raise if somebody opened the group to more than SSH and its own nodes."""
    for rule in _rules(group):
        if not rule.is_ssh and rule != _within(group["GroupId"]):
            raise SystemExit(f"error: the security group {_GROUP} has a rule for {rule}; remove it")


def _make_group(
    session: boto3.session.Session, found: Mapping[str, Any] | None, vpc: str, ssh_from: str
) -> str:
    """Return the id of the group: nodes reach each other, SSH comes from one network, all may go out."""
    ec2 = session.client("ec2")
    if found is None:
        properties = {"Description": "Ray nodes of MultiCSR", "VpcId": vpc}
        group, have = str(ec2.create_security_group(GroupName=_GROUP, **properties)["GroupId"]), set()
    else:
        group, have = str(found["GroupId"]), set(_rules(found))
    kind = "Ipv6Ranges" if ":" in ssh_from else "IpRanges"
    want = {_within(group), _Rule("tcp", _SSH, _SSH, kind, ssh_from)}
    if missing := want - have:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[r.permission() for r in missing])
    if left := have - want:
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[r.permission() for r in left])
        sys.stderr.write(f"no longer let in: {', '.join(sorted(map(str, left)))}\n")
    return group


def _check_role(session: boto3.session.Session, name: str) -> None:
    """Raise if the role or its instance profile, if there, has what was not made here."""
    iam = session.client("iam")
    try:
        attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        inline = iam.list_role_policies(RoleName=name)["PolicyNames"]
    except iam.exceptions.NoSuchEntityException:
        attached, inline = [], []
    if others := [*(policy["PolicyName"] for policy in attached), *(set(inline) - {name})]:
        raise SystemExit(f"error: the role {name} also has the policy {others[0]}; take it from the role")
    for role in _roles_of_profile(iam, name):
        if role != name:
            raise SystemExit(f"error: the instance profile {name} carries the role {role}; take it out")


def _roles_of_profile(iam: Any, name: str) -> list[str]:  # noqa: ANN401 - boto3's clients have no type
    try:
        roles = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
    except iam.exceptions.NoSuchEntityException:
        return []
    return [role["RoleName"] for role in roles]


def _make_role(session: boto3.session.Session, name: str, rights: list[dict[str, Any]]) -> None:
    """Make what is missing of a role with these rights and the instance profile that carries it."""
    iam = session.client("iam")
    there = iam.exceptions.EntityAlreadyExistsException
    service = {"Service": "ec2.amazonaws.com"}
    trust = _policy([{"Effect": "Allow", "Principal": service, "Action": "sts:AssumeRole"}])
    try:
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
    except there:
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
    iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=_policy(rights))
    with suppress(there):
        iam.create_instance_profile(InstanceProfileName=name)
    if not _roles_of_profile(iam, name):
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def _bucket_rights(bucket: str, prefix: str) -> list[dict[str, Any]]:
    folder = prefix.strip("/")
    objects = f"arn:aws:s3:::{bucket}/{folder}/*" if folder else f"arn:aws:s3:::{bucket}/*"
    data = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    within = {"Condition": {"StringLike": {"s3:prefix": [folder, f"{folder}/*"]}}} if folder else {}
    return [
        {"Effect": "Allow", "Action": data, "Resource": objects},
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
            "Resource": f"arn:aws:s3:::{bucket}",
            **within,
        },
    ]


def _head_rights(account: str, cluster: str) -> list[dict[str, Any]]:
    """Rights to start workers, and to tag and end those of this cluster; not to hand out any other role.

    Ray tags what it starts, and later changes tags of its own. Who may tag any instance may end it.
    """
    instances = f"arn:aws:ec2:*:{account}:instance/*"
    is_new = {"ec2:CreateAction": "RunInstances", f"aws:RequestTag/{_TAG}": cluster}
    is_ours = {"StringEquals": {f"ec2:ResourceTag/{_TAG}": cluster}}
    tag = {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": instances}
    return [
        {"Effect": "Allow", "Action": ["ec2:Describe*", "ec2:RunInstances"], "Resource": "*"},
        {**tag, "Condition": {"StringEquals": is_new}},
        {**tag, "Condition": is_ours},
        {"Effect": "Allow", "Action": "ec2:TerminateInstances", "Resource": "*", "Condition": is_ours},
        {"Effect": "Allow", "Action": "iam:PassRole", "Resource": f"arn:aws:iam::{account}:role/{_WORKER}"},
    ]


def _policy(statements: list[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


if __name__ == "__main__":
    sys.exit(main())
