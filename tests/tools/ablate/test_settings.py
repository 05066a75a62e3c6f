"""The settings of the variants, and what is checked before the LLM is paid."""

import shutil
from pathlib import Path

import pytest

import multicsr.tools.ablate.variants as ablated
from multicsr.config import Config, TrainConfig
from multicsr.errors import ConfigError
from multicsr.observability.progress import SilentProgress
from multicsr.stages.evaluate import FoundTasks
from multicsr.storage.store import Store
from multicsr.tools.ablate import ablate
from multicsr.tools.ablate.trainings import VariantRunner
from multicsr.tools.ablate.variants import Variant, human_triplets, variants

STS = "score\tsentence1\tsentence2\n1\tba de\tmi no\n2\tba de\tba fi\n4\tmi no\tmi no ra\n"
SIMCSE = "SimCSE, unsupervised, premises alone"


@pytest.fixture
def runs(monkeypatch, triplets) -> list[str]:
    """The stores of all runs of the LLM, none of which takes place."""
    stores: list[str] = []
    monkeypatch.setattr(ablated.full_run, "run", lambda config, *_, **__: stores.append(config.store))
    monkeypatch.setattr(ablated, "rows_of", lambda *_: triplets.select(ablated.COLUMNS).cast(ablated.TRIPLET))
    return stores


@pytest.fixture
def trained_encoder(tiny_bert, tmp_path) -> str:
    """A directory like those that sentence-transformers saves."""
    path = Path(shutil.copytree(tiny_bert, tmp_path / "trained"))
    (path / "modules.json").write_text("[]")
    return str(path)


@pytest.fixture
def make(tiny_bert, tmp_path):
    def make(held_out: float = 0.0, **train: object) -> Config:
        tree = {"name": "x", "store": str(tmp_path / "store"), "input": {"paths": ["x"]}}
        training = {"encoder": str(tiny_bert), "steps": 1, "mask": {"model": str(tiny_bert)}} | train
        return Config.model_validate(tree | {"train": training, "evaluate": {"held_out": held_out}})

    return make


def found(config: Config, *, stages: bool = True) -> dict[str, Variant]:
    chosen = variants(config, None, stages=stages, baselines=not stages, progress=SilentProgress())
    return {each.name: each for each in chosen}


def test_unsupervised_simcse_has_premises_alone_and_the_others_count_their_labelled_rows(
    make, runs, triplets, tmp_path
):
    (tmp_path / "own.tsv").write_text("anchor\tpositive\nba\tde\nmi\tno\nba\tde\n")
    by_name = found(make(extra_triplets=str(tmp_path / "own.tsv")))
    assert by_name[SIMCSE].train.extra_triplets == []
    for each in by_name.values():
        assert TrainConfig.model_validate(each.train.model_dump(exclude_unset=True)) == each.train
    counts = {name: each.num_triplets() for name, each in by_name.items()}
    assert counts.pop("(the encoder as it was)") == 0
    assert counts.pop(SIMCSE) == len(triplets)
    assert len(counts) == 4
    assert {*counts.values()} == {len(triplets) + 2}, "equal triplets are trained on once"


def test_an_ablation_of_an_encoder_that_is_merged_by_held_out_triplets_merges_nothing(
    make, runs, trained_encoder, tmp_path
):
    (tmp_path / "sts.tsv").write_text(STS)
    config = make(held_out=0.2, encoder=trained_encoder, keep=[str(tmp_path / "sts.tsv")])
    assert {(tuple(each.train.merge), *each.train.keep) for each in found(config).values()} == {((),)}


@pytest.mark.parametrize(("stages", "human"), [(True, None), (False, Path("human.tsv"))])
def test_an_objective_that_needs_a_mask_is_rejected_before_anything_is_written(stages, human, make, runs):
    with pytest.raises(ConfigError, match=r"^train.objective: gist needs a mask, which .* lack; set another"):
        variants(make(objective="gist"), human, stages=stages, baselines=False, progress=SilentProgress())
    assert runs == []
    assert found(make(objective="gist"), stages=False)


def test_a_file_of_other_columns_names_the_option_that_gave_it(tmp_path):
    (tmp_path / "sts.tsv").write_text(STS)
    with pytest.raises(ConfigError, match=r"^--labelled: .*sts.tsv needs the columns anchor, positive"):
        human_triplets(tmp_path / "sts.tsv", "--labelled")


@pytest.mark.parametrize("objective", ["claif", "clhaif"])
def test_an_objective_that_reads_scores_is_rejected_before_anything_is_written(objective, make, runs):
    with pytest.raises(ConfigError, match=rf"^train.objective: {objective} trains on scores"):
        found(make(objective=objective, mask=None), stages=False)
    assert runs == []


def test_what_the_training_needs_is_checked_before_anything_is_written(make, runs, tmp_path):
    (tmp_path / "sts.tsv").write_text(STS)
    config = make(dev=str(tmp_path / "none.tsv"), extra_triplets=str(tmp_path / "nothing.tsv"))
    with pytest.raises(ConfigError) as raised:
        ablate(config, data=[str(tmp_path / "sts.tsv")], seeds=1, progress=SilentProgress())
    assert all(name in str(raised.value) for name in ("none.tsv", "nothing.tsv"))
    assert runs == []


def test_a_recipe_that_does_not_suit_the_encoder_is_found_before_anything_is_written(make, runs, tmp_path):
    (tmp_path / "sts.tsv").write_text(STS)
    with pytest.raises(ConfigError, match=r"^train.keep has no effect: .* is not trained yet"):
        found(make(held_out=0.2, keep=[str(tmp_path / "sts.tsv")]))
    assert runs == []


def test_the_table_counts_labelled_rows(make, runs, triplets, tmp_path, monkeypatch):
    (tmp_path / "own.tsv").write_text("anchor\tpositive\nba\tde\nmi\tno\n")
    config = make(extra_triplets=str(tmp_path / "own.tsv"))
    monkeypatch.setattr(VariantRunner, "_measured", lambda *_: [])
    runner = VariantRunner(config, Store.of(config), tmp_path, FoundTasks([], {}), SilentProgress())
    row = runner.row(found(config)["MultiCSR, all stages"], seeds=1)
    assert row.num_triplets == len(triplets) + 2
