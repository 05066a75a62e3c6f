"""The package of docs/how-to/own-package.md as an installed distribution, built from the page."""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PAGE = ROOT / "docs/how-to/own-package.md"
_FILE = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def files_of_page() -> dict[str, str]:
    """Return the text of every file that the page shows, by its path."""
    return {path: text for path, text in _FILE.findall(PAGE.read_text(encoding="utf-8"))}


def write_distribution(
    folder: Path, name: str, version: str, entry_points: Mapping[str, Mapping[str, str]]
) -> None:
    """Write the metadata by which `importlib.metadata` knows an installed package."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [
        line
        for group, parts in entry_points.items()
        for line in (f"[{group}]", *(f"{part} = {value}" for part, value in parts.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def write_acme(folder: Path, version: str = "1.0") -> None:
    """Write the package of the page, with its metadata, in a version."""
    files = files_of_page()
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    write_distribution(folder, project["name"], version, project["entry-points"])
    for path, text in {"acme_multicsr/__init__.py": "", **files}.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def forget_acme() -> None:
    """Remove the imported modules of the package."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_multicsr"]:
        del sys.modules[name]


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package, installed in a folder of its own while a test runs."""
    folder = tmp_path / "site"
    write_acme(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    forget_acme()
