"""Fields, their types and choices."""

from tests.deploy.manifest_checks.broken.places import (
    cluster,
    cpu,
    generate,
    head,
    head_ray,
    job,
    put,
    rules,
    spec,
)

BROKEN = {
    "typo in a job": (put(spec, "ttlSecondsAfterFinish", 5), "spec.ttlSecondsAfterFinish: unknown key"),
    "typo in a group": (put(cpu, "minReplica", 0), "workerGroupSpecs.0.minReplica: unknown key"),
    "no bound of a group": (put(cpu, "maxReplicas", None), "workerGroupSpecs.0.maxReplicas: missing"),
    "number for a start parameter": (
        put(head, "rayStartParams|num-cpus", 0),
        "headGroupSpec.rayStartParams.num-cpus: Input should be a valid string",
    ),
    "unknown start parameter": (
        put(cpu, "rayStartParams|num-cpu", "4"),
        "rayStartParams.num-cpu: unknown to ray",
    ),
    "unknown submission mode": (
        put(spec, "submissionMode", "K8sJobmode"),
        "spec.submissionMode: Input should be",
    ),
    "unknown autoscaler": (
        put(cluster, "autoscalerOptions|version", "v3"),
        "autoscalerOptions.version: Input",
    ),
    "unknown policy of deletion": (
        put(rules, "0|policy", "DeleteAll"),
        "deletionRules.0.policy: Input should be",
    ),
    "string for a number": (
        put(spec, "backoffLimit", "3"),
        "spec.backoffLimit: Input should be a valid integer",
    ),
    "bad size of a group": (
        put(generate, "resources|GPU", "one"),
        "resources.GPU: Value error, 'one' is no quantity",
    ),
    "bad size of a container": (
        put(head_ray, "resources|limits|memory", "16GB"),
        "containers.0.resources.limits.memory: '16GB' is no quantity",
    ),
    "old version of the API": (
        put(job, "apiVersion", "ray.io/v1alpha1"),
        "of ray.io/v1alpha1: write ray.io/v1",
    ),
    "a secret in a manifest": (
        lambda documents: documents.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}),
        "Secret s: apiVersion: Secret of v1: no rule here knows it",
    ),
}
