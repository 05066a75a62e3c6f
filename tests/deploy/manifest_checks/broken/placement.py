"""What runs where, from which image."""

from tests.deploy.manifest_checks.broken.places import (
    SPOT,
    cluster,
    cpu,
    generate,
    head,
    head_pod,
    head_ray,
    pod_of,
    put,
    submitter,
    train,
)

BROKEN = {
    "work on the head": (
        put(head, "rayStartParams|num-cpus", "2"),
        "headGroupSpec.rayStartParams: num-cpus must be",
    ),
    "a head that may be evicted": (
        put(head_ray, "resources|requests|memory", "1Gi"),
        "headGroupSpec.template.spec.containers.0.resources: memory requested and allowed must be one",
    ),
    "CPUs on GPU nodes": (
        put(generate, "resources", {"CPU": "4", "GPU": "1"}),
        'workerGroupSpecs.1.resources.CPU: must be "0" beside a GPU',
    ),
    "a GPU that is not there": (
        put(cpu, "resources", {"CPU": "8", "GPU": "1"}),
        "workerGroupSpecs.0.resources.GPU: promised to Ray, but no container asks for nvidia.com/gpu",
    ),
    "training on spot nodes": (
        lambda documents: pod_of(train(documents))["tolerations"].append(SPOT),
        "workerGroupSpecs.2.template.spec.tolerations.1: spot nodes are for the role generate only",
    ),
    "the head on spot nodes": (
        put(head_pod, "tolerations", [SPOT]),
        "headGroupSpec.template.spec.tolerations.0: spot nodes are for the role generate only",
    ),
    "a group without a role": (
        put(cpu, "labels", {}),
        "workerGroupSpecs.0.labels: multicsr.io/role is None",
    ),
    "a GPU behind a taint": (
        put(train, "template|spec|tolerations", []),
        "workerGroupSpecs.2.template.spec.tolerations: asks for a GPU but does not tolerate",
    ),
    "latest": (
        put(head_ray, "image", "ghcr.io/your-org/multicsr:latest"),
        "image: the tag of 'ghcr.io/your-org/multicsr:latest' must name Ray's version",
    ),
    "no tag": (
        put(submitter, "containers|0|image", "registry:5000/multicsr"),
        "spec.submitterPodTemplate.spec.containers.0.image: the tag of 'registry:5000/multicsr' must name",
    ),
    "another Ray in the image": (
        put(head_ray, "image", "ghcr.io/your-org/multicsr:0.1.0-ray2.59.1-cpu"),
        "headGroupSpec.template.spec.containers.0.image: has Ray 2.59.1, the installed Ray is 2.60.0",
    ),
    "another Ray in the cluster": (
        put(cluster, "rayVersion", "2.60.1"),
        "spec.rayClusterSpec.rayVersion: is 2.60.1, the installed Ray is 2.60.0",
    ),
    "the CPU image on a GPU": (
        put(train, "template|spec|containers|0|image", "ghcr.io/your-org/multicsr:0.1.0-ray2.60.0-cpu"),
        "is built for CPUs, but the container asks for a GPU",
    ),
    "an init container of no version": (
        put(head_pod, "initContainers", [{"name": "pull", "image": "registry:5000/aws-cli"}]),
        "initContainers.0.image: 'registry:5000/aws-cli' has a mutable tag or none; name a version",
    ),
}
