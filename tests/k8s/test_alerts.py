"""Every alert fires when it should and is silent when it should be, as promtool evaluates the rules.

The series have the labels that the exporters give them. tests/cluster shows that Ray's do, on a scrape of a
real cluster; the labels of KubeRay and kube-state-metrics are those of their sources.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import yaml

from tests.support.paths import ROOT

SPEC = yaml.safe_load((ROOT / "k8s" / "base" / "monitoring" / "rules.yaml").read_text(encoding="utf-8"))[
    "spec"
]
RULES = [rule for group in SPEC["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RAY_WORKER = ("Component", "NodeAddress", "SessionName", "Version", "WorkerId")
"""What Ray 2.60 writes beside a metric's own tags, where a process of a job or a raylet reports it."""
RAY_NODE = ("IsHeadNode", "RayNodeType", "SessionName", "Version", "ip")
"""The same for what the agent of a node reports."""
_VALUES = {"Component": "core_worker", "IsHeadNode": "true", "RayNodeType": "head", "Version": "2.60.0"}
_PER_MINUTE = 2
"""Samples."""


@dataclass(frozen=True)
class Case:
    """Series, and what an alert says of them at a time."""

    situation: str
    alert: str
    series: Mapping[str, str]
    minute: int
    fires: Mapping[str, str] | None = None
    """Labels of the alert beside its name and severity; None: it is silent."""


def selector(name, labels):
    given = ", ".join(f'{key}="{value}"' for key, value in labels.items() if value)
    return f"{name}{{{given}}}"


def worker(name, cluster="tickets-abcde", process="01", component="core_worker", **tags):
    """A series of a process of a job."""
    own = {key: _VALUES.get(key, key.lower()) for key in RAY_WORKER}
    own |= {"Component": component, "WorkerId": process}
    return selector(name, {**own, **tags, "ray_io_cluster": cluster, "instance": "10.0.0.1:8080"})


def node(name, **tags):
    """A series of a node."""
    own = {key: _VALUES.get(key, key.lower()) for key in RAY_NODE}
    return selector(name, {**own, **tags, "ray_io_cluster": "tickets-abcde", "instance": "10.0.0.1:8080"})


def job(name, status, operator="kuberay-1"):
    labels = {"name": name, "deployment_status": status, "namespace": "multicsr", "instance": operator}
    return selector("kuberay_job_deployment_status", labels)


def pod(name, **labels):
    own = {"namespace": "multicsr", "pod": "tickets-worker-x", "container": "ray-worker", "uid": "7"}
    return selector(name, {**own, **labels, "instance": "kube-state-metrics:8080"})


def cronjob(name):
    labels = {"namespace": "multicsr", "cronjob": "multicsr-nightly", "instance": "kube-state-metrics:8080"}
    return selector(name, labels)


def last(minutes, value=1, before="_"):
    """A value for so long, in samples of promtool's notation; `before`: what was there for as long before."""
    samples = minutes * _PER_MINUTE
    return " ".join(f"{one}x{samples}" for one in (before, value))


def lasts(minutes, value=1):
    return f"{value}x{minutes * _PER_MINUTE}"


def rises(minutes, by):
    """A counter from 0."""
    return f"0+{by}x{minutes * _PER_MINUTE}"


CLUSTER = {"ray_io_cluster": "tickets-abcde"}
RUN = {"namespace": "multicsr", "run": "tickets-generate-0a1b2c3d"}
NAME = {"namespace": "multicsr", "name": "tickets-generate-0a1b2c3d"}
POD = {"namespace": "multicsr", "pod": "tickets-worker-x", "container": "ray-worker"}
NIGHTLY = {"namespace": "multicsr", "cronjob": "multicsr-nightly"}
FIRST, SECOND, THIRD = (NAME["name"] + attempt for attempt in ("", "-2", "-3"))
WAITING, ROWS = "ray_multicsr_shards_waiting", "ray_multicsr_generate_rows_total"
LEFT, STEPS = "ray_multicsr_train_steps_left", "ray_multicsr_train_steps_total"
REFUSED = "ray_multicsr_generate_rows_refused_total"
UNSCHEDULABLE = "ray_scheduler_unscheduleable_tasks"
OOM = {"reason": "OOMKilled"}
LAST_REASON, REASON = (f"kube_pod_container_status_{x}terminated_reason" for x in ("last_", ""))
RESTARTS = "kube_pod_container_status_restarts_total"
CREATED, SUCCEEDED = "kube_cronjob_created", "kube_cronjob_status_last_successful_time"
SUSPENDED = "kube_cronjob_spec_suspend"

CASES = [
    Case("a job failed", "MulticsrJobFailed", {job(FIRST, "Failed"): lasts(60)}, 10, RUN),
    Case(
        "the operator found a job invalid",
        "MulticsrJobFailed",
        {job(FIRST, "ValidationFailed"): lasts(60)},
        10,
        RUN,
    ),
    Case("a job is complete", "MulticsrJobFailed", {job(FIRST, "Complete"): lasts(60)}, 10),
    Case(
        "the next attempt succeeded",
        "MulticsrJobFailed",
        {job(FIRST, "Failed"): lasts(120), job(SECOND, "Complete"): last(60)},
        90,
    ),
    Case(
        "the next attempt is still running",
        "MulticsrJobFailed",
        {job(FIRST, "Failed"): lasts(120), job(SECOND, "Running"): last(60)},
        90,
        RUN,
    ),
    Case(
        "two attempts failed and the third succeeded",
        "MulticsrJobFailed",
        {
            job(FIRST, "Failed"): lasts(120),
            job(SECOND, "ValidationFailed"): last(60),
            job(THIRD, "Complete"): last(30, before="_x120 _"),
        },
        100,
    ),
    Case(
        "the first attempt succeeded and the second failed",
        "MulticsrJobFailed",
        {job(FIRST, "Complete"): lasts(120), job(SECOND, "Failed"): last(60)},
        90,
        RUN,
    ),
    Case(
        "the second attempt failed, and then the operator was restarted",
        "MulticsrJobFailed",
        {
            job(FIRST, "Complete"): f"{lasts(90)} stale",
            job(SECOND, "Failed"): f"_x120 {lasts(29)} stale",
            job(FIRST, "Complete", "kuberay-2"): f"_x181 {lasts(60)}",
            job(SECOND, "Failed", "kuberay-2"): f"_x181 {lasts(60)}",
        },
        110,
        RUN,
    ),
    Case(
        "the failed job was deleted",
        "MulticsrJobFailed",
        {job(FIRST, "Failed"): f"{lasts(60)} stale"},
        62,
    ),
    Case(
        "last night failed and this night succeeded",
        "MulticsrJobFailed",
        {
            job("nightly-refresh-20261128", "Failed"): lasts(120),
            job("nightly-refresh-20261129", "Complete"): last(60),
        },
        90,
    ),
    Case(
        "last night succeeded and this night failed twice",
        "MulticsrJobFailed",
        {
            job("nightly-refresh-20261128", "Complete"): lasts(120),
            job("nightly-refresh-20261129", "Failed"): last(60),
            job("nightly-refresh-20261129-2", "Failed"): last(60),
        },
        90,
        {"namespace": "multicsr", "run": "nightly-refresh"},
    ),
    Case(
        "another job succeeded",
        "MulticsrJobFailed",
        {job(FIRST, "Failed"): lasts(120), job("tickets-train-0a1b2c3d", "Complete"): last(60)},
        90,
        RUN,
    ),
    Case(
        "a job changes among the states before running",
        "MulticsrJobNotStarting",
        {
            job(FIRST, "Initializing"): f"{lasts(20)} stale",
            job(FIRST, "Waiting"): f"_x41 {lasts(60)}",
        },
        40,
        NAME,
    ),
    Case(
        "the operator has not looked at a job",
        "MulticsrJobNotStarting",
        {job(FIRST, ""): lasts(60)},
        40,
        NAME,
    ),
    Case(
        "a job ran after twenty minutes",
        "MulticsrJobNotStarting",
        {job(FIRST, "Initializing"): f"{lasts(20)} stale", job(FIRST, "Running"): f"_x41 {lasts(60)}"},
        50,
    ),
    Case("a job is queued", "MulticsrJobQueued", {job(FIRST, "Suspended"): lasts(180)}, 130, NAME),
    Case("a job was queued for an hour", "MulticsrJobQueued", {job(FIRST, "Suspended"): lasts(60)}, 130),
    Case("a job runs for a day", "MulticsrJobRunsLong", {job(FIRST, "Running"): lasts(1500)}, 1450, NAME),
    Case("a job runs for an hour", "MulticsrJobRunsLong", {job(FIRST, "Running"): lasts(60)}, 55),
    Case(
        "an engine hangs: rows stand still, shards wait",
        "MulticsrNoRows",
        {
            worker(WAITING, stage="generate"): lasts(60, 7),
            worker(ROWS, process="a1"): f"{rises(10, 32)} 640x100",
        },
        50,
        CLUSTER,
    ),
    Case(
        "no actor has come up",
        "MulticsrNoRows",
        {worker(WAITING, stage="generate"): lasts(60, 7)},
        40,
        CLUSTER,
    ),
    Case(
        "rows are written, though no shard is done",
        "MulticsrNoRows",
        {worker(WAITING, stage="generate"): lasts(60, 7), worker(ROWS, process="a1"): rises(60, 32)},
        50,
    ),
    Case(
        "one of two actors hangs",
        "MulticsrNoRows",
        {
            worker(WAITING, stage="generate"): lasts(60, 7),
            worker(ROWS, process="a1"): lasts(60, 640),
            worker(ROWS, process="a2"): rises(60, 32),
        },
        50,
    ),
    Case(
        "files are planned or assembled: no row, but fewer and fewer wait",
        "MulticsrNoRows",
        {worker(WAITING, stage="generate"): "5000-1x120"},
        50,
    ),
    Case(
        "the job has ended, its counters stay",
        "MulticsrNoRows",
        {
            worker(WAITING, stage="generate"): f"{lasts(10, 7)} stale",
            worker(ROWS, process="a1"): f"{rises(10, 32)} 640x100",
        },
        50,
    ),
    Case(
        "all shards are done",
        "MulticsrNoRows",
        {worker(WAITING, stage="generate"): lasts(60, 0), worker(ROWS): lasts(60, 640)},
        50,
    ),
    Case(
        "another cluster writes rows",
        "MulticsrNoRows",
        {worker(WAITING, stage="generate"): lasts(60, 7), worker(ROWS, cluster="other"): rises(60, 32)},
        50,
        CLUSTER,
    ),
    Case(
        "shards of another stage wait",
        "MulticsrNoRows",
        {worker(WAITING, stage="ingest"): lasts(60, 7)},
        50,
    ),
    Case(
        "a collective hangs",
        "MulticsrTrainingStalled",
        {worker(LEFT): lasts(60, 90), worker(STEPS): f"{rises(5, 1)} 10x110"},
        50,
        CLUSTER,
    ),
    Case("the first step hangs", "MulticsrTrainingStalled", {worker(LEFT): lasts(60, 100)}, 40, CLUSTER),
    Case(
        "steps are done",
        "MulticsrTrainingStalled",
        {worker(LEFT): "100-1x90", worker(STEPS): rises(45, 1)},
        40,
    ),
    Case(
        "the training has ended early",
        "MulticsrTrainingStalled",
        {worker(LEFT): "90 80 0x118", worker(STEPS): "10 20 20x118"},
        50,
    ),
    Case(
        "half of the rows become rejects",
        "MulticsrRejects",
        {worker(ROWS): rises(60, 32), worker(REFUSED): rises(60, 16)},
        50,
        CLUSTER,
    ),
    Case(
        "a tenth of the rows become rejects",
        "MulticsrRejects",
        {worker(ROWS): rises(60, 32), worker(REFUSED): rises(60, 3)},
        50,
    ),
    Case("no row becomes a reject", "MulticsrRejects", {worker(ROWS): rises(60, 32)}, 50),
    Case(
        "every other request to the bucket fails",
        "MulticsrStoreErrors",
        {worker("ray_multicsr_store_errors_total"): rises(60, 60)},
        30,
        CLUSTER,
    ),
    Case(
        "a request now and then fails",
        "MulticsrStoreErrors",
        {worker("ray_multicsr_store_errors_total"): rises(60, 5)},
        30,
    ),
    Case(
        "the head is nearly full",
        "MulticsrHeadMemory",
        {node("ray_node_mem_used"): lasts(30, 9), node("ray_node_mem_total"): lasts(30, 10)},
        20,
        CLUSTER,
    ),
    Case(
        "a worker is nearly full, the head is not",
        "MulticsrHeadMemory",
        {
            node("ray_node_mem_used"): lasts(30, 2),
            node("ray_node_mem_total"): lasts(30, 10),
            node("ray_node_mem_used", IsHeadNode="false", ip="10.0.0.2"): lasts(30, 9),
            node("ray_node_mem_total", IsHeadNode="false", ip="10.0.0.2"): lasts(30, 10),
        },
        20,
    ),
    Case(
        "a container was killed for its memory and runs again",
        "MulticsrOutOfMemory",
        {pod(LAST_REASON, **OOM): last(10), pod(RESTARTS): last(10, before="0")},
        15,
        POD,
    ),
    Case(
        "a container was killed for its memory and stays away",
        "MulticsrOutOfMemory",
        {pod(REASON, **OOM): lasts(10)},
        5,
        POD,
    ),
    Case(
        "a container was killed for its memory hours ago",
        "MulticsrOutOfMemory",
        {pod(LAST_REASON, **OOM): lasts(300), pod(RESTARTS): lasts(300)},
        200,
    ),
    Case(
        "a container has ended by itself",
        "MulticsrOutOfMemory",
        {
            pod(LAST_REASON, reason="Error"): last(10),
            pod(RESTARTS): last(10, before="0"),
            pod(REASON, reason="Completed"): lasts(20),
        },
        15,
    ),
    Case(
        "a disk is nearly full",
        "MulticsrDiskFull",
        {node("ray_node_disk_utilization_percentage", ip="10.0.0.3"): lasts(30, 95)},
        20,
        {**CLUSTER, "ip": "10.0.0.3"},
    ),
    Case(
        "a disk is half full",
        "MulticsrDiskFull",
        {node("ray_node_disk_utilization_percentage"): lasts(30, 50)},
        20,
    ),
    Case(
        "a task asks for what no node has",
        "MulticsrInfeasible",
        {worker(UNSCHEDULABLE, component="raylet", process="", Reason="Infeasible"): lasts(30, 2)},
        20,
        CLUSTER,
    ),
    Case(
        "tasks wait for others to end",
        "MulticsrInfeasible",
        {
            worker(UNSCHEDULABLE, component="raylet", process="", Reason="WaitingForResources"): lasts(30, 2),
            worker(UNSCHEDULABLE, component="raylet", process="", Reason="Infeasible"): lasts(30, 0),
        },
        20,
    ),
    Case(
        "nodes do not come",
        "MulticsrNodesPending",
        {selector("autoscaler_pending_nodes", {"SessionName": "s", "NodeType": "cpu", **CLUSTER}): lasts(60)},
        40,
        CLUSTER,
    ),
    Case(
        "nodes come after ten minutes",
        "MulticsrNodesPending",
        {selector("autoscaler_pending_nodes", {"SessionName": "s", **CLUSTER}): f"{lasts(10)} 0x100"},
        40,
    ),
    Case(
        "GPUs are idle",
        "MulticsrGpusIdle",
        {node("ray_node_gpus_utilization", GpuIndex="0", IsHeadNode="false"): lasts(60, 0)},
        40,
        CLUSTER,
    ),
    Case(
        "one of two GPUs works",
        "MulticsrGpusIdle",
        {
            node("ray_node_gpus_utilization", GpuIndex="0", IsHeadNode="false"): lasts(60, 0),
            node("ray_node_gpus_utilization", GpuIndex="1", IsHeadNode="false"): lasts(60, 90),
        },
        40,
    ),
    Case(
        "an image cannot be fetched",
        "MulticsrImagePull",
        {pod("kube_pod_container_status_waiting_reason", reason="ImagePullBackOff"): lasts(30)},
        20,
        {**POD, "reason": "ImagePullBackOff", "uid": "7", "instance": "kube-state-metrics:8080"},
    ),
    Case(
        "a container is being made",
        "MulticsrImagePull",
        {pod("kube_pod_container_status_waiting_reason", reason="ContainerCreating"): lasts(30)},
        20,
    ),
    # promtool's clock begins at 0.
    Case(
        "a night never succeeded",
        "MulticsrNightMissed",
        {cronjob(CREATED): lasts(1800, 0), cronjob(SUSPENDED): lasts(1800, 0)},
        1700,
        NIGHTLY,
    ),
    Case(
        "the first night is still to come",
        "MulticsrNightMissed",
        {cronjob(CREATED): lasts(1800, 0), cronjob(SUSPENDED): lasts(1800, 0)},
        1400,
    ),
    Case(
        "a night succeeded once, and the next one did not",
        "MulticsrNightMissed",
        {cronjob(CREATED): lasts(1800, 0), cronjob(SUCCEEDED): lasts(1800, 6000)},
        1700,
        NIGHTLY,
    ),
    Case(
        "last night succeeded",
        "MulticsrNightMissed",
        {cronjob(CREATED): lasts(1800, 0), cronjob(SUCCEEDED): lasts(1800, 80000)},
        1700,
    ),
    Case(
        "nights are suspended",
        "MulticsrNightMissed",
        {cronjob(CREATED): lasts(1800, 0), cronjob(SUSPENDED): lasts(1800, 1)},
        1700,
    ),
]


def as_test(case):
    """The case in promtool's words."""
    fired = {
        "alertname": case.alert,
        "alertstate": "firing",
        "severity": ALERTS[case.alert]["labels"]["severity"],
    }
    samples = (
        [] if case.fires is None else [{"labels": selector("ALERTS", {**fired, **case.fires}), "value": 1}]
    )
    return {
        "interval": f"{60 // _PER_MINUTE}s",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}',
                "eval_time": f"{case.minute}m",
                "exp_samples": samples,
            }
        ],
    }


@pytest.fixture(scope="module")
def promtool(tmp_path_factory):
    """Evaluate a case; returns what promtool says when it comes out otherwise."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is absent (Debian: apt-get install prometheus)")
    folder = tmp_path_factory.mktemp("rules")

    def evaluate(case):
        rules = [rule for rule in RULES if rule.get("alert", case.alert) == case.alert]
        (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": rules}]}))
        # A day's rules every minute would cost seconds.
        every = "1m" if case.minute < 600 else "10m"
        cases = {"rule_files": ["rules.yaml"], "evaluation_interval": every, "tests": [as_test(case)]}
        (folder / "case.yaml").write_text(yaml.safe_dump(cases))
        run = [program, "test", "rules", str(folder / "case.yaml")]
        done = subprocess.run(run, capture_output=True, text=True)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    return evaluate


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.situation}")
def test_an_alert(promtool, case):
    assert promtool(case) == ""


def test_promtool_notices_an_alert_that_does_not_fire(promtool):
    assert "FAILED" in promtool(Case("nothing", "MulticsrNoRows", {}, 10, CLUSTER))


def test_every_alert_is_shown_to_fire_and_to_be_silent():
    assert {case.alert for case in CASES if case.fires is not None} == set(ALERTS)
    assert {case.alert for case in CASES if case.fires is None} == set(ALERTS)


def test_the_file_as_a_whole_is_valid(promtool, tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(SPEC))
    run = ["promtool", "check", "rules", str(tmp_path / "rules.yaml")]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


def test_what_a_summary_names_is_a_label_of_its_alert():
    for case in CASES:
        if case.fires is not None:
            named = set(re.findall(r"\$labels\.(\w+)", ALERTS[case.alert]["annotations"]["summary"]))
            assert named <= set(case.fires), case.alert
