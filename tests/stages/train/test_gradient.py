"""The loss of a batch of curated and labelled rows against a loop over its sentences."""

import math
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
import torch

from multicsr.config import MaskConfig, TrainConfig
from multicsr.errors import ConfigError
from multicsr.models.encoder import Encoder, load_encoder
from multicsr.rows import LABELLED, labelled_row_id
from multicsr.stages.train.batches import BatchStream
from multicsr.stages.train.data.index import digest_labelled, digest_rows, join_index
from multicsr.stages.train.data.loader import feed
from multicsr.stages.train.data.plan import make_plan
from multicsr.stages.train.data.source import from_table
from multicsr.stages.train.engines.torch import TorchEngine
from multicsr.stages.train.gradient import Gradients
from multicsr.stages.train.job import TrainingJob
from multicsr.stages.train.mask_model.batch_masks import BatchMasks
from multicsr.stages.train.mask_model.model import InsideEmbedder, MaskModel
from multicsr.stages.train.mask_model.statistics import MaskStatistics
from multicsr.stages.train.monitoring.step_timer import StepTimer

COLUMNS = ["row_id", "text", "entailment", "contradiction"]


@pytest.fixture(scope="module")
def config(tiny_bert) -> TrainConfig:
    return TrainConfig(
        encoder=str(tiny_bert), mask=MaskConfig(model=str(tiny_bert), sigma=0.9), global_batch=24
    )


@pytest.fixture(scope="module")
def labelled(triplets) -> pa.Table:
    """48 rows: pairs and triplets of three weights, one of whose anchors are premises of curated rows."""
    rows = []
    for number, row in enumerate(triplets.slice(40, 48).to_pylist()):
        anchor = row["text"] if number % 6 == 0 else f"{row['contradiction']} {row['entailment']}"
        positive, negative = row["text"][::-1].title(), None if number % 2 else f"ba be {row['entailment']}"
        row_id = labelled_row_id(anchor, positive, negative)
        rows.append([row_id, anchor, positive, negative, [1.0, 0.25, 4.0][number % 3]])
    return pa.Table.from_pylist([dict(zip(LABELLED.names, row, strict=True)) for row in rows], LABELLED)


def ready_batches(config, triplets, labelled, tmp_path):
    """The batches of an epoch, the table of all rows by digest of id, and the statistics of the mask."""
    index = join_index([digest_rows(triplets, config.objective), digest_labelled(labelled, config.objective)])
    tables = [triplets.select(COLUMNS), labelled.select(COLUMNS)]
    table = pa.concat_tables(tables, promote_options="default")
    job = TrainingJob(config, 3, "run", index, "cpu", "test", tmp_path, tmp_path)
    encoder = Encoder(load_encoder(config.encoder, pooling="cls"), mlp_head=False).eval()
    plan = make_plan(config.model_copy(update={"epochs": 1}), index, 3)
    batches = feed(from_table(table, index, config.objective), plan, 0, encoder.tokenize, config, 3)
    masks = BatchMasks(job, InsideEmbedder(MaskModel(config.mask, "cpu")), None, MaskStatistics())
    gradients = Gradients(config, TorchEngine(encoder, config))
    return [*BatchStream(job, plan, batches, masks).ready(StepTimer())], gradients, encoder, masks


def test_the_loss_of_a_mixed_batch_is_the_weighted_mean_over_its_rows(config, triplets, labelled, tmp_path):
    ready, gradients, encoder, masks = ready_batches(config, triplets, labelled, tmp_path)
    curated_rows = [{**row, "weight": 1.0} for row in triplets.to_pylist()]
    place = {row["row_id"]: row for row in [*curated_rows, *labelled.to_pylist()]}
    mask_model = MaskModel(config.mask, "cpu")

    @cache
    def g(text: str) -> np.ndarray:
        with torch.no_grad():
            vector = encoder(encoder.tokenize([text]))[0].double().numpy()
        return vector / np.linalg.norm(vector)

    @cache
    def p(text: str) -> np.ndarray:
        vector = mask_model.embed([text])[0].astype(np.float64)
        return vector / np.linalg.norm(vector)

    num_pairs = num_masked = num_counted = 0
    for number, each in enumerate(ready):
        rows = [place[row_id] for row_id in each.batch.own.row_ids]
        assert len({text for row in rows for text in (row["text"], row["entailment"])}) == 2 * len(rows)
        candidates = [(k, row["entailment"]) for k, row in enumerate(rows)]
        candidates += [(k, row["contradiction"]) for k, row in enumerate(rows) if row["contradiction"]]
        num_counted += (len(rows) - 1) * len(candidates)
        num_pairs += sum(row["contradiction"] is None for row in rows)
        if number > 1:
            continue
        total = weights = masked = 0.0
        for i, row in enumerate(rows):
            anchor, p_anchor, denominator = g(row["text"]), p(row["text"]), 0.0
            for k, text in candidates:
                if k != i and p_anchor @ p(text) >= config.mask.sigma:
                    masked += 1
                else:
                    denominator += math.exp(anchor @ g(text) / config.temperature)
            own = anchor @ g(row["entailment"]) / config.temperature
            total += row["weight"] * (math.log(denominator) - own)
            weights += row["weight"]
        result = gradients.add(each)
        assert result.loss == pytest.approx(total / weights, rel=1e-5)
        assert result.masked == pytest.approx(masked / (len(rows) * len(candidates)))
        num_masked += masked
    assert num_pairs > 10
    assert num_masked > 10
    assert masks.mask_statistics.counts.sum() == num_counted


def test_a_missing_negative_costs_no_vector_of_p(config, labelled, tmp_path):
    asked: list[list[str]] = []

    class Recording(InsideEmbedder):
        def ask(self, texts):
            asked.append(texts)
            return super().ask(texts)

    index = join_index([digest_labelled(labelled, config.objective)])
    job = TrainingJob(config, 3, "run", index, "cpu", "test", tmp_path, tmp_path)
    masks = BatchMasks(job, Recording(MaskModel(config.mask, "cpu")), None, MaskStatistics())
    source = from_table(labelled.select(COLUMNS), index, config.objective)
    batches = feed(source, make_plan(config, index, 3), 0, lambda texts: [[1]] * len(texts), config, 3)
    list(BatchStream(job, make_plan(config, index, 3), batches, masks).ready(StepTimer()))
    assert sum(map(len, asked)) > 48
    assert all(len(texts) == len(set(texts)) for texts in asked)


@pytest.mark.parametrize("settings", [{"micro_batch": 5}, {"micro_batch": 5, "grad_cache": True}])
def test_micro_batches_and_gradcache_give_the_same_gradient(settings, config, triplets, labelled, tmp_path):
    def gradient(config) -> torch.Tensor:
        ready, gradients, encoder, _ = ready_batches(config, triplets, labelled, tmp_path)
        gradients.add(ready[0])
        return torch.cat([each.grad.flatten() for each in encoder.parameters() if each.grad is not None])

    plain, other = gradient(config), gradient(config.model_copy(update=settings))
    assert torch.linalg.vector_norm(plain - other) < 1e-5 * torch.linalg.vector_norm(plain)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("masked_infonce", r"^train\.mask\.sigma: at 0\.9 the mask removes every other row"),
        ("gist", r"^train\.mask\.model: under .* every other row .* nearer .*; name another model$"),
    ],
)
def test_a_first_batch_without_negatives_names_the_setting_that_decides(
    objective, message, config, triplets, labelled, tmp_path
):
    config = config.model_copy(update={"objective": objective})
    [ready, *_], gradients, _, _ = ready_batches(config, triplets, labelled.slice(0, 0), tmp_path)
    num_rows, num_candidates = ready.keep_NC.shape
    nothing = ready._replace(keep_NC=torch.eye(num_rows, num_candidates, dtype=torch.bool))
    if objective == "gist":
        assert gradients.add(nothing).loss > 0, "premises and positives are negatives still"
        nothing = nothing._replace(keep_same_N2G=torch.zeros_like(ready.keep_same_N2G))
    with pytest.raises(ConfigError, match=message):
        gradients.add(nothing)
