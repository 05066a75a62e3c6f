"""Baselines against slow versions; sentence-transformers trains on the planned batches."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from transformers import AutoModel, AutoTokenizer, get_scheduler

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.stages.train.data.index import digest, digest_rows, join_index
from multicsr.stages.train.data.plan import make_plan
from multicsr.stages.train.schedule import learning_rate
from multicsr.tools.ablate import library_losses
from multicsr.tools.ablate.untrained import input_embeddings, whitened, whitening
from multicsr.tools.methods import Method
from tests.support.encoder_kinds import save_kind
from tests.support.tiny_encoders import WORDS


@pytest.fixture
def config(tiny_bert) -> TrainConfig:
    return TrainConfig(encoder=str(tiny_bert), steps=3, global_batch=16, learning_rate=1e-3, mask=None)


def test_input_embeddings_are_averaged_over_the_tokens_of_a_text(config, tiny_bert):
    found = input_embeddings(config).encode(["ba de mi", "fo"])
    table = AutoModel.from_pretrained(tiny_bert).get_input_embeddings().weight.detach().numpy()
    ids = AutoTokenizer.from_pretrained(tiny_bert)(["ba de mi", "fo"], add_special_tokens=False)["input_ids"]
    assert len(ids[0]) == 3
    assert found == pytest.approx(np.stack([table[row].mean(axis=0) for row in ids]), abs=1e-6)


def test_whitened_vectors_have_mean_0_and_covariance_1():
    generator = np.random.default_rng(0)
    vectors_ND = generator.normal(size=(500, 6)) @ generator.normal(size=(6, 6)) + 3
    weight_KD, bias_K = whitening(vectors_ND)
    whitened_NK = vectors_ND @ weight_KD.T + bias_K
    assert whitened_NK.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert np.cov(whitened_NK, rowvar=False) == pytest.approx(np.eye(6), abs=1e-9)


def test_directions_without_variance_are_left_out():
    vectors_ND = np.random.default_rng(0).normal(size=(50, 2)) @ np.array([[1.0, 2, 3], [0, 1, 5]])
    assert whitening(vectors_ND)[0].shape == (2, 3)


def test_a_whitened_encoder_is_fitted_on_the_premises_and_can_be_saved(config, triplets, tmp_path):
    premises = triplets["text"].to_pylist()
    model = whitened(config, premises)
    vectors_ND = model.encode(sorted(set(premises)))
    assert np.cov(vectors_ND, rowvar=False) == pytest.approx(np.eye(vectors_ND.shape[1]), abs=1e-2)
    model.save(str(tmp_path / "model"))
    assert SentenceTransformer(str(tmp_path / "model")).encode(premises[:2]) == pytest.approx(
        model.encode(premises[:2]), abs=1e-5
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_library_has_the_learning_rates_of_the_settings_but_a_first_step_of_0(schedule, config, tmp_path):
    warm = config.model_copy(update={"schedule": schedule, "warmup": 0.4})
    given = library_losses._arguments(warm, [[0]] * 10, 5, tmp_path, "")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=given.learning_rate)
    schedules = get_scheduler(given.lr_scheduler_type, optimizer, given.get_warmup_steps(10), 10)
    rates = []
    for _ in range(10):
        rates.append(schedules.get_last_lr()[0])
        optimizer.step()
        schedules.step()
    own = [learning_rate(step, 10, warm) for step in range(10)]
    assert rates == pytest.approx([0, *own[:3], *own[4:]])


@pytest.mark.parametrize("method", [Method.RANKING_LOSS, Method.GIST_LOSS])
def test_the_library_trains_on_the_planned_batches(method, config, triplets, tmp_path, monkeypatch):
    seen: list[list[str]] = []
    collate = SentenceTransformerDataCollator.__call__

    def watched(self: object, features: list[dict[str, str]]) -> object:
        seen.append([row["anchor"] for row in features])
        return collate(self, features)

    monkeypatch.setattr(SentenceTransformerDataCollator, "__call__", watched)
    before = SentenceTransformer(config.encoder).state_dict()
    model = library_losses.train_by_library(config, method, triplets, 5, tmp_path)
    index = join_index([digest_rows(triplets, "simcse_sup")])
    plan = make_plan(config, index, 5)
    assert plan.row_BG.shape == (3, 16)
    text_of = {digest(row["row_id"]): row["text"] for row in triplets.to_pylist()}
    assert seen == [[text_of[index.row_R[row]] for row in row_G] for row_G in plan.row_BG.tolist()]
    changed = [
        name for name, value in model.state_dict().items() if not torch.equal(value.cpu(), before[name])
    ]
    assert changed


def test_the_guide_pools_as_the_mask_does(config, tiny_bert):
    model = SentenceTransformer(config.encoder)
    for pooling, mode in ((None, "mean"), ("cls", "cls")):
        masked = TrainConfig(encoder=str(tiny_bert), mask={"model": str(tiny_bert), "pooling": pooling})
        loss = library_losses._loss(model, masked, Method.GIST_LOSS)
        assert loss.guide[1].pooling_mode == mode


def test_the_best_checkpoint_on_dev_is_kept(config, triplets, dev_file, tmp_path, monkeypatch):
    scores = iter([50.0, 90.0, 10.0])
    weights: list[torch.Tensor] = []

    def measured(self: object, model: SentenceTransformer, *_: object, **__: object) -> dict[str, float]:
        weights.append(model[0].model.embeddings.word_embeddings.weight.detach().clone())
        return {"dev": next(scores)}

    monkeypatch.setattr(library_losses.DevEvaluator, "__call__", measured)
    with_dev = config.model_copy(update={"dev": str(dev_file), "evaluate_every": 1})
    model = library_losses.train_by_library(with_dev, Method.RANKING_LOSS, triplets, 5, tmp_path)
    kept = model[0].model.embeddings.word_embeddings.weight
    assert torch.equal(kept.cpu(), weights[1].cpu())
    assert not torch.equal(kept.cpu(), weights[2].cpu())


@pytest.mark.parametrize("kind", ["truncate_dim", "bf16", "static with normalize"])
def test_encoders_of_every_kind_are_whitened(kind, config, tmp_path):
    odd = config.model_copy(update={"encoder": str(save_kind(kind, tmp_path))})
    premises = [" ".join(np.random.default_rng(n).choice(WORDS, 6)) for n in range(60)]
    vectors_ND = whitened(odd, premises).encode(premises)
    assert vectors_ND.shape[1] <= (20 if kind == "truncate_dim" else 32)
    assert np.cov(vectors_ND, rowvar=False) == pytest.approx(np.eye(vectors_ND.shape[1]), abs=1e-3)


def test_whitening_without_variance_is_one_line(config):
    with pytest.raises(ConfigError, match=r"^whitening needs two different premises, there is 1"):
        whitened(config, ["ba de", "ba de"])


def test_static_embeddings_have_all_baselines(config, triplets, tmp_path):
    path = save_kind("static with normalize", tmp_path)
    static = config.model_copy(update={"encoder": str(path), "steps": 1})
    plain = SentenceTransformer(str(path)).encode("ba de")
    found = input_embeddings(static).encode("ba de")
    assert found / np.linalg.norm(found) == pytest.approx(plain, abs=1e-6)
    trained = library_losses.train_by_library(static, Method.RANKING_LOSS, triplets, 5, tmp_path / "out")
    assert not np.array_equal(trained.encode("ba de"), plain)
    bounded = static.model_copy(update={"max_length": 8})
    with pytest.raises(ConfigError, match=r"train\.max_length: sentence-transformers cannot shorten"):
        library_losses.train_by_library(bounded, Method.RANKING_LOSS, triplets, 5, tmp_path / "out")
