"""An ablation: which trainings are done again, and which figures are shown."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table
from safetensors.torch import load_file, save_file

from multicsr.config import Config, TrainConfig
from multicsr.errors import ConfigError, RunError
from multicsr.observability.progress import SilentProgress
from multicsr.stages.train import fit as training
from multicsr.tools import ablate as ablation
from multicsr.tools.ablate import AblatedModel, Variant

STS = "score\tsentence1\tsentence2\n1\tba de\tmi no\n2\tba de\tba fi\n4\tmi no\tmi no ra\n"


@pytest.fixture
def encoder(tiny_bert, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "encoder"))


@pytest.fixture
def trained(monkeypatch) -> list[int]:
    """The seed of every training, as they come."""
    seeds: list[int] = []
    fit = training.fit

    def counted(*args: object, seed: int, **settings: object) -> object:
        seeds.append(seed)
        return fit(*args, seed=seed, **settings)

    monkeypatch.setattr(training, "fit", counted)
    return seeds


@pytest.fixture
def run(encoder, triplets, dev_file, tmp_path, monkeypatch) -> Callable[..., Table]:
    """An ablation of two variants that have the same rows and settings."""
    data, dev = tmp_path / "data", Path(shutil.copy(dev_file, tmp_path / "dev.tsv"))
    data.mkdir()
    (data / "one.tsv").write_text(STS)
    train = TrainConfig(
        encoder=str(encoder), steps=1, global_batch=8, dev=str(dev), evaluate_every=1, mlp_head=False
    )
    unmasked = train.model_copy(update={"mask": None})
    rows = triplets.slice(0, 32)
    monkeypatch.setattr(
        ablation, "_variants", lambda *_: [Variant("first", rows, unmasked), Variant("twin", rows, unmasked)]
    )

    def run(seed: int = 1, seeds: int = 2) -> Table:
        tree = {"name": "x", "store": str(tmp_path / "store"), "seed": seed, "input": {"paths": ["x"]}}
        tree["lease_s"] = 1
        config = Config.model_validate({**tree, "train": train.model_dump(exclude_unset=True)})
        return ablation.ablate(config, data=[str(data)], human=dev, seeds=seeds, progress=SilentProgress())

    return run


def cells(table: Table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_every_variant_has_a_row_of_its_own_and_equal_ones_share_their_trainings(run, trained):
    before, first, twin = cells(run())
    assert (before[0], first[0], twin[0]) == ("(before training)", "first", "twin")
    assert first[1:] == twin[1:]
    assert trained == [1, 2]
    run()
    assert trained == [1, 2]
    run(seed=2)
    assert trained == [1, 2, 3]


def test_the_spread_of_a_variant_is_that_of_its_own_runs(run, monkeypatch):
    train = ablation._train

    def with_other_metrics(variant: Variant, seed: int, *others: object) -> AblatedModel:
        return train(variant, seed, *others).model_copy(update={"metrics": {"one": 10.0 * seed}})

    monkeypatch.setattr(ablation, "_train", with_other_metrics)
    _, first, twin = cells(run())
    assert first[2] == twin[2] == "15.00 ± 7.07", "of 10 and 20; both counted twice: 5.77"


@pytest.mark.parametrize("changed", ["encoder", "dev", "data", "one more file"])
def test_other_contents_under_the_same_paths_are_trained_and_measured_again(
    changed, run, trained, encoder, tmp_path
):
    before = cells(run())
    if changed == "encoder":
        tensors = load_file(encoder / "model.safetensors")
        tensors["embeddings.word_embeddings.weight"] *= -1.5
        save_file(tensors, encoder / "model.safetensors", metadata={"format": "pt"})
    elif changed == "dev":
        lines = (tmp_path / "dev.tsv").read_text().splitlines(keepends=True)
        (tmp_path / "dev.tsv").write_text("".join(lines[:-1]))
    elif changed == "data":
        (tmp_path / "data/one.tsv").write_text(STS.replace("\n1\t", "\n9\t"))
    else:
        (tmp_path / "data/two.tsv").write_text(STS)
    after = cells(run())
    assert trained == [1, 2, 1, 2]
    if changed == "data":
        assert [row[2] for row in after] != [row[2] for row in before]
    if changed == "one more file":
        assert [len(row) for row in after] == [4, 4, 4]


def test_an_ablation_inside_another_one_loses_no_figures(run, trained, tmp_path, monkeypatch):
    """The second begins and ends while the first one trains."""
    train, inner = ablation._train, []

    def interrupted(*args: object) -> object:
        if not inner:
            inner.append(True)
            run(seed=50)
        return train(*args)

    monkeypatch.setattr(ablation, "_train", interrupted)
    run(seed=1)
    assert trained == [50, 51, 1, 2]
    assert len([*(tmp_path / "store/ablation").glob("*.json")]) == 4
    run(seed=1)
    run(seed=50)
    assert len(trained) == 4


def test_a_training_that_another_ablation_is_doing_is_not_done_twice(run, trained, monkeypatch):
    train, errors = ablation._train, []

    def interrupted(*args: object) -> object:
        if not errors:
            with pytest.raises(RunError, match=r"ablation/\w+ is in use since .*: an ablation on") as error:
                run()
            errors.append(error)
        return train(*args)

    monkeypatch.setattr(ablation, "_train", interrupted)
    run()
    assert trained == [1, 2]


def test_a_damaged_record_of_figures_is_trained_again(run, trained, tmp_path, caplog):
    table = cells(run(seeds=1))
    (record,) = (tmp_path / "store/ablation").glob("*.json")
    content = record.read_text()
    record.write_text(content.replace('"rows": 32', '"rows": 33').replace('"rows":32', '"rows":33'))
    assert record.read_text() != content
    assert cells(run(seeds=1)) == table
    assert trained == [1, 1]
    assert "is damaged; this variant is trained again" in caplog.text


def test_seeds_that_do_not_exist_are_rejected(run):
    with pytest.raises(ConfigError, match=r"^seed: 9223372036854775807 is too large for 2 seeds below 2\^63"):
        run(seed=2**63 - 1)
