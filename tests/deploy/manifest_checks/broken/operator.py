"""What KubeRay's operator refuses."""

from tests.deploy.manifest_checks.broken.places import (
    cluster,
    cpu,
    generate,
    head_ray,
    meta,
    put,
    rules,
    spec,
)

BROKEN = {
    "name in capitals": (put(meta, "name", "Refresh_1"), "metadata.name: 'Refresh_1' must be small letters"),
    "name too long": (put(meta, "name", "n" * 48), "metadata.name: longer than 47 characters"),
    "time to live without shutdown": (
        put(spec, "ttlSecondsAfterFinished", 60),
        "spec.ttlSecondsAfterFinished: needs shutdownAfterJobFinishes: true",
    ),
    "suspend without shutdown": (put(spec, "suspend", True), "spec.suspend: needs shutdownAfterJobFinishes"),
    "two ways of deletion": (
        put(spec, "shutdownAfterJobFinishes", True),
        "spec.deletionStrategy: excludes shutdownAfterJobFinishes",
    ),
    "deletion in the wrong order": (
        put(rules, "0|condition|ttlSeconds", 10**7),
        "spec.deletionStrategy: times for SUCCEEDED must grow",
    ),
    "the same deletion twice": (
        lambda documents: rules(documents).append(rules(documents)[0]),
        "spec.deletionStrategy: two rules DeleteCluster for SUCCEEDED",
    ),
    "workers deleted under the autoscaler": (
        put(rules, "0|policy", "DeleteWorkers"),
        "deletionRules.0.policy: the operator rejects DeleteWorkers while the autoscaler is on",
    ),
    "a condition without status": (
        put(rules, "0|condition|jobStatus", None),
        "deletionRules.0.condition: needs one of jobStatus and jobDeploymentStatus",
    ),
    "two sorts of sizes": (
        put(generate, "rayStartParams|num-gpus", "1"),
        "workerGroupSpecs.1: sizes are in rayStartParams and in resources",
    ),
    "labels as a start parameter": (
        put(cpu, "rayStartParams|labels", "a=b"),
        "workerGroupSpecs.0.rayStartParams.labels: the operator rejects it; use the group's labels",
    ),
    "a label that is none": (put(cpu, "labels|multicsr.io/zone", "a b"), "multicsr.io/zone=a b is no label"),
    "restarts under the autoscaler": (
        put(cpu, "template|spec|restartPolicy", "Always"),
        "workerGroupSpecs.0.template.spec.restartPolicy: must be Never",
    ),
    "autoscaler twice": (
        lambda documents: head_ray(documents)["env"].append(
            {"name": "RAY_enable_autoscaler_v2", "value": "1"}
        ),
        "RAY_enable_autoscaler_v2 is set; write autoscalerOptions.version",
    ),
    "autoscaler of unsaid version": (
        put(cluster, "autoscalerOptions|version", None),
        "spec.rayClusterSpec.autoscalerOptions.version: write v2",
    ),
    "idle time without autoscaler": (
        put(cluster, "enableInTreeAutoscaling", False),
        "workerGroupSpecs.0.idleTimeoutSeconds: only the autoscaler v2 knows it",
    ),
    "fixed group of two sizes": (
        put(cluster, "enableInTreeAutoscaling", False),
        "workerGroupSpecs.0: without autoscaler, replicas, minReplicas and maxReplicas must be one number",
    ),
    "least above most": (
        put(cpu, "minReplicas", 99),
        "workerGroupSpecs.0: minReplicas is above maxReplicas",
    ),
    "two groups of one name": (put(cpu, "groupName", "gpu-train"), "two groups are called gpu-train"),
    "no cluster": (
        put(spec, "rayClusterSpec", None),
        "spec.rayClusterSpec: give this or clusterSelector",
    ),
    "sidecar with a submitter": (
        put(spec, "submissionMode", "SidecarMode"),
        "spec.submissionMode: SidecarMode takes no submitterPodTemplate",
    ),
    "interactive with retries": (
        put(spec, "submissionMode", "InteractiveMode"),
        "spec.submissionMode: InteractiveMode takes no backoffLimit",
    ),
}
