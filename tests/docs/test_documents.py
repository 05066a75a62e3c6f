"""README and docs/: links resolve, configurations validate, commands exist, generated pages are current."""

import importlib
import re
import shlex
import tomllib

import pytest
import typer
import yaml

from multicsr.cli.main import app
from multicsr.config import Config, MaskConfig
from tests.support.paths import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = ROOT / "docs" / "reference"
_SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_TOP = {"name": "demo", "store": "runs/demo", "input": {"paths": ["a.txt"]}}
_FOLDERS = "multicsr|k8s|cluster|configs|benchmarks|scripts|docs"


def named(path):
    return path.relative_to(ROOT).as_posix()


def text_of(path):
    """Return a page with the files that it includes."""
    text = path.read_text(encoding="utf-8")
    return _SNIPPET.sub(lambda found: (ROOT / found[1]).read_text(encoding="utf-8"), text)


def prose(path):
    return _FENCE.sub("", text_of(path))


def blocks(path, *languages):
    return [body for language, body in _FENCE.findall(text_of(path)) if language in languages]


def anchors(path):
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    words = (re.sub(r"[^\w\s-]", "", heading.lower()) for heading in _HEADING.findall(prose(path)))
    return {re.sub(r"\s+", "-", word.strip()) for word in words}


def broken_links(path, text):
    for link in _LINK.findall(text):
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        if not file.is_file() or (anchor and anchor not in anchors(file)):
            yield link


def invalid_settings(block):
    """Return what is wrong with a block of settings; a part of a configuration is completed first."""
    tree = yaml.safe_load(block)
    try:
        Config.model_validate(tree if "name" in tree else {**_TOP, **tree})
    except ValueError as error:
        return str(error)
    return None


def command_lines(block):
    """Return the words of every `multicsr ...` line of a shell block."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0].rpartition("/")[2] == "multicsr":
            yield words[1:]


def parse(words):
    """Parse the words of a command as the command line does, without running it."""
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    assert not hasattr(command, "commands"), f"no command multicsr {' '.join(words)}"
    if "--help" not in words:
        command.make_context("multicsr", list(words))


def script(name):
    """Import a module of scripts/docs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts" / "docs")
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def generated():
    """The text of each reference page that is generated."""
    return script("generate").pages()


@pytest.fixture(scope="module")
def effects():
    """Artifacts that each setting decides."""
    return script("effects").effects()


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_relative_links_resolve(path):
    assert list(broken_links(path, prose(path))) == []


@pytest.mark.parametrize(
    ("link", "is_broken"),
    [
        ("docs/index.md", False),
        ("docs/index.md#where-to-begin", False),
        ("docs/none.md", True),
        ("docs/index.md#nowhere", True),
        ("https://host/none", False),
    ],
)
def test_broken_links_are_found(link, is_broken):
    assert list(broken_links(README, f"[text]({link})")) == [link] * is_broken


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_quoted_paths_exist(path):
    quoted = re.findall(rf"`((?:{_FOLDERS})/[\w./-]+)`", _FENCE.sub("", path.read_text(encoding="utf-8")))
    assert [name for name in quoted if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", [page for page in PAGES if blocks(page, "yaml")], ids=named)
def test_configurations_are_valid(path):
    assert [problem for block in blocks(path, "yaml") if (problem := invalid_settings(block))] == []


@pytest.mark.parametrize(
    "block",
    [
        "train: {encodr: x}",
        "training: {encoder: x}",
        "generate: {omega: 2}",
        "name: x\ninput: {paths: [a.txt]}",
    ],
)
def test_invalid_configurations_are_found(block):
    assert invalid_settings(block)


COMMANDS = [
    pytest.param(words, id=f"{named(page)}: {' '.join(words)}")
    for page in PAGES
    for block in blocks(page, "sh")
    for words in command_lines(block)
]


@pytest.mark.parametrize("words", COMMANDS)
def test_command_lines_parse(words):
    parse(words)


@pytest.mark.parametrize(
    "line",
    [
        "multicsr runn a.yaml",
        "multicsr run a.yaml --sett x=1",
        "multicsr cluster sideways",
        "multicsr fetch s3://b",
    ],
)
def test_wrong_command_lines_are_found(line):
    [words] = command_lines(line)
    with pytest.raises(Exception, match=r"No such option|Missing|no command"):
        parse(words)


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_commands_in_prose_exist(path):
    names = re.findall(r"`multicsr ([a-z]+)\b", prose(path))
    assert set(names) <= set(typer.main.get_command(app).commands)


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_make_targets_exist(path):
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    quoted = re.findall(r"(?:`|^)make ([a-z0-9-]+)", text_of(path), re.MULTILINE)
    assert set(quoted) <= set(targets)


def test_generated_pages_are_current(generated):
    assert {path.name for path in GENERATED.glob("*.md")} >= set(generated)
    stale = [
        name for name, text in generated.items() if (GENERATED / name).read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run scripts/docs/generate.py"


def test_settings_page_names_nested_settings(generated):
    page = generated["settings.md"]
    assert [name for name in MaskConfig.model_fields if f"`train.mask.{name}`" not in page] == []


def test_effects_page_names_nested_settings(generated):
    page = generated["effects-of-settings.md"]
    assert [name for name in MaskConfig.model_fields if f"`train.mask.{name}`" not in page] == []


@pytest.mark.parametrize(
    ("setting", "artifacts"),
    [
        ("ingest.min_words", {"sentences"}),
        ("generate.omega", {"hypotheses"}),
        ("score.method", {"scores"}),
        ("curate.alpha", {"curated"}),
        ("train.mask.sigma", {"model"}),
        ("train.workers", set()),
        ("generate.actors", set()),
        ("seed", {"hypotheses", "model"}),
    ],
)
def test_effects_of_settings(effects, setting, artifacts):
    assert effects[setting] == artifacts


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_extras_exist(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    quoted = re.findall(r"(?:multicsr|\.)\[([a-z0-9,-]+)\]'", text_of(path))
    assert {name for names in quoted for name in names.split(",")} <= set(project["optional-dependencies"])


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in PAGES if path != README]
    assert [page for page in pages if f": {page}\n" not in nav] == []


def test_readme_has_at_most_150_lines():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150
