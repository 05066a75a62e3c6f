"""What is run, and when it ends."""

from tests.deploy.manifest_checks.broken.places import cron, each_of, head_ray, meta, put, rules, spec

BROKEN = {
    "a variable in the entrypoint": (
        put(spec, "entrypoint", "python -m ray_jobs.refresh $CONFIG"),
        "spec.entrypoint: plain words only, no '$'",
    ),
    "a chain in the entrypoint": (
        put(spec, "entrypoint", "cd /app && python -m ray_jobs.refresh /etc/multicsr/config.yaml"),
        "spec.entrypoint: plain words only, no '&'",
    ),
    "another job in the entrypoint": (
        put(spec, "entrypoint", "python -m ray_jobs.ingest /etc/multicsr/config.yaml"),
        "spec.entrypoint: must be `python -m ray_jobs.refresh CONFIG`",
    ),
    "a configuration that is not mounted": (
        put(head_ray, "volumeMounts", [{"name": "tmp", "mountPath": "/tmp"}]),
        "spec.entrypoint: the head mounts no volume that could hold /etc/multicsr/config.yaml",
    ),
    "no label of the job": (put(meta, "labels", {}), "metadata.labels: multicsr.io/job is None"),
    "packages at run time": (
        put(spec, "runtimeEnvYAML", "pip: [torch]"),
        "spec.runtimeEnvYAML: pip belongs into the image; only env_vars may be here",
    ),
    "a runtime environment that is none": (
        put(spec, "runtimeEnvYAML", "- a"),
        "spec.runtimeEnvYAML: no YAML mapping",
    ),
    "a driver that wants a CPU": (
        put(spec, "entrypointNumCpus", 1),
        "spec.entrypointNumCpus: the job's process",
    ),
    "no deadline": (put(spec, "activeDeadlineSeconds", None), "spec.activeDeadlineSeconds: missing"),
    "nodes that stay": (
        put(spec, "deletionStrategy", None),
        "spec.deletionStrategy: nothing deletes the cluster after success",
    ),
    "nodes that stay after a failure": (
        each_of(put(rules, "3", None), put(rules, "2", None)),
        "spec.deletionStrategy: nothing deletes the cluster after failure",
    ),
    "nights that overlap": (
        put(cron, "concurrencyPolicy", "Allow"),
        "spec.concurrencyPolicy: must be Forbid",
    ),
    "an hour of nowhere": (put(cron, "timeZone", None), "CronJob multicsr-nightly: spec.timeZone: missing"),
    "missed nights": (put(cron, "startingDeadlineSeconds", None), "spec.startingDeadlineSeconds: missing"),
}
