"""Relative paths of a configuration that is read from another directory."""

import shutil
from pathlib import Path

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


@pytest.mark.parametrize("job", ["generate", "train", "evaluate", "refresh"])
def test_a_job_has_one_name_whatever_the_directory_it_is_sent_from(project, monkeypatch, job):
    (project / "c.yaml").write_text(
        CONFIG.replace("[data/a.txt", "[s3://b/a").replace('"data/**/*.tsv.gz", ', "")
    )
    digests = {pack(load_config(project / "c.yaml"), job).digest}
    monkeypatch.chdir(project)
    digests.add(pack(load_config("c.yaml"), job).digest)
    assert len(digests) == 1
    (project / "c.yaml").write_text(CONFIG.replace("{dev: dev.tsv", "{dev: own.tsv"))
    assert pack(load_config("c.yaml"), job).digest not in digests


def test_parent_of_a_linked_directory_is_that_of_its_target(project, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links/configs").symlink_to(project / "data")
    (tmp_path / "links/dev.tsv").write_text("of another project")
    (project / "data/c.yaml").write_text(CONFIG.replace("dev: dev.tsv", "dev: ../dev.tsv"))
    dev = load_config("../links/configs/c.yaml").train.dev
    assert Path(dev).samefile(project / "dev.tsv")
    assert not Path(dev).is_absolute(), "an absolute path is one that the cluster has"


def test_directory_with_a_bracket_in_its_name_is_found(project, monkeypatch):
    named = project.rename(project.with_name("project [1]"))
    config = load_config(named / "c.yaml", ["input.column=text"])
    assert config.train.dev == "../project [1]/dev.tsv"
    text = {"paths": config.input.paths[:1], "column": None, "format": "text"}
    glob = {"paths": config.input.paths[1:2], "format": "tsv"}
    for changes in (text, glob):
        here = find_files(config.input.model_copy(update=changes)).files
        with monkeypatch.context() as there:
            there.chdir(named)
            paths = [path.rpartition("]/")[2] for path in changes["paths"]]
            assert [file.name for file in here] == [
                file.name
                for file in find_files(config.input.model_copy(update={**changes, "paths": paths})).files
            ]


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
