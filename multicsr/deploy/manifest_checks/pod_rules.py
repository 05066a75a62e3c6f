"""Rules for pod templates.

A pod must conform to Kubernetes' `restricted` standard, hold nothing that a kubelet cannot run, and show no
secrets.
"""

import re
from collections.abc import Iterator

from multicsr.deploy.manifest_checks.documents import (
    Document,
    Template,
    at,
    clusters_of,
    containers_of,
    items,
    mapping,
    templates_of,
)
from multicsr.deploy.manifest_checks.model import is_quantity

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SECRET = re.compile(
    r"SECRET|PASSWORD|PASSWD|TOKEN|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIAL", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(_PATH|_FILE|TOKENIZERS_PARALLELISM)$")
_CHOICES = {
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
}
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def pod_problems(document: Document) -> Iterator[str]:
    """Yield the problems of every pod that a document leads to, paths from the document's root.

    Pods that the operator writes itself are included.
    """
    for template in templates_of(document):
        yield from _pod(template)
        for path, container in containers_of(template):
            yield from _security(path, at(container, "securityContext"), at(template.spec, "securityContext"))
            yield from _container(path, container, template)
    yield from _autoscaler(document)
    spec = at(document, "spec")
    submits = document.get("kind") == "RayJob" and spec.get("submissionMode", "K8sJobMode") == "K8sJobMode"
    if submits and "submitterPodTemplate" not in spec:
        yield "spec.submitterPodTemplate: missing; the operator's own has no security context"


def _pod(template: Template) -> Iterator[str]:
    spec, where = template.spec, f"{template.where}.spec"
    yield from _of_the_host(where, spec)
    for key, choices in _CHOICES.items():
        if spec.get(key, choices[0]) not in choices:
            yield f"{where}.{key}: {spec[key]} is none of {', '.join(choices)}"
    for place, toleration in enumerate(items(spec.get("tolerations"))):
        if (effect := toleration.get("effect", _EFFECTS[0])) not in _EFFECTS:
            yield f"{where}.tolerations.{place}.effect: {effect} is none of {', '.join(_EFFECTS)}"
        if not toleration.get("key"):
            yield f"{where}.tolerations.{place}: tolerates every taint; name a key"


def _of_the_host(where: str, spec: Document) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{where}.{key}: not allowed in a restricted namespace"
    for volume in items(spec.get("volumes")):
        for kind in sorted(set(volume) - {"name"} - _VOLUMES):
            yield f"{where}.volumes: {volume.get('name')} is a {kind}, not allowed in a restricted namespace"
    if at(spec, "securityContext").get("sysctls"):
        yield f"{where}.securityContext.sysctls: not allowed in a restricted namespace"


def _autoscaler(document: Document) -> Iterator[str]:
    """Yield the problems of the autoscaler's container.

    The operator adds this container to the head's pod, so the security contexts of both hold for it.
    """
    for path, cluster in clusters_of(document):
        if cluster.get("enableInTreeAutoscaling"):
            pod = at(cluster, "headGroupSpec.template.spec.securityContext")
            context = at(cluster, "autoscalerOptions.securityContext")
            yield from _security(f"{path}.autoscalerOptions", context, pod)
            yield from _quantities(f"{path}.autoscalerOptions", at(cluster, "autoscalerOptions"))


def _security(path: str, own: Document, pod: Document) -> Iterator[str]:
    """Yield what the level `restricted` of the Pod Security Standards does not allow.

    See https://kubernetes.io/docs/concepts/security/pod-security-standards/.

    Args:
        path: path of the container, for messages.
        own: security context of the container.
        pod: security context of its pod, which holds where `own` sets nothing.
    """
    path = f"{path}.securityContext"
    if own.get("privileged"):
        yield f"{path}.privileged: not allowed in a restricted namespace"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{path}.allowPrivilegeEscalation: must be false"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield f"{path}.runAsNonRoot: must be true, here or in the pod"
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield f"{path}.runAsUser: must not be 0"
    capabilities = at(own, "capabilities")
    if "ALL" not in _strings(capabilities.get("drop")):
        yield f"{path}.capabilities.drop: must name ALL"
    if extra := sorted(_strings(capabilities.get("add")) - {"NET_BIND_SERVICE"}):
        yield f"{path}.capabilities.add: {', '.join(extra)} is not allowed in a restricted namespace"
    yield from _loosened(path, own)
    profile = mapping(own.get("seccompProfile", pod.get("seccompProfile"))).get("type")
    if profile not in ("RuntimeDefault", "Localhost"):
        yield f"{path}.seccompProfile: must be RuntimeDefault, here or in the pod"


def _loosened(path: str, own: Document) -> Iterator[str]:
    if own.get("procMount", "Default") != "Default":
        yield f"{path}.procMount: not allowed in a restricted namespace"
    if at(own, "appArmorProfile").get("type") == "Unconfined":
        yield f"{path}.appArmorProfile: not allowed in a restricted namespace"
    if set(at(own, "seLinuxOptions")) & {"user", "role"}:
        yield f"{path}.seLinuxOptions: not allowed in a restricted namespace"


def _strings(value: object) -> set[str]:
    return {str(item) for item in value} if isinstance(value, list | tuple) else set()


def _container(path: str, container: Document, template: Template) -> Iterator[str]:
    for port in items(container.get("ports")):
        if port.get("hostPort"):
            yield f"{path}.ports: hostPort {port['hostPort']} is not allowed in a restricted namespace"
    for entry in items(container.get("env")):
        if "value" in entry and looks_secret(str(entry.get("name"))):
            yield f"{path}.env: {entry['name']} is written out; take it from a Secret with valueFrom"
    volumes = [volume.get("name") for volume in items(template.spec.get("volumes"))]
    for mount in items(container.get("volumeMounts")):
        if mount.get("name") not in volumes:
            yield f"{path}.volumeMounts: no volume is called {mount.get('name')}"
    yield from _quantities(path, container)


def looks_secret(variable: str) -> bool:
    """Return whether an environment variable's name suggests that its value is a secret."""
    return bool(_SECRET.search(variable)) and not _NO_SECRET.search(variable)


def _quantities(path: str, owner: Document) -> Iterator[str]:
    """Yield the sizes that cannot be read, and a missing memory limit.

    A pod without a memory limit can take its whole node down.
    """
    for side in ("requests", "limits"):
        for name, amount in at(owner, f"resources.{side}").items():
            if not is_quantity(amount):
                yield f"{path}.resources.{side}.{name}: {amount!r} is no quantity; write such as 500m or 16Gi"
    if "memory" not in at(owner, "resources.limits"):
        yield f"{path}.resources.limits.memory: missing"
