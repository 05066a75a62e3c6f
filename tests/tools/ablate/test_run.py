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
from multicsr.tools.ablate import ablate
from multicsr.tools.ablate import run as ablation
from multicsr.tools.ablate.variants import Variant
from multicsr.tools.methods import Method

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
        encoder=str(encoder), steps=1, global_batch=8, dev=str(dev), evaluate_every=1, mask=None
    )
    rows = triplets.slice(0, 32)
    chosen = [
        Variant("as it was", rows.slice(0, 0), train, Method.PUBLISHED),
        Variant("first", rows, train),
        Variant("twin", rows, train),
    ]
    monkeypatch.setattr(ablation, "variants", lambda *_, **__: chosen)

    def run(seed: int = 1, seeds: int = 2, **more: object) -> Table:
        tree = {"name": "x", "store": str(tmp_path / "store"), "seed": seed, "input": {"paths": ["x"]}}
        tree["lease_s"] = 1
        config = Config.model_validate({**tree, "train": train.model_dump(exclude_unset=True) | more})
        return ablate(config, data=[str(data)], seeds=seeds, progress=SilentProgress())

    return run


def cells(table: Table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_every_variant_has_a_row_of_its_own_and_equal_ones_share_their_trainings(run, trained):
    before, first, twin = cells(run())
    assert (before[0], first[0], twin[0]) == ("as it was", "first", "twin")
    assert first[1:] == twin[1:]
    assert trained == [1, 2]
    run()
    assert trained == [1, 2]
    run(seed=2)
    assert trained == [1, 2, 3]


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
        (tmp_path / "data/one.tsv").write_text(STS.replace("\n1\t", "\n3\t"))
    else:
        (tmp_path / "data/two.tsv").write_text(STS.replace("\n1\t", "\n3\t"))
    after = cells(run())
    assert trained == [1, 2, 1, 2]
    if changed == "data":
        assert [row[2] for row in after] != [row[2] for row in before]
    if changed == "one more file":
        assert [len(row) for row in after] == [4, 4, 4]


def test_an_ablation_inside_another_one_loses_no_figures(run, trained, tmp_path, monkeypatch):
    """The second begins and ends while the first one trains."""
    fit, inner = training.fit, []

    def interrupted(*args: object, **settings: object) -> object:
        if not inner:
            inner.append(True)
            run(seed=50)
        return fit(*args, **settings)

    monkeypatch.setattr(training, "fit", interrupted)
    run(seed=1)
    assert trained == [50, 51, 1, 2]
    assert len([*(tmp_path / "store/ablation").glob("*.npz")]) == 1 + 4
    run(seed=1)
    run(seed=50)
    assert len(trained) == 4
    assert not [*(tmp_path / "store/ablation").rglob("*.safetensors")]


@pytest.mark.cluster
def test_a_training_that_another_ablation_is_doing_is_not_done_twice(run, trained, monkeypatch):
    fit, errors = training.fit, []

    def interrupted(*args: object, **settings: object) -> object:
        if not errors:
            with pytest.raises(RunError, match=r"ablation/\w+ is in use since .*: an ablation on") as error:
                run()
            errors.append(error)
        return fit(*args, **settings)

    monkeypatch.setattr(training, "fit", interrupted)
    run()
    assert trained == [1, 2]


def test_damaged_results_are_made_again(run, trained, tmp_path, caplog):
    table = cells(run(seeds=1))
    for record in (tmp_path / "store/ablation").glob("*.npz"):
        record.write_bytes(record.read_bytes()[:-1])
    assert cells(run(seeds=1)) == table
    assert trained == [1, 1]
    assert "is damaged" in caplog.text


def test_seeds_that_do_not_exist_are_rejected(run):
    with pytest.raises(ConfigError, match=r"^seed: 9223372036854775807 is too large for 2 seeds below 2\^63"):
        run(seed=2**63 - 1)


def test_workers_that_would_be_ignored_are_rejected(run, trained):
    with pytest.raises(ConfigError, match=r"train.workers, .* have no effect: .* set train.workers=1"):
        run(workers=2)
    assert trained == []


def test_sentences_are_no_steps_of_the_training(run, trained, monkeypatch):
    amounts: list[list] = []

    class Stages(SilentProgress):
        """Progress that keeps the amount of work of every stage, as they come."""

        def start(self, stage: str, total: int | None, unit: str = "rows") -> None:
            amounts.append([stage, 0])

        def advance(self, amount: int = 1, note: str = "") -> None:
            amounts[-1][1] += amount

    monkeypatch.setattr("tests.tools.ablate.test_run.SilentProgress", Stages)
    run(seeds=1)
    assert [amount for stage, amount in amounts if stage == "train"] == [1]
    assert sum(amount for stage, amount in amounts if stage == "evaluate") == 2 * 4
