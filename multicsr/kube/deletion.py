"""When a job's nodes go. Without a rule they stay, GPUs and all, whatever became of the job."""

from collections.abc import Iterator

from multicsr.kube.model import DeletionRule, JobSpec

_ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
_ENDS = {("SUCCEEDED", None): "success", (None, "Failed"): "failure"}


def deletion_problems(spec: JobSpec) -> Iterator[str]:
    rules = spec.deletion_strategy.deletion_rules if spec.deletion_strategy else []
    if rules and spec.shutdown_after_job_finishes:
        yield "deletionStrategy: excludes shutdownAfterJobFinishes"
    if spec.cluster_selector is None and not spec.shutdown_after_job_finishes:
        yield from _stay(rules)
    if spec.active_deadline_seconds is None:
        yield "activeDeadlineSeconds: missing; a job that hangs would hold its nodes for ever"
    scales = spec.ray_cluster_spec is not None and spec.ray_cluster_spec.enable_in_tree_autoscaling
    for place, rule in enumerate(rules):
        path = f"deletionStrategy.deletionRules.{place}"
        if (rule.condition.job_status is None) == (rule.condition.job_deployment_status is None):
            yield f"{path}.condition: needs one of jobStatus and jobDeploymentStatus"
        if rule.policy == "DeleteWorkers" and scales:
            yield f"{path}.policy: DeleteWorkers is refused with the autoscaler on"
    yield from _out_of_order(rules)


def _end(rule: DeletionRule) -> tuple[str | None, str | None]:
    return rule.condition.job_status, rule.condition.job_deployment_status


def _stay(rules: list[DeletionRule]) -> Iterator[str]:
    """`Failed` is more than FAILED: it is also a deadline missed and a head that died."""
    frees = {_end(rule) for rule in rules if rule.policy in ("DeleteCluster", "DeleteSelf")}
    for end, word in _ENDS.items():
        if end not in frees:
            what = "jobStatus: SUCCEEDED" if end[0] else "jobDeploymentStatus: Failed"
            yield f"deletionStrategy: nothing deletes the cluster after {word}; add a rule for {what}"


def _out_of_order(rules: list[DeletionRule]) -> Iterator[str]:
    for end in dict.fromkeys(_end(rule) for rule in rules):
        ttls: dict[str, int] = {}
        for rule in rules:
            if _end(rule) != end:
                continue
            if rule.policy in ttls:
                yield f"deletionStrategy: two rules {rule.policy} for {end[0] or end[1]}"
            ttls[rule.policy] = rule.condition.ttl_seconds
        times = [ttls[policy] for policy in _ORDER if policy in ttls]
        if times != sorted(times):
            yield f"deletionStrategy: times for {end[0] or end[1]} must grow: {', '.join(_ORDER)}"
