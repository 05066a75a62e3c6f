"""The rules by themselves: amounts, what they make of nonsense, what they import, what roles must allow."""

import copy
import random
import subprocess
import sys
from decimal import Decimal

import pytest

from multicsr.deploy.manifest_checks.check import check
from multicsr.deploy.manifest_checks.model import is_quantity
from multicsr.deploy.manifest_checks.node_groups import groups
from multicsr.deploy.manifest_checks.queue_rules import amount, needs_of
from multicsr.errors import ConfigError
from tests.support.manifests import cluster_of, nightly_job, pick, written
from tests.support.paths import ROOT

KUBE = ROOT / "multicsr/deploy/manifest_checks"
SUBMITTER = {
    ("ray.io", "rayjobs"): {"create", "get", "list", "watch"},
    ("ray.io", "rayclusters"): {"get"},
    ("", "configmaps"): {"create", "get"},
    ("", "pods"): {"list"},
    ("", "pods/log"): {"get"},
    ("", "events"): {"list"},
    ("", "serviceaccounts"): {"get"},
}
"""What `multicsr submit --follow` calls; whoever stops a job deletes its RayJob too."""


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("500m", "0.5"),
        ("2", "2"),
        (3, "3"),
        ("1.5", "1.5"),
        ("16Gi", str(16 * 2**30)),
        ("1Ki", "1024"),
        ("1k", "1000"),
        ("1Ti", str(2**40)),
        ("2e3", "2000"),
        ("2E", "2000000000000000000"),
    ],
)
def test_amounts(text, number):
    assert is_quantity(text)
    assert amount(text) == Decimal(number)


@pytest.mark.parametrize("text", ["16GB", "one", "", "1 Gi", "-", None, [], "Gi"])
def test_what_is_no_amount(text):
    assert not is_quantity(text)


def test_a_gang_is_head_submitter_and_all_workers():
    (job,) = written("overlays/nightly/jobs.yaml")
    for group, replicas in zip(cluster_of(job)["workerGroupSpecs"], (1, 2, 3), strict=True):
        group["replicas"] = replicas
    needs = needs_of(job)
    assert needs["nvidia.com/gpu"] == 5
    assert needs["cpu"] == Decimal("0.5") + 2 + 8 + 2 * 4 + 3 * 8
    assert needs["memory"] == (1 + 16 + 32 + 2 * 32 + 3 * 64) * 2**30


def test_what_is_made_elsewhere_can_be_used():
    (job,) = written("overlays/nightly/jobs.yaml")
    pod = cluster_of(job)["headGroupSpec"]["template"]["spec"]
    pod["imagePullSecrets"] = [{"name": "registry"}]
    pod["volumes"][-1] = {"name": "models", "persistentVolumeClaim": {"claimName": "models"}}
    where = "RayJob refresh: spec.rayClusterSpec.headGroupSpec.template.spec"
    assert check([job]) == [
        f"{where}.imagePullSecrets: no Secret is called registry",
        f"{where}.volumes: no PersistentVolumeClaim is called models",
    ]
    uses = "Secret/registry, PersistentVolumeClaim/models"
    job["metadata"]["annotations"] = {"multicsr.io/made-elsewhere": uses}
    assert check([job]) == []


def _places(tree, path=()):
    """Every path of a document."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from _places(child, (*path, key))


def _spoiled(tree, times):
    """Copies of a tree, each with nonsense in one place."""
    draw = random.Random(7)
    places = list(_places(tree))
    for path in draw.choices(places, k=times):
        spoiled = copy.deepcopy(tree)
        target = spoiled
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = draw.choice([None, [], {}, "x", 7, ["x"], [{}], {"x": None}])
        yield spoiled


def test_nonsense_anywhere_is_a_finding_or_nothing_but_never_a_crash():
    documents = [*nightly_job(), *written("overlays/kueue/queues.yaml")]
    documents[0]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "multicsr"
    for spoiled in _spoiled(documents, 150):
        whole = [document for document in spoiled if isinstance(document, dict)]
        assert all("\n" not in finding for finding in check(whole))


def test_nonsense_in_a_cluster_is_rejected_or_read_but_never_a_crash():
    (document,) = written("jobs/cluster.yaml")
    rejected = 0
    for spoiled in _spoiled(cluster_of(document), 150):
        try:
            groups(spoiled)
        except ConfigError:
            rejected += 1
    assert 5 < rejected < 145


@pytest.mark.parametrize(
    ("file", "role"),
    [("base/roles.yaml", "multicsr-submit"), ("overlays/nightly/access.yaml", "multicsr-nightly")],
)
def test_a_role_allows_what_the_submitter_calls(file, role):
    allowed = {}
    for rule in pick(written(file), "Role", role)["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                allowed.setdefault((group, resource), set()).update(rule["verbs"])
    assert all(verbs <= allowed.get(call, set()) for call, verbs in SUBMITTER.items())
    assert ("delete" in allowed[("ray.io", "rayjobs")]) == (role == "multicsr-submit")


@pytest.mark.parametrize("module", ["check", "render", "node_groups", "fit"])
def test_checking_imports_nothing_heavy(module):
    heavy = {"torch", "ray", "transformers", "kubernetes", "pyarrow", "boto3"}
    probe = f"import multicsr.deploy.manifest_checks.{module}, sys; print(*({heavy!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_rays_private_reader_has_one_importer():
    naming = {
        path.name for path in KUBE.parent.rglob("*.py") if "_private.kuberay" in path.read_text("utf-8")
    }
    assert naming == {"node_groups.py"}
