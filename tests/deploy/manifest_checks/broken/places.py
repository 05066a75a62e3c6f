"""Ways to break one place of a namespace's manifests, and names of the places."""

from tests.support.manifests import cluster_of, nightly_job, pick, platform, written


def namespace():
    """All of a namespace: platform, nightly schedule, its job, and Kueue's queues. Nothing is rendered."""
    return [*platform(), *nightly_job(), *written("overlays/kueue/queues.yaml")]


def job(documents):
    return pick(documents, "RayJob", "refresh")


def group_of(documents, name):
    groups = cluster_of(job(documents))["workerGroupSpecs"]
    return next(group for group in groups if group["groupName"] == name)


def pod_of(group):
    return group["template"]["spec"]


def ray_of(group):
    return pod_of(group)["containers"][0]


def put(where, path, value):
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


def each_of(*changes):
    def change(documents):
        for each in changes:
            each(documents)

    return change


def spec(documents):
    return job(documents)["spec"]


def meta(documents):
    return job(documents)["metadata"]


def cluster(documents):
    return cluster_of(job(documents))


def head(documents):
    return cluster(documents)["headGroupSpec"]


def head_pod(documents):
    return pod_of(head(documents))


def head_ray(documents):
    return ray_of(head(documents))


def cpu(documents):
    return group_of(documents, "cpu")


def generate(documents):
    return group_of(documents, "gpu-generate")


def train(documents):
    return group_of(documents, "gpu-train")


def submitter(documents):
    return spec(documents)["submitterPodTemplate"]["spec"]


def rules(documents):
    return spec(documents)["deletionStrategy"]["deletionRules"]


def cron(documents):
    return pick(documents, "CronJob", "multicsr-nightly")["spec"]


def of(kind, name):
    return lambda documents: pick(documents, kind, name)


def in_queue(documents):
    """The nightly job as the kueue overlay would have it, but for its size."""
    run, ray = spec(documents), cluster(documents)
    meta(documents)["labels"]["kueue.x-k8s.io/queue-name"] = "multicsr"
    del run["deletionStrategy"], ray["autoscalerOptions"]
    run["shutdownAfterJobFinishes"] = True
    ray["enableInTreeAutoscaling"] = False
    for group in ray["workerGroupSpecs"]:
        del group["idleTimeoutSeconds"]
        group["minReplicas"] = group["maxReplicas"] = group["replicas"] = 1


SPOT = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
