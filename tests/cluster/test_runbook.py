"""The run-book quotes what the code says: messages, metrics, commands, settings."""

import ast
import re
from pathlib import Path

import pytest

from multicsr.config import Config
from tests.cluster.test_monitoring import KNOWN, RULES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "RUNBOOK.md").read_text(encoding="utf-8")
PAGES = dict(page.split("\n", 1) for page in TEXT.split("\n### ")[1:])
_QUOTED = re.compile(r"``\s(.+?)\s``|`([^`\n]+)`")
QUOTES = [double or single for double, single in _QUOTED.findall(TEXT)]


def templates():
    """Every text in the library, as a pattern: what is filled in matches anything."""
    for path in (ROOT / "multicsr").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [re.escape(part) for part in node.value.split("%s")]
                yield node.value, ".+".join(parts)
            elif isinstance(node, ast.JoinedStr):
                texts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
                yield (
                    "".join(text or "" for text in texts),
                    "".join(".+" if text is None else re.escape(text) for text in texts),
                )


# A pattern with hardly a word of its own would match whatever is quoted.
PATTERNS = [re.compile(pattern) for literal, pattern in templates() if len(re.findall("[a-z]", literal)) >= 5]


@pytest.mark.parametrize("quote", [quote for quote in QUOTES if quote.startswith("error: ")])
def test_a_quoted_error_is_one_of_ours(quote):
    message = quote.removeprefix("error: ")
    assert any(pattern.fullmatch(message) for pattern in PATTERNS)


@pytest.mark.parametrize("quote", [quote for quote in QUOTES if quote.startswith("; ")])
def test_a_quoted_end_of_a_line_is_one_of_ours(quote):
    assert any(literal.endswith(quote) for literal, _ in templates())


def test_an_error_that_we_do_not_have_is_found():
    message = "generate: 1,200 of 3,000 rows refused, more than generate.max_rejected = 0.3 allows"
    assert not any(pattern.fullmatch(message) for pattern in PATTERNS)


def test_every_metric_exists():
    names = set(re.findall(r"`((?:ray|autoscaler|kube|kuberay)_\w+)`", TEXT))
    assert len(names) >= 10
    assert names <= KNOWN, names - KNOWN


def test_every_failure_has_symptom_evidence_and_first_experiment():
    assert len(PAGES) >= 15
    for title, page in PAGES.items():
        order = re.findall(r"^\*\*(.+?)\.\*\*", page, re.MULTILINE)
        assert order == ["Symptom", "Evidence", "First experiment"], title


def test_every_alert_is_the_symptom_of_the_page_that_it_links_to():
    for rule in RULES:
        anchor = rule["annotations"]["runbook_url"].rpartition("#")[2]
        [page] = [page for title, page in PAGES.items() if title.lower().replace(" ", "-") == anchor]
        assert f"`{rule['alert']}`" in page.partition("**Evidence.**")[0]
    assert set(re.findall(r"`(Multicsr\w+)`", TEXT)) == {rule["alert"] for rule in RULES}


def test_every_link_within_leads_somewhere():
    anchors = {title.lower().replace(" ", "-") for title in PAGES}
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert links
    assert set(links) <= anchors


def test_every_setting_exists():
    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    named = r"`(ingest|llm|generate|score|curate|train)\.([a-z_]+)(?:\.([a-z_]+))?(?:=[^`]*)?`"
    found = re.findall(named, TEXT)
    assert len(found) >= 15
    for section, name, inner in found:
        fields = sections[section].model_fields
        assert name in fields, f"{section}.{name}"
        if inner:
            assert inner in fields[name].annotation.model_fields, f"{section}.{name}.{inner}"


def test_every_file_exists():
    names = re.findall(r"((?:cluster|k8s/base/monitoring)/?[\w./-]*\w)", TEXT)
    found = {name for name in names if "/" in name}
    assert {"cluster/prepare_aws.py", "cluster/onprem"} <= found
    assert not [name for name in found if not (ROOT / name).exists()]
