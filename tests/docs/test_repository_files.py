""".github/ and .pre-commit-config.yaml: the files parse, and what they call exists."""

import re

import pytest
import yaml

from tests.support.paths import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
PRE_COMMIT = ROOT / ".pre-commit-config.yaml"
_ON = True
"""The key `on` of a workflow, as YAML 1.1 reads it."""


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def missing_targets(text):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    return set(re.findall(r"\bmake ([a-z-]+)", text)) - set(targets)


@pytest.mark.parametrize("path", [*WORKFLOWS, PRE_COMMIT], ids=lambda path: path.name)
def test_make_targets_exist(path):
    assert missing_targets(path.read_text(encoding="utf-8")) == set()


def test_missing_make_targets_are_found():
    assert missing_targets("- run: make check\n- run: make chekc") == {"chekc"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_complete(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert {"push", "pull_request"} <= set(workflow[_ON])
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
    assert all(("run" in step) != ("uses" in step) for step in steps(workflow))


def test_workflows_run_checks_documents_and_tests_and_build_all_images():
    commands = [step["run"] for path in WORKFLOWS for step in steps(load(path)) if "run" in step]
    assert {"make check", "make docs", "make test"} <= set(commands)
    dockerfile = (ROOT / "cluster/Dockerfile").read_text(encoding="utf-8")
    targets = load(ROOT / ".github/workflows/build.yaml")["jobs"]["image"]["strategy"]["matrix"]["target"]
    assert all(f" AS {target}\n" in dockerfile for target in targets)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_have_fields(path):
    form = load(path)
    if path.name != "config.yml":
        assert form["name"]
        assert form["description"]
        fields = [part for part in form["body"] if part["type"] != "markdown"]
        assert all(part["id"] and part["attributes"]["label"] for part in fields)


def test_hooks_call_the_tools_of_the_project():
    [repository] = load(PRE_COMMIT)["repos"]
    assert repository["repo"] == "local"
    assert all(hook["entry"].startswith((".venv/bin/ruff", "make ")) for hook in repository["hooks"])
