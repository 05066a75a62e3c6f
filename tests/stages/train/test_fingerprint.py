import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from multicsr.config import Config, MaskConfig, TrainConfig
from multicsr.pipeline.refresh import _is_other_training
from multicsr.stages.train.data.index import digest_rows, join_index
from multicsr.stages.train.fingerprint import deciding_files, deciding_settings, identity
from multicsr.stages.train.mask_model.model import mask_model_fingerprint
from tests.support.versions import manifest


@pytest.fixture
def config(tiny_bert, dev_file) -> TrainConfig:
    mask = MaskConfig(model=str(tiny_bert), sigma=0.9)
    return TrainConfig(encoder=str(tiny_bert), mask=mask, dev=str(dev_file))


def test_a_runs_identity(config, triplets):
    """Another run's checkpoint is not continued; what does not change the result does not change the run."""
    index = join_index([digest_rows(triplets, config.objective)])
    known = identity(config, index, 3)
    assert identity(config, index, 4) != known
    assert identity(config, join_index([digest_rows(triplets.slice(1), config.objective)]), 3) != known
    assert identity(config.model_copy(update={"temperature": 0.1}), index, 3) != known
    assert identity(config.model_copy(update={"workers": 4, "grad_cache": True}), index, 3) == known
    elsewhere = config.mask.model_copy(update={"place": "worker", "cache_gib": 1.0})
    assert identity(config.model_copy(update={"mask": elsewhere}), index, 3) == known


def test_pooling_of_the_mask_model_and_rows_count_only_where_they_are_set(config):
    known = deciding_settings(config)
    assert "rows" not in known
    assert "pooling" not in known["mask"]
    pooled = config.model_copy(update={"mask": config.mask.model_copy(update={"pooling": "cls"})})
    assert deciding_settings(pooled)["mask"]["pooling"] == "cls"
    assert mask_model_fingerprint(pooled.mask) != mask_model_fingerprint(config.mask)
    of_sentences = TrainConfig(encoder=config.encoder, rows="sentences", objective="simcse_unsup", mask=None)
    assert deciding_settings(of_sentences)["rows"] == "sentences"


def test_dev_file_counts_by_its_content(config, triplets, tmp_path):
    elsewhere = config.model_copy(update={"dev": shutil.copy(config.dev, tmp_path / "dev.tsv")})
    index = join_index([digest_rows(triplets, config.objective)])
    assert identity(elsewhere, index, 3) == identity(config, index, 3)
    assert "dev" not in deciding_settings(config)
    unset = config.model_copy(update={"dev": None})
    assert deciding_settings(unset) == deciding_settings(config) | {"dev": None}, "as it was before"


def test_other_labelled_data_is_another_training_in_a_refresh(config, tmp_path):
    tree = {"name": "t", "store": "s", "input": {"paths": ["a.txt"]}, "llm": {"engine": "fake"}}
    whole = Config.model_validate({**tree, "train": config.model_dump(exclude_unset=True)})
    made_of = {"train": deciding_settings(whole.train), "seed": 1, **deciding_files(whole.train)}
    old = manifest("train", settings=made_of)
    assert not _is_other_training(whole, old, lambda: None)
    dev = Path(shutil.copy(config.dev, tmp_path / "dev.tsv"))
    moved = whole.model_copy(update={"train": whole.train.model_copy(update={"dev": str(dev)})})
    assert not _is_other_training(moved, old, lambda: None)
    dev.write_text("".join(dev.read_text().splitlines(keepends=True)[:-1]))
    assert _is_other_training(moved, old, lambda: None)


@pytest.mark.parametrize("objective", ["claif", "clhaif"])
def test_other_scores_are_another_run_where_the_objective_reads_them(objective, config, triplets):
    scored = triplets.append_column("a", pa.array([4.0] * len(triplets)))
    one, other = (scored.append_column("b", pa.array([b] * len(triplets))) for b in (1.0, 2.0))
    by_scores = config.model_copy(update={"objective": objective, "mask": None})
    indices = [join_index([digest_rows(table, objective)]) for table in (one, one, other)]
    first, same, changed = (identity(by_scores, index, 3) for index in indices)
    assert first == same
    assert first != changed
    indices = [join_index([digest_rows(table, config.objective)]) for table in (one, other)]
    assert len({identity(config, index, 3) for index in indices}) == 1


@pytest.mark.parametrize("file", ["encoder", "mask", "dev"])
def test_another_file_under_the_same_path_is_another_run(config, triplets, tmp_path, file):
    encoder, mask = (Path(shutil.copytree(config.encoder, tmp_path / name)) for name in ("encoder", "mask"))
    dev = Path(shutil.copy(config.dev, tmp_path / "dev.tsv"))
    paths = {"encoder": str(encoder), "mask": MaskConfig(model=str(mask)), "dev": str(dev)}
    config, index = config.model_copy(update=paths), join_index([digest_rows(triplets, config.objective)])
    known = identity(config, index, 3)
    if file == "dev":
        dev.write_text("".join(dev.read_text().splitlines(keepends=True)[:-1]))
    else:
        path = tmp_path / file / "model.safetensors"
        save_file({**load_file(path), "pooler.dense.bias": torch.ones(32)}, path)
    assert identity(config, index, 3) != known
