"""`multicsr prompts`: every set is listed and shown, and a trial writes what a run then reuses."""

import pytest
from rich.console import Console

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.prompts import load_prompts, shipped_prompt_sets
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools.preview import run as preview_run
from multicsr.tools.preview.sample import sample_corpus
from multicsr.tools.prompt_sets import list_sets, show_set
from multicsr.tools.prompt_trial import try_sets

NUM = 60


@pytest.fixture
def config(tmp_path) -> Config:
    """A run of the fake engine on some sentences; its store is empty."""
    texts = [f"Sentence {number} of the corpus is about a thing." for number in range(NUM)]
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n")
    tree = {"name": "t", "store": str(tmp_path / "store"), "input": {"paths": [str(tmp_path / "in.txt")]}}
    return Config.model_validate({**tree, "llm": {"engine": "fake"}, "generate": {"prompts": "syncse"}})


def test_every_set_is_listed_with_what_it_is_for():
    lines = list(list_sets())
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == shipped_prompt_sets()
    text = " ".join(" ".join(lines).split())
    assert all(load_prompts(name).about in text for name in shipped_prompt_sets())
    assert all(load_prompts(name).about for name in shipped_prompt_sets())


@pytest.mark.parametrize("name", shipped_prompt_sets())
def test_a_shown_set_has_every_prompt_filled(name):
    prompts, text = load_prompts(name), "\n".join(show_set(name))
    pools = sum(len(each.entailment) + len(each.contradiction) for each in prompts.variants())
    assert text.count("--- ") == pools + 1
    assert "{" not in text
    assert "The library on Mill Street" in text


def test_shown_set_that_does_not_exist_is_an_error():
    with pytest.raises(ConfigError, match="no prompt set 'few-shot'; use one of"):
        list(show_set("few-shot"))


@pytest.mark.usefixtures("without_ray")
def test_trial_writes_the_same_rows_with_each_set_and_the_run_reuses_them(config):
    tried = try_sets(config, ["syncse", "reference"], 20, SilentProgress())
    console = Console(width=200, record=True)
    console.print(tried.figures())
    lines = [line.split("│") for line in console.export_text().splitlines() if "%" in line and "│" in line]
    assert [cells[1].strip() for cells in lines] == ["syncse", "reference"]
    assert {cells[2].strip() for cells in lines} == {"20"}
    samples = list(tried.samples())
    assert sum(line.startswith("\nSentence") for line in samples) == 3
    assert sum("reference" in line for line in samples) == sum("syncse" in line for line in samples) >= 6
    full_run.run(config, SilentProgress(), until="generate")
    counters = current(Store.of(config)).manifest("scored").counters
    assert (counters["rows_reused"], counters["rows_written"]) == (20, NUM - 20)


@pytest.mark.usefixtures("without_ray")
def test_a_trial_reads_the_corpus_once(config, monkeypatch):
    read = []
    monkeypatch.setattr(preview_run, "sample_corpus", lambda each: read.append(1) or sample_corpus(each))
    try_sets(config, ["syncse", "reference"], 5, SilentProgress())
    assert read == [1]


@pytest.mark.usefixtures("without_ray")
def test_the_set_that_was_chosen_stands_in_rows_manifest_and_report(config):
    from multicsr.stages.report.collect import collect

    auto = config.model_copy(update={"generate": config.generate.model_copy(update={"prompts": "auto"})})
    full_run.run(auto, SilentProgress(), until="generate")
    snapshot = current(Store.of(config))
    scored = snapshot.manifest("scored")
    assert (
        scored.notes == ["prompt set syncse, because engine: fake reads no prompt"] == collect(snapshot).notes
    )
    full_run.run(config, SilentProgress(), until="generate")
    assert current(Store.of(config)).manifest("scored") == scored  # `auto` is no setting of its own
