"""Relative paths of a configuration that is read from another directory."""

import shutil

import pytest

from multicsr.config_file import load_config
from multicsr.deploy.submit.bundle import pack
from multicsr.errors import ConfigError
from multicsr.pipeline.preflight import find_problems
from multicsr.prompts import load_prompts, prompts_for_workers
from multicsr.stages.ingest.files import find_files
from tests.support.paths import ROOT

CONFIG = """
name: t
store: runs/t
input: {paths: [data/a.txt, "data/**/*.tsv.gz", gone.txt, /abs.txt, s3://bucket/key], column: text}
llm: {engine: fake}
generate: {prompts: my.yaml}
train: {dev: dev.tsv, extra_triplets: [{path: own.tsv}]}
evaluate: {data: [sets, dev.tsv]}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with its data beside the configuration; the current directory is another one."""
    folder = tmp_path / "project"
    for name in ("data/a.txt", "data/deep/b.tsv.gz", "sets/dev.tsv", "dev.tsv", "own.tsv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("score\tsentence1\tsentence2\n1\tA dog.\tA cat.\n3\tA man.\tA boy.\n")
    shutil.copy(ROOT / "multicsr/prompts/syncse.yaml", folder / "my.yaml")
    (folder / "c.yaml").write_text(CONFIG)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


@pytest.mark.parametrize("name", ["../project/c.yaml", "{project}/c.yaml"])
def test_what_lies_beside_the_configuration_is_found_from_another_directory(project, name):
    config = load_config(name.format(project=project))
    beside = "../project/"
    assert config.input.paths == [
        f"{beside}data/a.txt",
        f"{beside}data/**/*.tsv.gz",
        "gone.txt",
        "/abs.txt",
        "s3://bucket/key",
    ]
    assert config.generate.prompts == f"{beside}my.yaml"
    assert config.train.dev == f"{beside}dev.tsv"
    assert config.train.extra_triplets[0].path == f"{beside}own.tsv"
    assert config.evaluate.data == [f"{beside}sets", f"{beside}dev.tsv"]
    assert config.store == "runs/t"


def test_the_current_directory_comes_first(project, monkeypatch):
    shutil.copytree(project / "data", "data")
    config = load_config(project / "c.yaml")
    assert config.input.paths[:2] == ["data/a.txt", "data/**/*.tsv.gz"]
    monkeypatch.chdir(project)
    assert load_config("c.yaml").evaluate.data == ["sets", "dev.tsv"]


def test_overrides_begin_at_the_current_directory(project):
    config = load_config(project / "c.yaml", ["input.paths=[data/a.txt]", "input.column=null"])
    with pytest.raises(ConfigError, match=r"no file, directory or glob data/a\.txt"):
        find_files(config.input)


def test_name_of_a_shipped_prompt_set_stays_one(project):
    (project / "syncse").mkdir()
    (project / "c.yaml").write_text(CONFIG.replace("my.yaml", "syncse"))
    assert load_config(project / "c.yaml").generate.prompts == "syncse"


def test_files_beside_the_configuration_are_sent_with_a_job(project):
    config = load_config(project / "c.yaml")
    assert sorted(pack(config, "generate").files) == ["my.yaml"]
    assert sorted(pack(config, "train").files) == ["dev.tsv", "own.tsv"]


def test_values_that_are_not_valid_are_reported_as_they_are(project):
    (project / "c.yaml").write_text('name: t\nstore: s\ninput: {paths: ["a\\0b", 3, ""]}\ntrain: [x]\n')
    with pytest.raises(ConfigError, match=r"input\.paths") as raised:
        load_config(project / "c.yaml")
    assert "\n" not in "".join(raised.value.args)


def test_preflight_finds_nothing_wrong_from_another_directory(project):
    (project / "c.yaml").write_text(
        "name: t\nstore: runs/t\ninput: {paths: [data/a.txt]}\nllm: {engine: fake}\n"
        "generate: {prompts: my.yaml}\nevaluate: {data: [sets]}\n"
    )
    assert find_problems(["ingest", "generate", "evaluate"], load_config(project / "c.yaml")) == []


def test_workers_get_the_text_of_a_prompt_file(project):
    path = str(project / "my.yaml")
    text = prompts_for_workers(path)
    assert load_prompts(text) == load_prompts(path) == load_prompts(prompts_for_workers(text))
    assert prompts_for_workers("fewshot") == "fewshot"
