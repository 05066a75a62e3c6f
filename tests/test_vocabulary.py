"""Words that this project does not use: one thing has one name (docs/project/glossary.md)."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FORBIDDEN = {
    *(
        "room",
        "rooms",
        "night",
        "nights",
        "ledger",
        "tally",
        "told",
        "tells",
        "door",
        "doors",
        "widow",
        "widows",
    ),
    *("overheard", "draft", "drafts", "drafting", "beat", "beats", "parcel", "patiently", "survey", "house"),
    *("refuse", "refuses", "refused", "refusal", "refusals"),
}
FORBIDDEN_IN_CODE = FORBIDDEN | {"say", "says", "said"}
"""Documents may say something; functions and messages state, show or return it."""
ALLOWED = {
    "multicsr/rows.py": {"refused"},  # the reject reason `refused by the LLM`, as stores hold it
    "multicsr/observability/metrics.py": {"refused"},  # the metric `rows_refused`, as dashboards name it
    "multicsr/stages/generate/triplets.py": {"refused"},
    "multicsr/tools/preview/advice.py": {"refused"},
    "multicsr/llm/openai/answers.py": {"refused", "refusal"},  # a model refuses: the endpoints' own term
    "multicsr/llm/openai/endpoint.py": {"refused", "refusal", "refuse"},
    "multicsr/llm/openai/batch_endpoint.py": {"refused", "refusal"},
    "multicsr/stages/score/parse.py": {"say"},  # replies of models
    "multicsr/messages/foreign_errors.py": {"refused"},  # connection refused: errno's term
    "multicsr/messages/network_errors.py": {"refused"},
    "benchmarks/data_path.py": {"house"},  # text of sentences
    "benchmarks/data_path_polars.py": {"house"},
    "docs/how-to/endpoints.md": {"refusal"},
    "docs/project/decisions.md": {"refusal"},
    "docs/reference/reject-reasons.md": {"refused"},
    "docs/reference/metrics.md": {"refused"},
    "ARCHITECTURE.md": {"refusal"},
    "RUNBOOK.md": {"night", "refused"},  # the alert MulticsrNightMissed, the metric rows_refused
}
CODE = [path for folder in ("multicsr", "ray_jobs", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
DOCUMENTS = [
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "RUNBOOK.md",
    *(ROOT / "docs").rglob("*.md"),
]
FILES = sorted(
    path for path in (*CODE, *DOCUMENTS) if "tinylm" not in path.parts and path.name != "changelog.md"
)
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def _texts(path: Path) -> Iterator[str]:
    """Yield names, strings and comments of a module, or the whole document."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield text
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NAME, tokenize.STRING, tokenize.COMMENT):
            yield token.string


def forbidden_words(path: Path) -> set[str]:
    """Forbidden words in a file; names are taken apart at underscores and capital letters."""
    parts = {part.lower() for text in _texts(path) for part in _PART.findall(text)}
    return parts & (FORBIDDEN_IN_CODE if path.suffix == ".py" else FORBIDDEN)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_file_uses_the_terms_of_the_field(path: Path):
    assert forbidden_words(path) <= ALLOWED.get(path.relative_to(ROOT).as_posix(), set())


def test_names_strings_and_comments_are_searched(tmp_path):
    module = tmp_path / "module.py"
    module.write_text('scoredRoom = 1\nold_ledger = "it was told"  # a beat\nheartbeat = ballroom = 0\n')
    assert forbidden_words(module) == {"room", "ledger", "told", "beat"}
