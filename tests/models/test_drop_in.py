"""The saved encoder takes the place of the one it was made from, whatever its kind."""

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.models.encoder import Encoder, load_encoder, save_encoder
from multicsr.models.frozen_encoder import FrozenEncoder
from multicsr.observability.progress import SilentProgress
from multicsr.stages.evaluate import evaluate_models
from multicsr.stages.train.fit import fit
from tests.support.encoder_kinds import KINDS, save_kind, save_transformer
from tests.support.tiny_encoders import BERT_TOKENS, WORDS

LENGTHS = [1, 2, 3, 5, 8, 13, 21, 40, 90, 126, 127, 128, 129, 200, 254, 256, 300, 511, 513, 600]
"""Numbers of words, each a token, around the limits of the kinds: 128, 200, 256, 512 and more tokens."""
BOUNDED = {"roberta without a limit": 128}
"""Kinds whose own `encode` fails beyond their last position, and the number of their positions for tokens."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Callable[[str], Path]:
    return cache(lambda kind: save_kind(kind, tmp_path_factory.mktemp("kind")))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=length)) for length in LENGTHS]


def original(path: Path, kind: str) -> SentenceTransformer:
    """The encoder as sentence-transformers loads it, with no code of ours."""
    model = aligned(SentenceTransformer(str(path), device="cpu"))
    if kind in BOUNDED:
        model.max_seq_length = BOUNDED[kind]
    return model


def aligned(model: SentenceTransformer) -> SentenceTransformer:
    """Copy the parameters, so that none is a view of a file.

    A view begins where the header of its file ends, and some kernels compute other last bits from there.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    vectors_ND = vectors_ND.astype(np.float64)
    return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


def tolerance(kind: str) -> float:
    """bf16 has three digits, and other lengths of the padding give other last ones."""
    return 2e-2 if kind == "bf16" else 1e-3


def model_settings(path: Path) -> dict[str, object]:
    settings = json.loads((path / "config_sentence_transformers.json").read_text())
    return {key: value for key, value in settings.items() if key != "__version__"}


def module_names(path: Path) -> list[str]:
    return [module["type"].rpartition(".")[2] for module in json.loads((path / "modules.json").read_text())]


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_save_encodes_as_the_original_to_the_bit(kind, directory, texts, tmp_path):
    model = original(directory(kind), kind)
    save_encoder(load_encoder(str(directory(kind))), tmp_path / "saved", "")
    saved = aligned(SentenceTransformer(str(tmp_path / "saved"), device="cpu"))
    assert (saved.dtype, saved.max_seq_length) == (model.dtype, model.max_seq_length)
    assert (saved.prompts, saved.default_prompt_name) == (model.prompts, model.default_prompt_name)
    assert (saved.similarity_fn_name, saved.truncate_dim) == (model.similarity_fn_name, model.truncate_dim)
    np.testing.assert_array_equal(saved.encode(texts), model.encode(texts))
    for text in (texts[0], texts[-1]):
        np.testing.assert_array_equal(saved.encode(text), model.encode(text))
    np.testing.assert_array_equal(saved.encode_query(texts), model.encode_query(texts))
    np.testing.assert_array_equal(saved.encode_document(texts), model.encode_document(texts))
    np.testing.assert_array_equal(saved.encode(texts, prompt="ba "), model.encode(texts, prompt="ba "))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "first layout" and "bare" not in kind])
def test_untrained_save_has_the_files_of_the_original(kind, directory, tmp_path):
    save_encoder(load_encoder(str(directory(kind))), tmp_path, "")
    modules = [json.loads((path / "modules.json").read_text()) for path in (tmp_path, directory(kind))]
    assert modules[0] == modules[1]
    assert model_settings(tmp_path) == model_settings(directory(kind))
    names = [{file.relative_to(path) for file in path.rglob("*")} for path in (tmp_path, directory(kind))]
    assert names[0] == names[1] | {Path("README.md")}


@pytest.mark.parametrize("kind", KINDS)
def test_training_vectors_are_those_of_encode(kind, directory, texts):
    encoder = Encoder(load_encoder(str(directory(kind))), mlp_head=False).eval()
    with torch.no_grad():
        trained_ND = encoder(encoder.tokenize(texts)).numpy()
    expected_ND = original(directory(kind), kind).float().encode(texts)
    np.testing.assert_allclose(unit(trained_ND), unit(expected_ND), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_the_mask_model_are_those_of_encode(kind, directory, texts):
    frozen_ND = FrozenEncoder(str(directory(kind)), "train.mask.model", "cpu").embed(texts)
    expected_ND = original(directory(kind), kind).encode(texts)
    np.testing.assert_allclose(frozen_ND, unit(expected_ND), atol=tolerance(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_training_keeps_the_structure(kind, directory, triplets, tmp_path):
    config = TrainConfig(
        encoder=str(directory(kind)), mask=None, steps=2, global_batch=8, max_length=16, tensorboard=False
    )
    result = fit(config, triplets, seed=1, out=tmp_path / "out")
    assert module_names(result.model_dir) == [
        type(module).__name__ for module in load_encoder(config.encoder)
    ]
    trained, model = SentenceTransformer(str(result.model_dir), device="cpu"), original(directory(kind), kind)
    assert (trained.dtype, trained.max_seq_length) == (model.dtype, model.max_seq_length)
    assert (trained.prompts, trained.default_prompt_name) == (model.prompts, model.default_prompt_name)
    assert (trained.similarity_fn_name, trained.truncate_dim) == (
        model.similarity_fn_name,
        model.truncate_dim,
    )
    assert {name: tensor.dtype for name, tensor in trained.state_dict().items()} == {
        name: tensor.dtype for name, tensor in model.state_dict().items()
    }
    before_ND, after_ND = (each.encode(["ba de fi", "lo " * 100]) for each in (model, trained))
    assert before_ND.shape == after_ND.shape
    assert not np.array_equal(before_ND, after_ND)


@pytest.mark.parametrize(
    "kind", ["bert with normalize", "dense", "static", "last token", "bf16", "truncate_dim"]
)
def test_evaluate_gives_equal_figures_for_original_and_untrained_save(kind, directory, texts, tmp_path):
    pairs = [f"{n % 6}\t{texts[n]}\t{texts[n * 7 % len(texts)]} ba" for n in range(len(texts))]
    (tmp_path / "sts.tsv").write_text("\n".join(["score\tsentence1\tsentence2", *pairs]) + "\n")
    save_encoder(load_encoder(str(directory(kind))), tmp_path / "saved", "")
    models = [str(directory(kind)), str(tmp_path / "saved")]
    one, other = evaluate_models(models, [tmp_path / "sts.tsv"], 8, SilentProgress()).encoders
    assert one.scores == other.scores
    assert abs(one.scores[0].value) > 1


def test_tokenizer_files_keep_side_and_tokens(directory, tmp_path):
    save_encoder(load_encoder(str(directory("last token"))), tmp_path, "")
    saved, own = (SentenceTransformer(str(path)).tokenizer for path in (tmp_path, directory("last token")))
    assert (saved.padding_side, own.padding_side) == ("left", "left")
    assert saved.get_vocab() == own.get_vocab()


def test_max_length_bounds_training_alone(directory, texts, tmp_path):
    path = directory("bert with normalize")
    encoder = Encoder(load_encoder(str(path)), mlp_head=False, max_length=6)
    assert [len(ids) for ids in encoder.tokenize(texts[:4] + texts[-1:])] == [3, 4, 5, 6, 6]
    save_encoder(encoder.model, tmp_path, "")
    saved = SentenceTransformer(str(tmp_path), device="cpu")
    assert saved.max_seq_length == 256
    np.testing.assert_array_equal(saved.encode(texts), original(path, "").encode(texts))


def test_prompt_of_the_training_is_before_every_sentence_and_not_saved(directory, texts, tmp_path):
    path = directory("prompts")
    encoder = Encoder(load_encoder(str(path)), mlp_head=False, prompt="ba de: ").eval()
    with torch.no_grad():
        trained_ND = encoder(encoder.tokenize(texts)).numpy()
    expected_ND = original(path, "").encode(texts, prompt="ba de: ")
    np.testing.assert_allclose(unit(trained_ND), unit(expected_ND), atol=1e-5)
    save_encoder(encoder.model, tmp_path, "")
    assert model_settings(tmp_path) == model_settings(path)


def test_an_empty_prompt_takes_the_default_prompt_away(directory, texts):
    path = directory("default prompt")
    encoder = Encoder(load_encoder(str(path)), mlp_head=False, prompt="").eval()
    with torch.no_grad():
        trained_ND = encoder(encoder.tokenize(texts)).numpy()
    expected_ND = original(path, "").encode(texts, prompt="")
    np.testing.assert_allclose(unit(trained_ND), unit(expected_ND), atol=1e-5)
    frozen_ND = FrozenEncoder(str(path), "train.mask.model", "cpu", "").embed(texts)
    np.testing.assert_allclose(frozen_ND, unit(expected_ND), atol=1e-3)


def test_pooling_replaces_the_pooling_and_nothing_else(directory, texts):
    path = directory("bert with normalize")
    for pooling, mode in (("cls", "cls"), ("last_token", "lasttoken")):
        model = load_encoder(str(path), pooling=pooling)
        expected = original(path, "")
        expected[1].pooling_mode = mode
        assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Normalize"]
        np.testing.assert_array_equal(model.encode(texts), expected.encode(texts))


def test_pooling_keeps_prompts_similarity_and_width(directory):
    for kind in ("prompts", "default prompt", "truncate_dim"):
        model, expected = load_encoder(str(directory(kind)), pooling="cls"), original(directory(kind), kind)
        assert (model.prompts, model.default_prompt_name) == (expected.prompts, expected.default_prompt_name)
        assert (model.similarity_fn_name, model.truncate_dim) == (
            expected.similarity_fn_name,
            expected.truncate_dim,
        )


def test_settings_that_an_encoder_cannot_have_are_one_line(directory):
    static, dense, blended = (str(directory(kind)) for kind in ("static", "dense", "all layers"))
    with pytest.raises(
        ConfigError, match=r"^train\.pooling: .* no pooling to replace \(StaticEmbedding\); leave"
    ):
        load_encoder(static, pooling="mean")
    with pytest.raises(ConfigError, match=r"^train\.layers: .* has no transformer; leave"):
        load_encoder(static, layers=1)
    with pytest.raises(ConfigError, match=r"^train\.pooling: .* has a dense layer behind its pooling"):
        load_encoder(dense, pooling="mean")
    with pytest.raises(ConfigError, match=r"^train\.layers: .* blends all its layers; set train\.pooling"):
        load_encoder(blended, layers=2)
    assert len(load_encoder(blended, layers=2, pooling="mean")[0].model.encoder.layer) == 2


def test_the_shorter_of_limit_and_positions_counts(tmp_path):
    """A transformer whose file of the tokenizer allows more tokens than it has positions."""
    save_transformer(tmp_path, "bert", BERT_TOKENS, limit=10_000, max_position_embeddings=64)
    model = load_encoder(str(tmp_path))
    assert model.max_seq_length == 64
    assert np.isfinite(model.encode("ba " * 100)).all()
