"""Manifests broken on purpose, each in one place: the finding must name that place and say what is wrong."""

import pytest

from multicsr.kube.rules import check
from tests.k8s.manifests import cluster_of, night, pick, platform, written


def _namespace():
    """All of a namespace: platform, nightly schedule, its job, and Kueue's queues. Nothing is rendered."""
    return [*platform(), *night(), *written("overlays/kueue/queues.yaml")]


def _job(documents):
    return pick(documents, "RayJob", "refresh")


def _group(documents, name):
    groups = cluster_of(_job(documents))["workerGroupSpecs"]
    return next(group for group in groups if group["groupName"] == name)


def _pod(group):
    return group["template"]["spec"]


def _ray(group):
    return _pod(group)["containers"][0]


def _set(where, path, value):
    """A change of one place: `where` picks the mapping, the dotted path leads on; None removes."""

    def change(documents):
        *steps, last = path.split("|")
        target = where(documents)
        for step in steps:
            target = target[int(step)] if isinstance(target, list) else target[step]
        if isinstance(target, list):
            last = int(last)
        if value is None:
            del target[last]
        else:
            target[last] = value

    return change


def _all(*changes):
    def change(documents):
        for each in changes:
            each(documents)

    return change


def spec(documents):
    return _job(documents)["spec"]


def meta(documents):
    return _job(documents)["metadata"]


def cluster(documents):
    return cluster_of(_job(documents))


def head(documents):
    return cluster(documents)["headGroupSpec"]


def head_pod(documents):
    return _pod(head(documents))


def head_ray(documents):
    return _ray(head(documents))


def cpu(documents):
    return _group(documents, "cpu")


def generate(documents):
    return _group(documents, "gpu-generate")


def train(documents):
    return _group(documents, "gpu-train")


def submitter(documents):
    return spec(documents)["submitterPodTemplate"]["spec"]


def rules(documents):
    return spec(documents)["deletionStrategy"]["deletionRules"]


def cron(documents):
    return pick(documents, "CronJob", "multicsr-nightly")["spec"]


def of(kind, name):
    return lambda documents: pick(documents, kind, name)


def _in_queue(documents):
    """The nightly job as the kueue overlay would have it, but for its size."""
    job, ray = spec(documents), cluster(documents)
    meta(documents)["labels"]["kueue.x-k8s.io/queue-name"] = "multicsr"
    del job["deletionStrategy"], ray["autoscalerOptions"]
    job["shutdownAfterJobFinishes"] = True
    ray["enableInTreeAutoscaling"] = False
    for group in ray["workerGroupSpecs"]:
        del group["idleTimeoutSeconds"]
        group["minReplicas"] = group["maxReplicas"] = group["replicas"] = 1


OPEN = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
SPOT = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}

BROKEN = {
    # Fields
    "typo in a job": (_set(spec, "ttlSecondsAfterFinish", 5), "spec.ttlSecondsAfterFinish: unknown key"),
    "typo in a group": (_set(cpu, "minReplica", 0), "workerGroupSpecs.0.minReplica: unknown key"),
    "no bound of a group": (_set(cpu, "maxReplicas", None), "workerGroupSpecs.0.maxReplicas: missing"),
    "number for a start parameter": (
        _set(head, "rayStartParams|num-cpus", 0),
        "headGroupSpec.rayStartParams.num-cpus: Input should be a valid string",
    ),
    "unknown start parameter": (
        _set(cpu, "rayStartParams|num-cpu", "4"),
        "rayStartParams.num-cpu: unknown to ray",
    ),
    "unknown submission mode": (
        _set(spec, "submissionMode", "K8sJobmode"),
        "spec.submissionMode: Input should be",
    ),
    "unknown autoscaler": (
        _set(cluster, "autoscalerOptions|version", "v3"),
        "autoscalerOptions.version: Input",
    ),
    "unknown policy of deletion": (
        _set(rules, "0|policy", "DeleteAll"),
        "deletionRules.0.policy: Input should be",
    ),
    "string for a number": (
        _set(spec, "backoffLimit", "3"),
        "spec.backoffLimit: Input should be a valid integer",
    ),
    "bad size of a group": (
        _set(generate, "resources|GPU", "one"),
        "resources.GPU: Value error, 'one' is no quantity",
    ),
    "bad size of a container": (
        _set(head_ray, "resources|limits|memory", "16GB"),
        "containers.0.resources.limits.memory: '16GB' is no quantity",
    ),
    "old version of the API": (
        _set(_job, "apiVersion", "ray.io/v1alpha1"),
        "of ray.io/v1alpha1: write ray.io/v1",
    ),
    "a secret in a manifest": (
        lambda documents: documents.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}),
        "Secret s: apiVersion: Secret of v1: no rule here knows it",
    ),
    # The operator
    "name in capitals": (_set(meta, "name", "Refresh_1"), "metadata.name: 'Refresh_1' must be small letters"),
    "name too long": (_set(meta, "name", "n" * 48), "metadata.name: longer than 47 characters"),
    "time to live without shutdown": (
        _set(spec, "ttlSecondsAfterFinished", 60),
        "spec.ttlSecondsAfterFinished: needs shutdownAfterJobFinishes: true",
    ),
    "suspend without shutdown": (_set(spec, "suspend", True), "spec.suspend: needs shutdownAfterJobFinishes"),
    "two ways of deletion": (
        _set(spec, "shutdownAfterJobFinishes", True),
        "spec.deletionStrategy: excludes shutdownAfterJobFinishes",
    ),
    "deletion in the wrong order": (
        _set(rules, "0|condition|ttlSeconds", 10**7),
        "spec.deletionStrategy: times for SUCCEEDED must grow",
    ),
    "the same deletion twice": (
        lambda documents: rules(documents).append(rules(documents)[0]),
        "spec.deletionStrategy: two rules DeleteCluster for SUCCEEDED",
    ),
    "workers deleted under the autoscaler": (
        _set(rules, "0|policy", "DeleteWorkers"),
        "deletionRules.0.policy: DeleteWorkers is refused with the autoscaler on",
    ),
    "a condition without status": (
        _set(rules, "0|condition|jobStatus", None),
        "deletionRules.0.condition: needs one of jobStatus and jobDeploymentStatus",
    ),
    "two sorts of sizes": (
        _set(generate, "rayStartParams|num-gpus", "1"),
        "workerGroupSpecs.1: sizes are in rayStartParams and in resources",
    ),
    "labels as a start parameter": (
        _set(cpu, "rayStartParams|labels", "a=b"),
        "workerGroupSpecs.0.rayStartParams.labels: refused; use the group's labels",
    ),
    "a label that is none": (_set(cpu, "labels|multicsr.io/zone", "a b"), "multicsr.io/zone=a b is no label"),
    "restarts under the autoscaler": (
        _set(cpu, "template|spec|restartPolicy", "Always"),
        "workerGroupSpecs.0.template.spec.restartPolicy: must be Never",
    ),
    "autoscaler twice": (
        lambda documents: head_ray(documents)["env"].append(
            {"name": "RAY_enable_autoscaler_v2", "value": "1"}
        ),
        "RAY_enable_autoscaler_v2 is set beside autoscalerOptions.version",
    ),
    "autoscaler of unsaid version": (
        _set(cluster, "autoscalerOptions|version", None),
        "spec.rayClusterSpec.autoscalerOptions.version: write v2",
    ),
    "idle time without autoscaler": (
        _set(cluster, "enableInTreeAutoscaling", False),
        "workerGroupSpecs.0.idleTimeoutSeconds: only the autoscaler v2 knows it",
    ),
    "fixed group of two sizes": (
        _set(cluster, "enableInTreeAutoscaling", False),
        "workerGroupSpecs.0: nobody scales it, so replicas, minReplicas and maxReplicas must be one number",
    ),
    "least above most": (
        _set(cpu, "minReplicas", 99),
        "workerGroupSpecs.0: minReplicas is above maxReplicas",
    ),
    "two groups of one name": (_set(cpu, "groupName", "gpu-train"), "two groups are called gpu-train"),
    "no cluster": (
        _set(spec, "rayClusterSpec", None),
        "spec.rayClusterSpec: give this or clusterSelector",
    ),
    "sidecar with a submitter": (
        _set(spec, "submissionMode", "SidecarMode"),
        "spec.submissionMode: SidecarMode takes no submitterPodTemplate",
    ),
    "interactive with retries": (
        _set(spec, "submissionMode", "InteractiveMode"),
        "spec.submissionMode: InteractiveMode takes no backoffLimit",
    ),
    # Who may come in
    "no token": (_set(cluster, "authOptions", None), "spec.rayClusterSpec.authOptions.mode: write token"),
    "a token's name alone": (
        _set(cluster, "authOptions", {"secretName": "mine"}),
        "spec.rayClusterSpec.authOptions.mode: write token",
    ),
    "Ray without tokens": (_set(cluster, "rayVersion", "2.51.0"), "rayVersion: 2.51.0 knows no tokens"),
    "tokens of Kubernetes": (
        _set(cluster, "authOptions|enableK8sTokenAuth", True),
        "authOptions.enableK8sTokenAuth: refused for a RayJob",
    ),
    "a worker that sees a token": (
        _set(cpu, "template|spec|automountServiceAccountToken", True),
        "workerGroupSpecs.0.template.spec.automountServiceAccountToken: must be false",
    ),
    "a worker with the head's rights": (
        _set(cpu, "template|spec|serviceAccountName", "multicsr-head"),
        "workerGroupSpecs.0.template.spec.serviceAccountName: must be multicsr-worker",
    ),
    "keys in the open": (
        lambda documents: head_ray(documents)["env"].append({"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}),
        "AWS_SECRET_ACCESS_KEY is written out; take it from a Secret",
    ),
    "keys in the runtime environment": (
        _set(spec, "runtimeEnvYAML", "env_vars: {AWS_ACCESS_KEY_ID: x}"),
        "spec.runtimeEnvYAML.env_vars: AWS_ACCESS_KEY_ID would be shown in the dashboard",
    ),
    "a role for everything": (
        _set(of("Role", "multicsr-nightly"), "rules|0|verbs", ["*"]),
        "Role multicsr-nightly: rules.0: name what is allowed",
    ),
    "a role that reads secrets": (
        _set(of("Role", "multicsr-nightly"), "rules|2|resources", ["pods", "secrets"]),
        "Role multicsr-nightly: rules.2: nobody here reads Secrets",
    ),
    "a policy open to all": (
        _set(of("NetworkPolicy", "jobs-api"), "spec|ingress|0|from", None),
        "NetworkPolicy jobs-api: spec.ingress.0: open to everyone",
    ),
    # Restricted pods
    "an open namespace": (
        _set(of("Namespace", "multicsr"), "metadata|labels|pod-security.kubernetes.io/enforce", "baseline"),
        "Namespace multicsr: metadata.labels: pod-security.kubernetes.io/enforce must be restricted",
    ),
    "escalation on a worker": (
        _set(cpu, "template|spec|containers|0|securityContext|allowPrivilegeEscalation", None),
        "workerGroupSpecs.0.template.spec.containers.0.securityContext.allowPrivilegeEscalation: must be false",
    ),
    "capabilities on the head": (
        _set(head_ray, "securityContext|capabilities", {"drop": ["NET_RAW"]}),
        "headGroupSpec.template.spec.containers.0.securityContext.capabilities.drop: must name ALL",
    ),
    "root as submitter": (
        _set(submitter, "securityContext|runAsNonRoot", None),
        "spec.submitterPodTemplate.spec.containers.0.securityContext.runAsNonRoot: must be true",
    ),
    "user 0": (
        _set(head_pod, "securityContext|runAsUser", 0),
        "containers.0.securityContext.runAsUser: must not be 0",
    ),
    "no seccomp profile": (
        _set(train, "template|spec|securityContext|seccompProfile", None),
        "workerGroupSpecs.2.template.spec.containers.0.securityContext.seccompProfile: must be RuntimeDefault",
    ),
    "an autoscaler without context": (
        _set(cluster, "autoscalerOptions|securityContext", None),
        "autoscalerOptions.securityContext.allowPrivilegeEscalation: must be false",
    ),
    "the operator's own submitter": (
        _set(spec, "submitterPodTemplate", None),
        "spec.submitterPodTemplate: missing; the operator's own has no security context",
    ),
    "an init container as it comes": (
        _set(head_pod, "initContainers", [{"name": "pull", "image": "busybox"}]),
        "headGroupSpec.template.spec.initContainers.0.securityContext.capabilities.drop: must name ALL",
    ),
    "the node's disk": (
        lambda documents: head_pod(documents)["volumes"].append({"name": "disk", "hostPath": {"path": "/"}}),
        "headGroupSpec.template.spec.volumes: disk is a hostPath",
    ),
    "the node's network": (
        _set(head_pod, "hostNetwork", True),
        "headGroupSpec.template.spec.hostNetwork: not allowed",
    ),
    "the node's port": (_set(head_ray, "ports|0|hostPort", 6379), "hostPort 6379 is not allowed"),
    "a privileged nightly pod": (
        _set(cron, "jobTemplate|spec|template|spec|containers|0|securityContext|privileged", True),
        "spec.jobTemplate.spec.template.spec.containers.0.securityContext.privileged: not allowed",
    ),
    "a bad effect": (
        _set(generate, "template|spec|tolerations|0|effect", "NoSchedul"),
        "tolerations.0.effect: NoSchedul is none of NoSchedule",
    ),
    "a bad restart policy": (_set(submitter, "restartPolicy", "Nevr"), "spec.restartPolicy: Nevr is none of"),
    "every taint tolerated": (
        _set(generate, "template|spec|tolerations|0", {"operator": "Exists"}),
        "tolerations.0: tolerates every taint; name a key",
    ),
    "memory without a limit": (
        _set(cpu, "template|spec|containers|0|resources|limits|memory", None),
        "workerGroupSpecs.0.template.spec.containers.0.resources.limits.memory: missing",
    ),
    # What runs where
    "work on the head": (
        _set(head, "rayStartParams|num-cpus", "2"),
        "headGroupSpec.rayStartParams: num-cpus must be",
    ),
    "a head that may be evicted": (
        _set(head_ray, "resources|requests|memory", "1Gi"),
        "headGroupSpec.template.spec.containers.0.resources: memory requested and allowed must be one",
    ),
    "CPUs on GPU nodes": (
        _set(generate, "resources", {"CPU": "4", "GPU": "1"}),
        'workerGroupSpecs.1.resources.CPU: must be "0" beside a GPU',
    ),
    "a GPU that is not there": (
        _set(cpu, "resources", {"CPU": "8", "GPU": "1"}),
        "workerGroupSpecs.0.resources.GPU: promised to Ray, but no container asks for nvidia.com/gpu",
    ),
    "training on spot nodes": (
        lambda documents: _pod(train(documents))["tolerations"].append(SPOT),
        "workerGroupSpecs.2.template.spec.tolerations.1: spot nodes are for the role generate only",
    ),
    "the head on spot nodes": (
        _set(head_pod, "tolerations", [SPOT]),
        "headGroupSpec.template.spec.tolerations.0: spot nodes are for the role generate only",
    ),
    "a group without a role": (
        _set(cpu, "labels", {}),
        "workerGroupSpecs.0.labels: multicsr.io/role is None",
    ),
    "a GPU behind a taint": (
        _set(train, "template|spec|tolerations", []),
        "workerGroupSpecs.2.template.spec.tolerations: asks for a GPU but does not tolerate",
    ),
    # Images
    "latest": (
        _set(head_ray, "image", "ghcr.io/your-org/multicsr:latest"),
        "image: the tag of 'ghcr.io/your-org/multicsr:latest' must name Ray's version",
    ),
    "no tag": (
        _set(submitter, "containers|0|image", "registry:5000/multicsr"),
        "spec.submitterPodTemplate.spec.containers.0.image: the tag of 'registry:5000/multicsr' must name",
    ),
    "another Ray in the image": (
        _set(head_ray, "image", "ghcr.io/your-org/multicsr:0.1.0-ray2.59.1-cpu"),
        "headGroupSpec.template.spec.containers.0.image: has Ray 2.59.1, the installed Ray is 2.60.0",
    ),
    "another Ray in the cluster": (
        _set(cluster, "rayVersion", "2.60.1"),
        "spec.rayClusterSpec.rayVersion: is 2.60.1, the installed Ray is 2.60.0",
    ),
    "the CPU image on a GPU": (
        _set(train, "template|spec|containers|0|image", "ghcr.io/your-org/multicsr:0.1.0-ray2.60.0-cpu"),
        "is built for CPUs, but the container asks for a GPU",
    ),
    # What is run
    "a variable in the entrypoint": (
        _set(spec, "entrypoint", "python -m ray_jobs.refresh $CONFIG"),
        "spec.entrypoint: plain words only, no '$'",
    ),
    "a chain in the entrypoint": (
        _set(spec, "entrypoint", "cd /app && python -m ray_jobs.refresh /etc/multicsr/config.yaml"),
        "spec.entrypoint: plain words only, no '&'",
    ),
    "another job in the entrypoint": (
        _set(spec, "entrypoint", "python -m ray_jobs.ingest /etc/multicsr/config.yaml"),
        "spec.entrypoint: must be `python -m ray_jobs.refresh CONFIG`",
    ),
    "a configuration that is not mounted": (
        _set(head_ray, "volumeMounts", [{"name": "scratch", "mountPath": "/scratch"}]),
        "spec.entrypoint: the head mounts no volume that could hold /etc/multicsr/config.yaml",
    ),
    "no label of the job": (_set(meta, "labels", {}), "metadata.labels: multicsr.io/job is None"),
    "packages at run time": (
        _set(spec, "runtimeEnvYAML", "pip: [torch]"),
        "spec.runtimeEnvYAML: pip belongs into the image; only env_vars may be here",
    ),
    "a runtime environment that is none": (
        _set(spec, "runtimeEnvYAML", "- a"),
        "spec.runtimeEnvYAML: no YAML mapping",
    ),
    "a driver that wants a CPU": (
        _set(spec, "entrypointNumCpus", 1),
        "spec.entrypointNumCpus: the job's process",
    ),
    # When it ends
    "no deadline": (_set(spec, "activeDeadlineSeconds", None), "spec.activeDeadlineSeconds: missing"),
    "nodes that stay": (
        _set(spec, "deletionStrategy", None),
        "spec.deletionStrategy: nothing deletes the cluster after success",
    ),
    "nodes that stay after a failure": (
        _all(_set(rules, "3", None), _set(rules, "2", None)),
        "spec.deletionStrategy: nothing deletes the cluster after failure",
    ),
    "nights that overlap": (
        _set(cron, "concurrencyPolicy", "Allow"),
        "spec.concurrencyPolicy: must be Forbid",
    ),
    "an hour of nowhere": (_set(cron, "timeZone", None), "CronJob multicsr-nightly: spec.timeZone: missing"),
    "missed nights": (_set(cron, "startingDeadlineSeconds", None), "spec.startingDeadlineSeconds: missing"),
    # Names
    "no such account": (
        _set(cron, "jobTemplate|spec|template|spec|serviceAccountName", "nightly"),
        "serviceAccountName: no ServiceAccount is called nightly",
    ),
    "no such priority": (
        _set(cpu, "template|spec|priorityClassName", "high"),
        "workerGroupSpecs.0.template.spec.priorityClassName: no PriorityClass is called high",
    ),
    "a hash behind a name": (
        _set(cron, "jobTemplate|spec|template|spec|volumes|0|configMap|name", "multicsr-nightly-7h2k"),
        "no ConfigMap is called multicsr-nightly-7h2k",
    ),
    "no such secret": (
        _set(head_ray, "envFrom", [{"secretRef": {"name": "keys"}}]),
        "containers.0.envFrom: no Secret is called keys",
    ),
    "no such claim": (
        lambda documents: head_pod(documents)["volumes"].append(
            {"name": "models", "persistentVolumeClaim": {"claimName": "models"}}
        ),
        "headGroupSpec.template.spec.volumes: no PersistentVolumeClaim is called models",
    ),
    "no such volume": (
        _set(cpu, "template|spec|containers|0|volumeMounts|0|name", "disk"),
        "workerGroupSpecs.0.template.spec.containers.0.volumeMounts: no volume is called disk",
    ),
    "no such role": (
        _set(of("RoleBinding", "multicsr-nightly"), "roleRef|name", "admin"),
        "RoleBinding multicsr-nightly: roleRef: no Role is called admin",
    ),
    "a policy for nobody": (
        _set(of("NetworkPolicy", "submitter"), "spec|podSelector|matchLabels", {"app": "submitter"}),
        "NetworkPolicy submitter: spec.podSelector: selects no pod",
    ),
    # Queues
    "no such queue": (
        _set(meta, "labels|kueue.x-k8s.io/queue-name", "gold"),
        "RayJob refresh: metadata.labels: no LocalQueue is called gold",
    ),
    "a queue of nothing": (
        _set(of("LocalQueue", "multicsr"), "spec|clusterQueue", "gold"),
        "LocalQueue multicsr: spec.clusterQueue: no ClusterQueue is called gold",
    ),
    "the autoscaler in a queue": (
        _all(_in_queue, _set(cluster, "enableInTreeAutoscaling", True)),
        "RayJob refresh: spec: Kueue admits a fixed size; turn enableInTreeAutoscaling off",
    ),
    "no shutdown in a queue": (
        _all(_in_queue, _set(spec, "shutdownAfterJobFinishes", False)),
        "RayJob refresh: spec.shutdownAfterJobFinishes: must be true in a queue",
    ),
    "more than the quota": (
        _all(_in_queue, _set(generate, "replicas", 40)),
        "RayJob refresh: spec: asks for 41 nvidia.com/gpu; ClusterQueue multicsr has 8",
    ),
    "what the quota does not cover": (
        _all(_in_queue, _set(cpu, "template|spec|containers|0|resources|requests|ephemeral-storage", "1Gi")),
        "RayJob refresh: spec: asks for ephemeral-storage, which the ClusterQueue multicsr does not cover",
    ),
}


def test_what_is_broken_below_is_whole_before():
    documents = _namespace()
    assert check(documents) == []
    _in_queue(documents)
    assert check(documents) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_manifest_is_refused_for_the_right_reason(name):
    breaks, reason = BROKEN[name]
    documents = _namespace()
    breaks(documents)
    findings = check(documents)
    assert any(reason in finding for finding in findings), findings
