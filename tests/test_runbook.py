"""The run-book quotes what the code says: messages, metrics, commands, settings."""

import ast
import re
import shutil

import pytest
import yaml

from multicsr.config import Config
from tests.k8s.test_monitoring import KNOWN, RULES
from tests.support.paths import ROOT

TEXT = (ROOT / "RUNBOOK.md").read_text(encoding="utf-8")
PAGES = dict(page.split("\n", 1) for page in TEXT.split("\n### ")[1:])
_QUOTED = re.compile(r"``\s(.+?)\s``|`([^`\n]+)`")
QUOTES = [double or single for double, single in _QUOTED.findall(TEXT)]


def texts(node):
    """The pieces of a text in the code; None is what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return [part.value if isinstance(part, ast.Constant) else None for part in node.values]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def messages():
    """Of every error that the library raises, as texts() has them."""
    for path in (ROOT / "multicsr").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if name.endswith(("Error", "Lost", "Kept")):
                yield from (found for argument in node.args if (found := texts(argument)))


def pattern(message):
    return re.compile("".join(".+" if text is None else re.escape(text) for text in message))


# One with hardly a word of its own would match whatever is quoted.
PATTERNS = [pattern(message) for message in messages() if len(re.findall("[a-z]", str(message))) >= 9]


@pytest.mark.parametrize("quote", [quote for quote in QUOTES if quote.startswith("error: ")])
def test_a_quoted_error_is_one_of_ours(quote):
    message = quote.removeprefix("error: ")
    assert any(pattern.fullmatch(message) for pattern in PATTERNS)


@pytest.mark.parametrize("quote", [quote for quote in QUOTES if quote.startswith("; ")])
def test_a_quoted_end_of_a_line_is_one_of_ours(quote):
    logged = f'_log.error("%s{quote}", error)' in (ROOT / "multicsr" / "execution/pool.py").read_text()
    assert logged or any(message[-1] and message[-1].endswith(quote) for message in messages())


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
    found = set(re.findall(r"(?:cluster|k8s)/[\w./-]*\w", TEXT))
    assert {"cluster/prepare_aws.py", "cluster/onprem", "k8s/base"} <= found
    assert not [name for name in found if not (ROOT / name).exists()]


def test_every_command_exists():
    import typer

    from multicsr.cli.main import app

    main = typer.main.get_command(app)
    mentioned = set(re.findall(r"^multicsr ([a-z]+)(?: (up|down))?", "\n".join(QUOTES), re.M))
    assert len(mentioned) >= 8
    for name, inner in mentioned:
        command = main.commands[name]
        assert not inner or inner in command.commands


ELSEWHERE = {
    "cluster": "tests/deploy/local_cluster/test_nodes.py",
    "jobs": "tests/deploy",
    "logs": "tests/deploy",
    "status": "tests/deploy",
    "stop": "tests/deploy",
}
"""Commands that need a cluster, and the tests that run them on one."""


def _commands():
    """What the run-book says to type, without repetitions and remarks."""
    lines = re.findall(r"^(multicsr .+?)(?:\s+#.*)?$", TEXT, re.MULTILINE)
    return sorted({*lines, *(quote for quote in QUOTES if quote.startswith("multicsr ") and " " in quote)})


def test_the_commands_that_need_a_cluster_are_tested_elsewhere():
    for place in ELSEWHERE.values():
        assert (ROOT / place).exists()
    assert {command.split()[1] for command in _commands()} > set(ELSEWHERE)


@pytest.mark.parametrize(
    "command",
    [c for c in _commands() if c.split()[1] not in ELSEWHERE and re.search("STORE|s3://|my.yaml", c)],
)
def test_a_command_runs_as_it_is_written(command, copy_of_run, tmp_path):
    from typer.testing import CliRunner

    from multicsr.cli.main import app
    from multicsr.storage.manifest import iter_tables
    from multicsr.storage.store import Store
    from multicsr.storage.versions import current

    config = copy_of_run.model_dump(mode="json", exclude_defaults=True)
    if command.startswith("multicsr submit"):
        command += " --dry-run"  # nothing may be sent from here
        config |= {"store": "s3://corpora/tickets", "input": {"paths": ["s3://corpora/sentences/"]}}
    if "--to k8s" in command and shutil.which("kubectl") is None:
        pytest.skip("kubectl is absent")
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    store = Store.open(copy_of_run.store)
    rows = next(iter_tables(store, current(store).manifest("sentences"), ["row_id"]))
    words = {
        "STORE": copy_of_run.store,
        "s3://corpora/tickets": copy_of_run.store,
        "ROW_ID": rows["row_id"][0].as_py(),
        "my.yaml": str(tmp_path / "my.yaml"),
        "--follow": None,
    }
    arguments = [words.get(word, word) for word in command.split()[1:]]
    done = CliRunner().invoke(app, [word for word in arguments if word is not None])
    assert done.exit_code == 0, done.output
