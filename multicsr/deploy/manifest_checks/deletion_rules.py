"""Rules for the deletion of a job's nodes.

Without a deletion rule the nodes stay, with their GPUs, in whatever way the job ended.
"""

from collections.abc import Iterator

from multicsr.deploy.manifest_checks.model import DeletionRule, JobSpec

_ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
_ENDS = {("SUCCEEDED", None): "success", (None, "Failed"): "failure"}
"""Ends of a job, as (jobStatus, jobDeploymentStatus), and the word for each in messages."""


def deletion_problems(spec: JobSpec) -> Iterator[str]:
    """Yield the problems of a RayJob's deletion rules and deadline, paths relative to its spec."""
    rules = spec.deletion_strategy.deletion_rules if spec.deletion_strategy else []
    if rules and spec.shutdown_after_job_finishes:
        yield "deletionStrategy: excludes shutdownAfterJobFinishes"
    if spec.cluster_selector is None and not spec.shutdown_after_job_finishes:
        yield from _stay(rules)
    if spec.active_deadline_seconds is None:
        yield "activeDeadlineSeconds: missing; without a deadline, a job that hangs keeps its nodes"
    scales = spec.ray_cluster_spec is not None and spec.ray_cluster_spec.enable_in_tree_autoscaling
    for place, rule in enumerate(rules):
        path = f"deletionStrategy.deletionRules.{place}"
        if (rule.condition.job_status is None) == (rule.condition.job_deployment_status is None):
            yield f"{path}.condition: needs one of jobStatus and jobDeploymentStatus"
        if rule.policy == "DeleteWorkers" and scales:
            yield f"{path}.policy: the operator rejects DeleteWorkers while the autoscaler is on"
    yield from _out_of_order(rules)


def _end(rule: DeletionRule) -> tuple[str | None, str | None]:
    """Return the end of a job that a rule is for: (jobStatus, jobDeploymentStatus)."""
    return rule.condition.job_status, rule.condition.job_deployment_status


def _stay(rules: list[DeletionRule]) -> Iterator[str]:
    """Yield a problem for each end of a job after which no rule deletes the cluster.

    A failure needs a rule for the jobDeploymentStatus `Failed`: unlike the jobStatus FAILED it also covers a
    missed deadline and a head that died.
    """
    frees = {_end(rule) for rule in rules if rule.policy in ("DeleteCluster", "DeleteSelf")}
    for end, word in _ENDS.items():
        if end not in frees:
            what = "jobStatus: SUCCEEDED" if end[0] else "jobDeploymentStatus: Failed"
            yield f"deletionStrategy: nothing deletes the cluster after {word}; add a rule for {what}"


def _out_of_order(rules: list[DeletionRule]) -> Iterator[str]:
    """Yield a problem where an end of a job has two rules of one policy, or times that do not grow."""
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
