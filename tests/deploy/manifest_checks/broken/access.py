"""Who may come in, and who may do what."""

from tests.deploy.manifest_checks.broken.places import cluster, cpu, head_ray, of, put, spec

BROKEN = {
    "no token": (put(cluster, "authOptions", None), "spec.rayClusterSpec.authOptions.mode: write token"),
    "a token's name alone": (
        put(cluster, "authOptions", {"secretName": "mine"}),
        "spec.rayClusterSpec.authOptions.mode: write token",
    ),
    "Ray without tokens": (put(cluster, "rayVersion", "2.51.0"), "rayVersion: 2.51.0 knows no tokens"),
    "tokens of Kubernetes": (
        put(cluster, "authOptions|enableK8sTokenAuth", True),
        "authOptions.enableK8sTokenAuth: the operator rejects it for a RayJob",
    ),
    "a worker that sees a token": (
        put(cpu, "template|spec|automountServiceAccountToken", True),
        "workerGroupSpecs.0.template.spec.automountServiceAccountToken: must be false",
    ),
    "a worker with the head's rights": (
        put(cpu, "template|spec|serviceAccountName", "multicsr-head"),
        "workerGroupSpecs.0.template.spec.serviceAccountName: must be multicsr-worker",
    ),
    "keys in the open": (
        lambda documents: head_ray(documents)["env"].append({"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}),
        "AWS_SECRET_ACCESS_KEY is written out; take it from a Secret",
    ),
    "keys in the runtime environment": (
        put(spec, "runtimeEnvYAML", "env_vars: {AWS_ACCESS_KEY_ID: x}"),
        "spec.runtimeEnvYAML.env_vars: AWS_ACCESS_KEY_ID would be shown in the dashboard",
    ),
    "a role for everything": (
        put(of("Role", "multicsr-nightly"), "rules|0|verbs", ["*"]),
        "Role multicsr-nightly: rules.0: name what is allowed",
    ),
    "a role that reads secrets": (
        put(of("Role", "multicsr-nightly"), "rules|2|resources", ["pods", "secrets"]),
        "Role multicsr-nightly: rules.2: no account needs to read Secrets",
    ),
    "a policy open to all": (
        put(of("NetworkPolicy", "jobs-api"), "spec|ingress|0|from", None),
        "NetworkPolicy jobs-api: spec.ingress.0: allows every source",
    ),
}
