"""Names that nothing answers to, and queues that never admit."""

from tests.deploy.manifest_checks.broken.places import (
    cluster,
    cpu,
    cron,
    each_of,
    generate,
    head_pod,
    head_ray,
    in_queue,
    meta,
    of,
    put,
    spec,
)

BROKEN = {
    "no such account": (
        put(cron, "jobTemplate|spec|template|spec|serviceAccountName", "nightly"),
        "serviceAccountName: no ServiceAccount is called nightly",
    ),
    "no such priority": (
        put(cpu, "template|spec|priorityClassName", "high"),
        "workerGroupSpecs.0.template.spec.priorityClassName: no PriorityClass is called high",
    ),
    "a hash behind a name": (
        put(cron, "jobTemplate|spec|template|spec|volumes|0|configMap|name", "multicsr-nightly-7h2k"),
        "no ConfigMap is called multicsr-nightly-7h2k",
    ),
    "no such secret": (
        put(head_ray, "envFrom", [{"secretRef": {"name": "keys"}}]),
        "containers.0.envFrom: no Secret is called keys",
    ),
    "no such claim": (
        lambda documents: head_pod(documents)["volumes"].append(
            {"name": "models", "persistentVolumeClaim": {"claimName": "models"}}
        ),
        "headGroupSpec.template.spec.volumes: no PersistentVolumeClaim is called models",
    ),
    "no such volume": (
        put(cpu, "template|spec|containers|0|volumeMounts|0|name", "disk"),
        "workerGroupSpecs.0.template.spec.containers.0.volumeMounts: no volume is called disk",
    ),
    "no such role": (
        put(of("RoleBinding", "multicsr-nightly"), "roleRef|name", "admin"),
        "RoleBinding multicsr-nightly: roleRef: no Role is called admin",
    ),
    "a policy for nobody": (
        put(of("NetworkPolicy", "submitter"), "spec|podSelector|matchLabels", {"app": "submitter"}),
        "NetworkPolicy submitter: spec.podSelector: selects no pod",
    ),
    "no such queue": (
        put(meta, "labels|kueue.x-k8s.io/queue-name", "gold"),
        "RayJob refresh: metadata.labels: no LocalQueue is called gold",
    ),
    "a queue of nothing": (
        put(of("LocalQueue", "multicsr"), "spec|clusterQueue", "gold"),
        "LocalQueue multicsr: spec.clusterQueue: no ClusterQueue is called gold",
    ),
    "the autoscaler in a queue": (
        each_of(in_queue, put(cluster, "enableInTreeAutoscaling", True)),
        "RayJob refresh: spec: Kueue admits a fixed size; turn enableInTreeAutoscaling off",
    ),
    "no shutdown in a queue": (
        each_of(in_queue, put(spec, "shutdownAfterJobFinishes", False)),
        "RayJob refresh: spec.shutdownAfterJobFinishes: must be true in a queue",
    ),
    "more than the quota": (
        each_of(in_queue, put(generate, "replicas", 40)),
        "RayJob refresh: spec: asks for 41 nvidia.com/gpu; ClusterQueue multicsr has 8",
    ),
    "what the quota does not cover": (
        each_of(in_queue, put(cpu, "template|spec|containers|0|resources|requests|ephemeral-storage", "1Gi")),
        "RayJob refresh: spec: asks for ephemeral-storage, which the ClusterQueue multicsr does not cover",
    ),
}
