"""Rules for Kubernetes' own objects, beyond what their schemas require."""

from collections.abc import Iterator

from multicsr.deploy.manifest_checks.documents import Document, at, items

KINDS = {
    "v1": {"Namespace", "ServiceAccount", "ConfigMap", "Service"},
    "apps/v1": {"Deployment", "StatefulSet", "DaemonSet"},
    "batch/v1": {"CronJob", "Job"},
    "kueue.x-k8s.io/v1beta2": {"ResourceFlavor", "ClusterQueue", "LocalQueue"},
    "monitoring.coreos.com/v1": {"PodMonitor", "PrometheusRule", "ServiceMonitor"},
    "networking.k8s.io/v1": {"NetworkPolicy"},
    "policy/v1": {"PodDisruptionBudget"},
    "ray.io/v1": {"RayCluster", "RayJob"},
    "rbac.authorization.k8s.io/v1": {"Role", "RoleBinding"},
    "scheduling.k8s.io/v1": {"PriorityClass"},
}
"""Kinds that a manifest of this project may hold, by apiVersion.

Secret is not among them: a secret that is written into a manifest is no longer secret.
"""


def kind_problems(document: Document) -> Iterator[str]:
    """Yield a problem if no rule here knows the document's kind in its apiVersion."""
    version, kind = str(document.get("apiVersion")), str(document.get("kind"))
    if kind not in KINDS.get(version, ()):
        places = [known for known, kinds in KINDS.items() if kind in kinds]
        remedy = f"write {places[0]}" if places else "no rule here knows it"
        yield f"apiVersion: {kind} of {version}: {remedy}"


def core_problems(document: Document) -> Iterator[str]:
    """Yield the problems of a CronJob, Role, NetworkPolicy or Namespace, paths from the document's root.

    Other kinds have none.
    """
    kind = document.get("kind")
    if kind == "CronJob":
        yield from _cron_job(at(document, "spec"))
    elif kind == "Role":
        yield from _role(document)
    elif kind == "NetworkPolicy":
        for place, rule in enumerate(items(at(document, "spec").get("ingress"))):
            if not rule.get("from"):
                yield f"spec.ingress.{place}: allows every source; name the sources under `from`"
    elif kind == "Namespace":
        labels = at(document, "metadata.labels")
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield "metadata.labels: pod-security.kubernetes.io/enforce must be restricted"


def _role(document: Document) -> Iterator[str]:
    for place, rule in enumerate(items(document.get("rules"))):
        if any("*" in str(rule.get(key)) for key in ("apiGroups", "resources", "verbs")):
            yield f"rules.{place}: name what is allowed; * is everything"
        if "secrets" in str(rule.get("resources")):
            yield f"rules.{place}: no account needs to read Secrets, such as a cluster's token"


def _cron_job(spec: Document) -> Iterator[str]:
    if spec.get("concurrencyPolicy") != "Forbid":
        yield "spec.concurrencyPolicy: must be Forbid; two refresh runs would write to one store at once"
    for key, why in (
        ("timeZone", "the hour would be that of the control plane"),
        ("startingDeadlineSeconds", "a missed run would start at any later time"),
        ("successfulJobsHistoryLimit", "write how many are kept"),
        ("failedJobsHistoryLimit", "write how many are kept"),
    ):
        if key not in spec:
            yield f"spec.{key}: missing; {why}"
    if at(spec, "jobTemplate.spec.template.spec").get("restartPolicy") not in ("Never", "OnFailure"):
        yield "spec.jobTemplate.spec.template.spec.restartPolicy: must be Never or OnFailure"
