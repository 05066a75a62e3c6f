"""`multicsr check CONFIG --resolved`: every setting with its origin, as YAML that gives the same settings."""

import re

import pytest
import yaml

from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.errors import ConfigError
from multicsr.stages.train.recipe import resolve_recipe
from multicsr.tools.resolved import resolved_lines
from tests.support.paths import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
TOP = "name: one\nstore: runs/one\ninput: {paths: [a.txt]}\n"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


def resolved(tmp_path, text: str, *overrides: str) -> list[str]:
    path = tmp_path / "one.yaml"
    path.write_text(text)
    return [line.strip().replace(str(path), "one.yaml") for line in resolved_lines(path, overrides)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_text_gives_the_same_settings(path, tmp_path):
    overrides = ["seed=7", "generate.temperature=0.5"]
    (tmp_path / "again.yaml").write_text("\n".join(resolved_lines(path, overrides)), encoding="utf-8")
    again, config = load_config(tmp_path / "again.yaml"), load_config(path, overrides)
    for section in Config.model_fields.keys() - {"train"}:
        assert getattr(again, section) == getattr(config, section), section
    assert again.train.model_dump() == resolve_recipe(config.train).model_dump()


def test_every_setting_is_there_once(tmp_path):
    def leaves(section, keys=()):
        for name, value in section.items():
            model = (
                value
                if isinstance(value, dict) and value and name not in ("template_args", "nodes")
                else None
            )
            yield from leaves(model, (*keys, name)) if model else [(*keys, name)]

    config = load_config(CONFIGS[0])
    uncommented = (re.sub(r"^(\s*)# ", r"\1", line) for line in resolved_lines(CONFIGS[0]))
    shown = yaml.safe_load("\n".join(uncommented))
    assert sorted(leaves(shown)) == sorted(leaves(config.model_dump(mode="json")))


def test_origins(tmp_path):
    lines = resolved(
        tmp_path,
        f"{TOP}generate:\n  omega: 0.2\n  nodes:\n    a: b\ncurate: {{alpha: 2}}\n",
        "generate.actors=2",
        "train.nodes.c=d",
        "curate={beta: 2}",
    )
    for line in (
        "name: one # one.yaml:1",
        "paths: [a.txt] # one.yaml:3",
        "omega: 0.2 # one.yaml:5",
        "nodes: {a: b} # one.yaml:6",
        "nodes: {c: d} # --set",
        "actors: 2 # --set",
        "alpha: 3.0 # default",
        "beta: 2.0 # --set",
        "learning_rate: 2.0e-05 # default for this encoder",
        "# concurrency: 16 # default; it has no effect here",
    ):
        assert line in lines, "\n".join(lines)


def test_what_a_merge_brings_in_is_from_the_file(tmp_path):
    merged = "name: one\nstore: s\ninput: &i {paths: [a.txt]}\ningest:\n  <<: {min_words: 2}\n"
    assert "min_words: 2 # one.yaml:4" in resolved(tmp_path, merged)


def test_environment_is_an_origin(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    lines = resolved(tmp_path, TOP.replace("runs/one", "s3://bucket/one"))
    assert "endpoint: http://127.0.0.1:9000 # environment AWS_ENDPOINT_URL" in lines
    assert "region: eu-west-1 # environment AWS_DEFAULT_REGION" in lines


def test_mistakes_are_errors(tmp_path):
    with pytest.raises(ConfigError, match="omega"):
        resolved(tmp_path, f"{TOP}generate: {{omega: 7}}\n")


def test_nothing_that_is_stated_is_rejected(tmp_path):
    text = f"{TOP}train: {{objective: simcse_unsup, mask: null, steps: 5}}\n"
    lines = resolved(tmp_path, text)
    assert "# epochs: 3 # default; it has no effect here" in lines
    assert Config.model_validate(yaml.safe_load(text))
