"""Alerts and dashboard: every metric they ask for exists, and every alert has its page in the run-book.

An expression is read as words and brackets, which finds names that are wrong; tests/k8s/test_alerts.py finds
expressions that are.
"""

import json
import re
from pathlib import Path

import pytest
import yaml

from multicsr.llm.base import Usage
from multicsr.observability.metrics import COUNTERS, GAUGES, published
from tests.support.paths import ROOT

FOLDER = ROOT / "k8s" / "base" / "monitoring"
_ALL_RULES = yaml.safe_load((FOLDER / "rules.yaml").read_text(encoding="utf-8"))["spec"]["groups"][0]["rules"]
RULES = [rule for rule in _ALL_RULES if "alert" in rule]
RECORDED = [rule for rule in _ALL_RULES if "record" in rule]
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))

RAY = {
    "ray_component_rss_bytes",
    "ray_memory_manager_worker_eviction_total",
    "ray_node_disk_utilization_percentage",
    "ray_node_gpus_utilization",
    "ray_node_mem_total",
    "ray_node_mem_used",
    "ray_scheduler_unscheduleable_tasks",
}
AUTOSCALER = {"autoscaler_pending_nodes"}
OPERATOR = {"kuberay_job_deployment_status"}
KUBERNETES = {
    "kube_cronjob_created",
    "kube_cronjob_spec_suspend",
    "kube_cronjob_status_last_successful_time",
    "kube_pod_container_status_last_terminated_reason",
    "kube_pod_container_status_restarts_total",
    "kube_pod_container_status_terminated_reason",
    "kube_pod_container_status_waiting_reason",
}
KNOWN = published() | RAY | AUTOSCALER | OPERATOR | KUBERNETES | {rule["record"] for rule in RECORDED}
"""The operator's and Kubernetes' names are as documented; the others are checked below."""
AGGREGATIONS = {"avg", "max", "min", "sum"}
FUNCTIONS = {"changes", "count_over_time", "increase", "label_replace", "label_values", "rate", "time"}
LABELS_FOLLOW = {"by", "on"}
OPERATORS = {"and", "or", "unless"}


def expressions():
    for rule in (*RULES, *RECORDED):
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"].replace(", ray_io_cluster", "")


def metrics_of(expression):
    """The names that are neither functions, nor operators, nor labels."""
    bare = re.sub(r'"[^"]*"', "", expression)
    for opening, closing in ("()", "[]", "{}"):
        assert bare.count(opening) == bare.count(closing), expression
    bare = re.sub(r"\{[^}]*\}|\[\d+[smhd]\]", "", bare)
    bare = re.sub(rf"\b({'|'.join(LABELS_FOLLOW)}) *\([^)]*\)", "", bare)
    words = set(re.findall(r"[a-zA-Z_][\w:]*", bare))
    called = set(re.findall(r"([a-zA-Z_]\w*) *\(", bare))
    # `sum by (x) (...)` has lost its `by`, and reads `sum (...)`.
    assert called - OPERATORS <= FUNCTIONS | AGGREGATIONS, expression
    return words - called - OPERATORS


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_every_metric_exists(where, expression):
    asked = metrics_of(expression)
    assert asked or expression.startswith("time()")
    assert asked <= KNOWN, asked - KNOWN


def test_the_reader_finds_names_that_are_wrong():
    expression = 'sum by (a) (rate(x_total{b="c d"}[5m])) / on (e) (time() - y) unless on (a) z > 1'
    assert metrics_of(expression) == {"x_total", "y", "z"}


def test_what_is_published_is_what_engines_count():
    """A name that an engine counts and the registry lacks would end its actor."""
    found = set()
    for path in [
        *(ROOT / "multicsr/llm").rglob("*.py"),
        *(ROOT / "multicsr/stages/generate").glob("*.py"),
    ]:
        text = path.read_text(encoding="utf-8")
        for call in re.findall(r"usage\.add\(([^*][^)]*)", text):
            found |= set(re.findall(r"(\w+)=", call))
        found |= set(re.findall(r'usage\.levels\["(\w+)"\]', text))
        if "gauges.preemptions" in text:
            found |= set(re.findall(r'"(\w+)": (?:counts|gauges)\.', text))
    assert {"prompt_tokens", "preemptions", "pairs_in_flight", "ties"} <= found
    assert found <= {name.removeprefix("generate_") for name in [*COUNTERS, *GAUGES]}
    assert hasattr(Usage(), "levels")


def test_rays_own_names_are_in_the_installed_ray():
    import ray
    from ray.autoscaler._private.prom_metrics import AutoscalerPrometheusMetrics
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    python = {f"ray_{name}" for name in METRICS_GAUGES}
    core = (Path(ray.__file__).parent / "core" / "src" / "ray" / "raylet" / "raylet").read_bytes()
    for name in RAY - python:
        bare = name.removeprefix("ray_").removesuffix("_total")
        assert bare.encode() in core, name
    for name in AUTOSCALER:
        assert hasattr(AutoscalerPrometheusMetrics(session_name="x"), name.removeprefix("autoscaler_"))


def test_every_alert_has_its_page():
    headings = re.findall(r"^#+ (.+)$", (ROOT / "RUNBOOK.md").read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for rule in RULES:
        page, _, anchor = rule["annotations"]["runbook_url"].rpartition("#")
        assert page.endswith("/RUNBOOK.md")
        assert anchor in anchors, rule["alert"]
    assert len({rule["alert"] for rule in RULES}) == len(RULES) >= 15


def test_every_port_of_ray_is_collected_with_its_cluster():
    monitors = list(yaml.safe_load_all((FOLDER / "pod-monitors.yaml").read_text(encoding="utf-8")))
    found = {
        (monitor["spec"]["selector"]["matchLabels"]["ray.io/node-type"], endpoint["port"])
        for monitor in monitors
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
        if "ray_io_cluster" in {relabeling["targetLabel"] for relabeling in endpoint["relabelings"]}
    }
    of_head = {("head", port) for port in ("metrics", "as-metrics", "dash-metrics")}
    assert found == of_head | {("worker", "metrics")}


def test_the_dashboard_shows_what_was_asked_for():
    shown = " ".join(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    wanted = ["generate_rows_total", "rows_kept_total", "generate_generated_tokens_total"]
    for name in (*wanted, "train_masked", "shards_waiting"):
        assert f"ray_multicsr_{name}" in shown
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
