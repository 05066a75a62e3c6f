"""Kubernetes' restricted pods."""

from tests.deploy.manifest_checks.broken.places import (
    cluster,
    cpu,
    cron,
    generate,
    head_pod,
    head_ray,
    of,
    put,
    spec,
    submitter,
    train,
)

BROKEN = {
    "an open namespace": (
        put(of("Namespace", "multicsr"), "metadata|labels|pod-security.kubernetes.io/enforce", "baseline"),
        "Namespace multicsr: metadata.labels: pod-security.kubernetes.io/enforce must be restricted",
    ),
    "escalation on a worker": (
        put(cpu, "template|spec|containers|0|securityContext|allowPrivilegeEscalation", None),
        "workerGroupSpecs.0.template.spec.containers.0.securityContext.allowPrivilegeEscalation: must be",
    ),
    "capabilities on the head": (
        put(head_ray, "securityContext|capabilities", {"drop": ["NET_RAW"]}),
        "headGroupSpec.template.spec.containers.0.securityContext.capabilities.drop: must name ALL",
    ),
    "root as submitter": (
        put(submitter, "securityContext|runAsNonRoot", None),
        "spec.submitterPodTemplate.spec.containers.0.securityContext.runAsNonRoot: must be true",
    ),
    "user 0": (
        put(head_pod, "securityContext|runAsUser", 0),
        "containers.0.securityContext.runAsUser: must not be 0",
    ),
    "no seccomp profile": (
        put(train, "template|spec|securityContext|seccompProfile", None),
        "workerGroupSpecs.2.template.spec.containers.0.securityContext.seccompProfile: must be",
    ),
    "an autoscaler without context": (
        put(cluster, "autoscalerOptions|securityContext", None),
        "autoscalerOptions.securityContext.allowPrivilegeEscalation: must be false",
    ),
    "the operator's own submitter": (
        put(spec, "submitterPodTemplate", None),
        "spec.submitterPodTemplate: missing; the operator's own has no security context",
    ),
    "an init container as it comes": (
        put(head_pod, "initContainers", [{"name": "pull", "image": "busybox"}]),
        "headGroupSpec.template.spec.initContainers.0.securityContext.capabilities.drop: must name ALL",
    ),
    "the node's disk": (
        lambda documents: head_pod(documents)["volumes"].append({"name": "disk", "hostPath": {"path": "/"}}),
        "headGroupSpec.template.spec.volumes: disk is a hostPath",
    ),
    "the node's network": (
        put(head_pod, "hostNetwork", True),
        "headGroupSpec.template.spec.hostNetwork: not allowed",
    ),
    "the node's port": (put(head_ray, "ports|0|hostPort", 6379), "hostPort 6379 is not allowed"),
    "a privileged nightly pod": (
        put(cron, "jobTemplate|spec|template|spec|containers|0|securityContext|privileged", True),
        "spec.jobTemplate.spec.template.spec.containers.0.securityContext.privileged: not allowed",
    ),
    "a bad effect": (
        put(generate, "template|spec|tolerations|0|effect", "NoSchedul"),
        "tolerations.0.effect: NoSchedul is none of NoSchedule",
    ),
    "a bad restart policy": (put(submitter, "restartPolicy", "Nevr"), "spec.restartPolicy: Nevr is none of"),
    "every taint tolerated": (
        put(generate, "template|spec|tolerations|0", {"operator": "Exists"}),
        "tolerations.0: tolerates every taint; name a key",
    ),
    "memory without a limit": (
        put(cpu, "template|spec|containers|0|resources|limits|memory", None),
        "workerGroupSpecs.0.template.spec.containers.0.resources.limits.memory: missing",
    ),
}
