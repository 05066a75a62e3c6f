"""configs/: what names data of the project exists, and the documentation mentions every file."""

import pytest

from multicsr.config_file import load_config
from tests.docs.test_documents import PAGES
from tests.support.paths import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configurations_name_files_that_exist(path):
    config = load_config(path)
    named = [*config.input.paths, *config.evaluate.data, *([config.train.dev] if config.train.dev else [])]
    ours = [name for name in named if name.startswith("multicsr/")]
    assert [name for name in ours if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configurations_are_documented(path):
    assert any(f"configs/{path.name}" in page.read_text(encoding="utf-8") for page in PAGES)
