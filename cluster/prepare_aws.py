"""Makes, once, what `ray up` must not make itself: the security group, and the two roles.

    python cluster/prepare_aws.py --ssh-from 198.51.100.7/32 --bucket corpora > my-aws.yaml

Prints aws.yaml with the security group's id. A group that is there is taken if it is closed; roles get their
rights anew. Who runs this needs the right to make roles; who runs `ray up` does not.
"""

import argparse
import ipaddress
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
import yaml

_TEMPLATE = Path(__file__).parent / "aws.yaml"
_PLACEHOLDER = "sg-00000000000000000"
_GROUP = "multicsr-ray"
_HEAD, _WORKER = "multicsr-head", "multicsr-worker"
_SMALLEST_PREFIX = {4: 16, 6: 48}


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ssh-from", required=True, type=_network, help="the network that may use SSH")
    parser.add_argument("--bucket", required=True, help="the bucket of the store")
    parser.add_argument("--prefix", default="", help="of the store in the bucket")
    parser.add_argument("--vpc", help="default: the region's default VPC")
    given = parser.parse_args(argv)
    text = _TEMPLATE.read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    session = boto3.session.Session(region_name=config["provider"]["region"])
    group = _security_group(session, given.ssh_from, given.vpc)
    data = _bucket_rights(given.bucket, given.prefix)
    _role(session, _WORKER, data)
    _role(session, _HEAD, [*data, *_head_rights(session, config["cluster_name"])])
    sys.stdout.write(text.replace(_PLACEHOLDER, group))
    return 0


def _network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no network such as 198.51.100.7/32") from error
    if network.prefixlen < _SMALLEST_PREFIX[network.version]:
        raise argparse.ArgumentTypeError(f"{text} lets too many in; name your own network")
    return text


def _check(source: str) -> None:
    """Of a rule that somebody made before."""
    try:
        _network(source)
    except argparse.ArgumentTypeError as error:
        raise SystemExit(f"error: the security group {_GROUP} has a rule for {error}") from error


def _security_group(session: boto3.session.Session, ssh_from: str, vpc: str | None) -> str:
    """Its id: nodes reach each other, SSH comes from one network, everything may go out."""
    ec2 = session.client("ec2")
    if vpc is None:
        vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    of_name = [{"Name": "group-name", "Values": [_GROUP]}, {"Name": "vpc-id", "Values": [vpc]}]
    if found := ec2.describe_security_groups(Filters=of_name)["SecurityGroups"]:
        for rule in found[0]["IpPermissions"]:
            for source in (*rule.get("IpRanges", ()), *rule.get("Ipv6Ranges", ())):
                _check(source.get("CidrIp") or source["CidrIpv6"])
        return str(found[0]["GroupId"])
    told = {"Description": "Ray nodes of MultiCSR", "VpcId": vpc}
    group = ec2.create_security_group(GroupName=_GROUP, **told)["GroupId"]
    ranges = "Ipv6Ranges" if ":" in ssh_from else "IpRanges"
    cidr = "CidrIpv6" if ":" in ssh_from else "CidrIp"
    ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]},
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, ranges: [{cidr: ssh_from}]},
        ],
    )
    return str(group)


def _role(session: boto3.session.Session, name: str, rights: list[dict[str, Any]]) -> None:
    """A role with these rights, and the instance profile that carries it."""
    iam = session.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    try:
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=_policy([trust]))
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    except iam.exceptions.EntityAlreadyExistsException:
        pass
    iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=_policy(rights))


def _bucket_rights(bucket: str, prefix: str) -> list[dict[str, Any]]:
    objects = f"arn:aws:s3:::{bucket}/{prefix.strip('/')}/*" if prefix else f"arn:aws:s3:::{bucket}/*"
    data = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    return [
        {"Effect": "Allow", "Action": data, "Resource": objects},
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
            "Resource": f"arn:aws:s3:::{bucket}",
        },
    ]


def _head_rights(session: boto3.session.Session, cluster: str) -> list[dict[str, Any]]:
    """To start workers, and to end those of this cluster; not to hand out any other role."""
    account = session.client("sts").get_caller_identity()["Account"]
    is_ours = {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": cluster}}
    return [
        {"Effect": "Allow", "Action": ["ec2:Describe*", "ec2:RunInstances"], "Resource": "*"},
        {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": f"arn:aws:ec2:*:{account}:instance/*"},
        {"Effect": "Allow", "Action": "ec2:TerminateInstances", "Resource": "*", "Condition": is_ours},
        {"Effect": "Allow", "Action": "iam:PassRole", "Resource": f"arn:aws:iam::{account}:role/{_WORKER}"},
    ]


def _policy(statements: list[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


if __name__ == "__main__":
    sys.exit(main())
