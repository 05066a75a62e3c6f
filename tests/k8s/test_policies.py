"""What is applied by hand: the admission policy for shared namespaces, the pod that fetches an image."""

import copy
import itertools
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.support.manifests import K8S, OVERLAYS, platform, whole
from tests.support.schemas import published

KUBERNETES = "1.34"
POLICY, BINDING = yaml.safe_load_all((K8S / "policies" / "rayjobs.yaml").read_text(encoding="utf-8"))
ACCOUNTS = {each["metadata"]["name"] for each in platform() if each["kind"] == "ServiceAccount"}


def plain(document):
    return yaml.safe_load(yaml.safe_dump(copy.deepcopy(document)))


def jobs():
    for overlay in OVERLAYS:
        for document in whole(overlay):
            if document["kind"] == "RayJob":
                yield plain(document)


def rejections(job):
    """What the policy says of a RayJob, as the API server would evaluate its expressions."""
    celpy = pytest.importorskip("celpy", reason="cel-python is absent")
    environment = celpy.Environment()
    known = {"object": celpy.json_to_cel(job), "variables": celpy.celtypes.MapType()}

    def evaluate(expression):
        return environment.program(environment.compile(expression)).evaluate(known)

    for variable in POLICY["spec"]["variables"]:
        known["variables"][celpy.celtypes.StringType(variable["name"])] = evaluate(variable["expression"])
    return [rule["message"] for rule in POLICY["spec"]["validations"] if not evaluate(rule["expression"])]


def test_the_policy_is_valid_and_bound_to_the_namespace():
    for document in (POLICY, BINDING):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    assert BINDING["spec"]["policyName"] == POLICY["metadata"]["name"]
    [namespace] = [each["metadata"]["name"] for each in platform() if each["kind"] == "Namespace"]
    selected = BINDING["spec"]["matchResources"]["namespaceSelector"]["matchLabels"]
    assert selected == {"kubernetes.io/metadata.name": namespace}
    [accounts] = [each for each in POLICY["spec"]["variables"] if each["name"] == "accounts"]
    assert set(yaml.safe_load(accounts["expression"])) == ACCOUNTS


def test_security_md_states_what_who_may_create_rayjobs_gets():
    text = " ".join((K8S.parent / "SECURITY.md").read_text(encoding="utf-8").split())
    for part in (
        "may create RayJobs in a namespace may name any service account of it and mount any Secret of it",
        "The head's account may patch the pods of the namespace",
        "one namespace for each team",
        "`k8s/policies/rayjobs.yaml`",
    ):
        assert part in text


def test_the_policy_takes_every_job_of_the_project():
    found = list(jobs())
    assert len(found) > len(OVERLAYS)
    assert {job["metadata"]["name"]: rejections(job) for job in found if rejections(job)} == {}


def _head(spec):
    return spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]


def _worker(spec):
    return spec["rayClusterSpec"]["workerGroupSpecs"][-1]["template"]["spec"]


def _volume(**source):
    return {"name": "more", **source}


SECRET = {"secretKeyRef": {"name": "root", "key": "k"}}
REFUSED = {
    "an account on the head": lambda spec: _head(spec).update(serviceAccountName="admin"),
    "an account on a worker": lambda spec: _worker(spec).update(serviceAccountName="admin"),
    "the default account": lambda spec: (
        _worker(spec).pop("serviceAccountName"),
        _worker(spec).pop("automountServiceAccountToken", None),
    ),
    "a Secret as a volume": lambda spec: (
        _worker(spec).setdefault("volumes", []).append(_volume(secret={"secretName": "root"}))
    ),
    "a projected token": lambda spec: (
        _worker(spec).setdefault("volumes", []).append(_volume(projected={"sources": []}))
    ),
    "a host path": lambda spec: _head(spec).setdefault("volumes", []).append(_volume(hostPath={"path": "/"})),
    "a variable from a Secret": lambda spec: (
        _worker(spec)["containers"][0].setdefault("env", []).append({"name": "X", "valueFrom": SECRET})
    ),
    "variables from a Secret": lambda spec: spec["submitterPodTemplate"]["spec"]["containers"][0].update(
        envFrom=[{"secretRef": {"name": "root"}}]
    ),
    "an init container": lambda spec: _head(spec).update(
        initContainers=[{"name": "x", "env": [{"name": "X", "valueFrom": SECRET}]}]
    ),
    "another cluster": lambda spec: spec.update(clusterSelector={"ray.io/cluster": "other"}),
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_the_policy_rejects(change):
    job = next(jobs())
    change(job["spec"])
    assert len(rejections(job)) == 1


HARMLESS = ("imagePullSecrets", "ephemeralContainers", "ingressOptions", "serviceAccount", "Token")
"""They hand no Secret to a container: kubelet, API server or ingress read them, or refuse them."""
READS_SECRETS = ("secretKeyRef", "secretRef", "secretName", "nodePublishSecretRef", "secret")


def paths(schema, path=()):
    """Yield every path of a schema at which a Secret can be named for a container."""
    for key, part in schema.get("properties", {}).items():
        if key in READS_SECRETS:
            yield *path, key
        elif not key.startswith(HARMLESS):
            yield from paths(part, (*path, key))
    if isinstance(schema.get("items"), dict):
        yield from paths(schema["items"], (*path, 0))


def put(tree, path, value):
    """Set a value in a copy of a tree; lists on the way get an entry more if they have none."""
    made = copy.deepcopy(tree)
    at = made
    for key, after in itertools.pairwise(path):
        if isinstance(at, list) and not at:
            at.append({})
        elif isinstance(at, dict):
            at.setdefault(key, [] if after == 0 else {})
        at = at[key]
    at[path[-1]] = value
    return made


def test_no_field_of_the_schema_hands_a_foreign_secret_to_a_container(shared_data):
    spec = published(shared_data, "RayJob")["properties"]["spec"]
    found = [path for path in paths(spec) if "ephemeral" not in path]
    assert len(found) > 40
    job = next(jobs())
    passed = []
    for path in found:
        value = "root" if path[-1] == "secretName" else {"name": "root", "key": "k", "secretName": "root"}
        at = [index for index, key in enumerate(path) if key == "volumes"]
        tree = put(job["spec"], path[: at[0] + 1], []) if at else job["spec"]  # a volume has one source
        if not rejections({**job, "spec": put(tree, path, value)}):
            passed.append(".".join(map(str, path)))
    assert passed == []


def test_the_pod_that_fetches_an_image_passes_restricted():
    pod = yaml.safe_load((K8S / "debug" / "image-pull.yaml").read_text(encoding="utf-8"))
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    assert pod["spec"]["serviceAccountName"] in ACCOUNTS
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    [container] = pod["spec"]["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (Path(K8S).parent / "RUNBOOK.md").read_text().count(
        "kubectl apply -f k8s/debug/image-pull.yaml"
    ) == 1
