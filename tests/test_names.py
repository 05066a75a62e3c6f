"""Rules of CONTRIBUTING.md for names and docstrings that ruff does not know."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FILES = sorted(path for name in ("multicsr", "ray_jobs", "scripts") for path in (ROOT / name).rglob("*.py"))
NO_NOUN = "What|Of|Where|Who|Whose|Whether|As|How|The same|When|Why|Which"
NO_VERB = (
    f"{NO_NOUN}|The|An?|All|Every|One|This|That|These|Those|It|If|So|For|In|On|To|With|Without|By|From|At|Each"
    "|Some|Any|No|Not|None|True|False|Nothing|Everything|Everybody|Its|Their|Our|Own|Only|Then|Now|Here|There"
)
ENTITY = re.compile(rf"(?:{NO_NOUN})\b")
FUNCTION = re.compile(rf"(?:{NO_VERB})\b|[^A-Z]")


def _strings_after_assignments(body: list[ast.stmt]) -> Iterator[str]:
    for before, statement in pairwise(body):
        if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(statement, ast.Expr):
            match statement.value:
                case ast.Constant(value=str() as text):
                    yield text


def violations(source: str) -> list[str]:
    """Docstrings that begin with the wrong kind of word."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef):
            texts = [ast.get_docstring(node) or "", *_strings_after_assignments(node.body)]
            found += [text for text in texts if ENTITY.match(text)]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or "Nobody asks for one here."
            found += [text] if FUNCTION.match(text) else []
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_docstrings_begin_with_a_verb_or_a_noun(path: Path):
    assert violations(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ('"""What is read."""', 1),
        ('"""Readers."""', 0),
        ('def f():\n    """The rows."""', 1),
        ('def f():\n    """[N] of each."""', 1),
        ('def f():\n    """Return the rows."""', 0),
        ('class A:\n    a: int\n    """Of the rows."""\n    b = 1\n    """Whether it is."""', 2),
    ],
)
def test_rule_finds_what_breaks_it(source, number):
    assert len(violations(source)) == number


def test_class_names_are_unique():
    names = Counter(
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_what_a_docstring_says_that_it_implements_exists():
    texts = [path.read_text(encoding="utf-8") for path in FILES]
    nodes = (node for text in texts for node in ast.walk(ast.parse(text)))
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    methods = {
        f"{each.name}.{node.name}"
        for each in classes
        for node in each.body
        if isinstance(node, ast.FunctionDef)
    }
    named = {name for text in texts for name in re.findall(r'"""Implement `(\w+\.\w+)`', text)}
    assert "TrainEngine.step" in named
    assert named - methods == set()
