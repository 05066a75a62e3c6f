"""Merges against weights that are merged by hand, and the choice against a slow search."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import rankdata
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from multicsr.artifacts import MergeCandidate, Merges
from multicsr.config import LoraConfig, MaskConfig, TrainConfig
from multicsr.errors import RunError
from multicsr.stages.evaluate import encoding, read_task
from multicsr.stages.train import fit as training
from multicsr.stages.train import merging
from multicsr.stages.train.fit import fit
from multicsr.stages.train.merging import choose, interpolated


def candidate(weight: float, dev: float, **kept: float) -> MergeCandidate:
    return MergeCandidate(weight=weight, dev=dev, kept=kept, same_similarities=100.0)


def test_an_interpolation_is_the_sum_of_shares_and_its_ends_are_exact():
    draw = torch.Generator().manual_seed(0)
    base = {
        "a": torch.randn(3, 4, generator=draw),
        "b": torch.randn(5, generator=draw),
        "ids": torch.arange(3),
    }
    trained = {name: tensor + 1 for name, tensor in base.items()}
    trained["a"] = torch.randn(3, 4, generator=draw)
    merged = interpolated(base, trained, 0.3)
    for row in range(3):
        for column in range(4):
            expected = 0.7 * float(base["a"][row, column]) + 0.3 * float(trained["a"][row, column])
            assert float(merged["a"][row, column]) == pytest.approx(expected, rel=1e-6)
    assert merged["ids"].equal(trained["ids"])
    for weight, whole in ((0.0, base), (1.0, trained)):
        assert all(interpolated(base, trained, weight)[name].equal(whole[name]) for name in ("a", "b"))


def test_the_best_on_dev_is_chosen_and_of_equals_the_one_that_changes_least():
    draw = random.Random(0)
    for _ in range(200):
        candidates = [
            candidate(w, draw.choice([80.0, 81.0, 82.0]), x=draw.uniform(70, 72)) for w in (0, 0.5, 1)
        ]
        best = None
        for each in candidates:  # a slow search
            lost = candidates[0].kept["x"] - each.kept["x"]
            if lost <= 0.5 and (best is None or each.dev > best.dev):
                best = each
        chosen = choose(candidates, 0.5)
        assert chosen.winner.weight == best.weight
        assert chosen.has_helped == (best.weight > 0)


def test_a_candidate_that_loses_too_much_elsewhere_is_not_chosen():
    candidates = [
        candidate(0, 80, x=70, y=60),
        candidate(0.5, 82, x=69.5, y=61),
        candidate(1, 85, x=75, y=59),
    ]
    merges = choose(candidates, 0.5)
    assert merges.chosen == 0.5
    assert [each.is_allowed for each in merges.candidates] == [True, True, False]
    assert choose([candidates[0], candidates[2]], 0.5).chosen == 0


@pytest.mark.parametrize(
    ("devs", "sentence"),
    [
        (
            [80, 79, 78],
            "The training did not help: on dev no candidate is better than the encoder as it was (80.00; ",
        ),
        (
            [80, 82, 81],
            "A merge of 50% trained and 50% original parameters is the best on dev: 82.00, before the ",
        ),
        ([80, 81, 82], "The trained encoder is the best on dev: 82.00, before the training 80.00."),
    ],
)
def test_the_choice_is_one_plain_sentence(devs, sentence):
    merges = choose([candidate(w, dev) for w, dev in zip((0, 0.5, 1), devs, strict=True)], None)
    assert merges.sentence().startswith(sentence)


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ({"low": -0.2, "high": 0.4}, "; the difference is within chance (95% interval -0.20 to +0.40)."),
        ({"low": 0.2, "high": 0.4}, "; the difference has the 95% interval +0.20 to +0.40."),
    ],
)
def test_the_sentence_shows_whether_the_difference_may_be_chance(ends, words):
    merges = choose([candidate(0, 80), candidate(1, 80.1)], None)
    assert merges.model_copy(update=ends).sentence().endswith(words)


@pytest.fixture(scope="module")
def sentence_encoder(tiny_bert, tmp_path_factory) -> Path:
    """The tiny BERT as an encoder of sentence-transformers, with a module behind the pooling."""
    path = tmp_path_factory.mktemp("sentence-encoder")
    transformer = Transformer(str(tiny_bert))
    width = transformer.get_embedding_dimension()
    SentenceTransformer(modules=[transformer, Pooling(width), Normalize()], device="cpu").save(str(path))
    return path


@pytest.fixture
def config(sentence_encoder, tiny_bert, dev_file) -> TrainConfig:
    return TrainConfig(
        encoder=str(sentence_encoder),
        mask=MaskConfig(model=str(tiny_bert), sigma=0.9),
        learning_rate=3e-3,
        epochs=2,
        global_batch=16,
        dev=str(dev_file),
        evaluate_every=4,
        merge=[0.5],
    )


def changed(config: TrainConfig, **settings) -> TrainConfig:
    return TrainConfig.model_validate(config.model_dump(exclude_unset=True) | settings)


def merges_of(folder: Path) -> Merges:
    return Merges.model_validate_json((folder / "merges.json").read_text())


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.rglob("model.safetensors")))


def score(model: SentenceTransformer, path: Path) -> float:
    return read_task(path).measure(encoding(model))[0].score.value


def test_every_candidate_is_measured_and_the_winner_is_what_is_saved(config, triplets, dev_file, tmp_path):
    trained = fit(changed(config, merge=[]), triplets, seed=3, out=tmp_path / "trained")
    merged = fit(config, triplets, seed=3, out=tmp_path / "merged")
    assert trained.merges is None
    assert not (tmp_path / "trained/merges.json").exists()
    merges = merges_of(tmp_path / "merged")
    assert merged.merges == merges
    assert [each.weight for each in merges.candidates] == [0, 0.5, 1]
    base, after = tensors(Path(config.encoder)), tensors(tmp_path / "trained/model")
    assert base.keys() == after.keys()
    model = SentenceTransformer(config.encoder, device="cpu")
    vectors = []
    premises = sorted(triplets["text"].to_pylist())
    for each in merges.candidates:
        by_hand = {name: (1 - each.weight) * base[name] + each.weight * after[name] for name in base}
        model[0].model.load_state_dict(by_hand)
        assert each.dev == pytest.approx(score(model, dev_file), abs=1e-6)
        vectors.append(model.encode(premises, normalize_embeddings=True))
        pairs = np.triu_indices(len(premises), k=1)
        ranks = [rankdata((vector @ vector.T)[pairs]) for vector in (vectors[0], vectors[-1])]
        assert each.same_similarities == pytest.approx(100 * np.corrcoef(*ranks)[0, 1], abs=0.01)
        if each.weight == merges.chosen:
            saved = tensors(tmp_path / "merged/model")
            assert all(torch.allclose(saved[name], by_hand[name], atol=1e-7) for name in base)
    assert merges.candidates[0].same_similarities == pytest.approx(100)
    assert merges.candidates[-1].same_similarities < 99.9
    assert merges.candidates[-1].dev == pytest.approx(trained.best_dev)
    assert merges.winner.dev == max(each.dev for each in merges.candidates)
    assert (merges.low is None) == (not merges.has_helped)
    assert merges.low < merges.winner.dev - merges.candidates[0].dev < merges.high
    card = (tmp_path / "merged/model/README.md").read_text()
    assert merges.sentence() in " ".join(card.split())


def test_a_training_that_helps_nothing_gives_the_encoder_back_to_the_bit(
    config, triplets, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        merging, "choose", lambda candidates, tolerance: Merges(candidates=candidates, chosen=0)
    )
    result = fit(config, triplets, seed=3, out=tmp_path)
    saved = SentenceTransformer(str(result.model_dir), device="cpu")
    texts = triplets["text"].to_pylist()[:20]
    before = SentenceTransformer(config.encoder, device="cpu").encode(texts)
    assert np.array_equal(saved.encode(texts), before)
    assert [type(module) for module in saved] == [Transformer, Pooling, Normalize]
    assert "The training did not help" in (result.model_dir / "README.md").read_text()


def test_a_share_of_the_adapters_is_that_share_of_their_product(config, triplets, dev_file, tmp_path):
    lora = changed(config, lora=LoraConfig(rank=4, alpha=8).model_dump())
    fit(changed(lora, merge=[]), triplets, seed=3, out=tmp_path / "trained")
    fit(lora, triplets, seed=3, out=tmp_path / "merged")
    merges = merges_of(tmp_path / "merged")
    base, after = tensors(Path(config.encoder)), tensors(tmp_path / "trained/model")
    model = SentenceTransformer(config.encoder, device="cpu")
    for each in merges.candidates:
        model[0].model.load_state_dict(
            {n: (1 - each.weight) * base[n] + each.weight * after[n] for n in base}
        )
        assert each.dev == pytest.approx(score(model, dev_file), abs=1e-3)
    assert len({each.dev for each in merges.candidates}) > 1


def test_what_must_be_kept_is_measured_and_limits_the_choice(config, triplets, tmp_path):
    rows = triplets.slice(60, 36).to_pylist()
    lines = [
        "anchor\tpositive\tnegative",
        *(f"{r['contradiction']}\t{r['text']}\t{r['entailment']}" for r in rows),
    ]
    (tmp_path / "before.tsv").write_text("\n".join(lines))
    kept = changed(config, keep=[str(tmp_path / "before.tsv")], keep_tolerance=0)
    merges = fit(kept, triplets, seed=3, out=tmp_path / "kept").merges
    model = SentenceTransformer(config.encoder, device="cpu")
    assert merges.candidates[0].kept == {"before": pytest.approx(score(model, tmp_path / "before.tsv"))}
    assert merges.winner.kept["before"] >= merges.candidates[0].kept["before"]
    assert [each.is_allowed for each in merges.candidates] == [
        each.kept["before"] >= merges.candidates[0].kept["before"] for each in merges.candidates
    ]


def test_where_nothing_can_choose_nothing_is_trained(tiny_bert, dev_file, triplets, tmp_path, monkeypatch):
    def missing(path: str) -> None:
        raise RunError("none is held out")

    monkeypatch.setattr(training, "read_task", missing)
    config = TrainConfig(
        encoder=str(tiny_bert), mask=None, dev=str(dev_file), merge=[0.5], steps=2, global_batch=16
    )
    with pytest.raises(RunError, match="none is held out"):
        fit(config, triplets, seed=3, out=tmp_path)
    assert not (tmp_path / "train.jsonl").exists()
