import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from multicsr.config import MaskConfig
from multicsr.errors import ConfigError, RunError
from multicsr.models.resolve import resolve_model
from multicsr.stages.train.mask_model.model import InsideEmbedder, MaskModel, mask_model_fingerprint
from tests.support.tiny_encoders import WORDS

MINILM = MaskConfig().model
ENGLISH = ["a", "dog", "two", "men", "run", "old", "red", "houses", "near", "water", "while", "it", "rains"]


def sentences(words, lengths) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(words, k=length)) for length in lengths]


def bits(vector_BD: np.ndarray) -> list[list[int]]:
    assert vector_BD.dtype == np.float16
    return vector_BD.view(np.uint16).tolist()


def changed(path: Path, to: Path, **weights) -> Path:
    """A copy of a model; each argument says by the end of a parameter's name what becomes of its values."""
    shutil.copytree(path, to)
    state = load_file(to / "model.safetensors")
    for end, change in weights.items():
        (name,) = (name for name in state if name.endswith(f"{end}.weight"))
        state[name] = change(state[name]).contiguous()
    save_file(state, to / "model.safetensors", metadata={"format": "pt"})
    return to


def with_settings(path: Path, file: str, **settings) -> Path:
    (path / file).write_text(json.dumps({**json.loads((path / file).read_text()), **settings}))
    return path


def left_padded(path: Path, to: Path) -> Path:
    return with_settings(changed(path, to), "tokenizer_config.json", padding_side="left")


@pytest.fixture
def set_threads():
    """torch.set_num_threads for the time of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=["MiniLM", "tiny", "tiny, padded on the left"])
def model_and_texts(request, tiny_bert, tmp_path) -> tuple[MaskModel, list[str]]:
    """P, and sentences of one to too many tokens: forty of one length, so that they need two passes."""
    if request.param == "MiniLM":
        return MaskModel(MaskConfig(), "cpu"), sentences(ENGLISH, [1, 5, 7, 14, 17, *[9] * 35, 70, 75])
    path = tiny_bert if request.param == "tiny" else left_padded(tiny_bert, tmp_path / "left")
    return MaskModel(MaskConfig(model=str(path)), "cpu"), sentences(WORDS, [*range(1, 60), *[9] * 40])


def test_a_vector_has_the_same_bits_in_any_company_order_and_number_of_threads(model_and_texts, set_threads):
    model, texts = model_and_texts
    set_threads(2)
    known = dict(zip(texts, bits(model.embed(texts)), strict=True))
    shuffled = random.Random(1).sample(texts, len(texts))
    for threads, company in [(1, shuffled), (3, texts[::-1][:30]), (1, texts[3:4]), (1, texts[-1:])]:
        set_threads(threads)
        assert bits(model.embed(company)) == [known[text] for text in company]


def test_a_pass_has_a_shape_that_follows_from_its_sentences_own_length(tiny_bert, monkeypatch):
    """However many go through it: kernels may compute other last digits for another shape."""
    shapes, forward = set(), SentenceTransformer.forward

    def recorded(self, features, **settings):
        shapes.add(tuple(features["input_ids"].shape))
        return forward(self, features, **settings)

    model = MaskModel(MaskConfig(model=str(tiny_bert)), "cpu")
    monkeypatch.setattr(SentenceTransformer, "forward", recorded)
    for lengths in ([3] * 43, [3, 14, 15, 30], [60]):
        model.embed(sentences(WORDS, lengths))
    assert len({num_rows for num_rows, _ in shapes}) == 1
    assert {length for _, length in shapes} == {8, 16, 24, 32, 48}


@pytest.mark.parametrize("kind", ["MiniLM", "modernbert", "modernbert, padded on the left"])
def test_vectors_are_those_of_sentence_transformers(kind, tiny, tmp_path):
    """All but for rounding. Positions are relative where padding is on the left: it would shift others."""
    if kind == "MiniLM":
        path, texts = Path(resolve_model(MINILM, "")), sentences(ENGLISH, [3, 9, 14, 260])
    else:
        path, texts = tiny("modernbert"), sentences(WORDS, [1, 9, 14, 60])
    if kind.endswith("left"):
        path = left_padded(path, tmp_path / "left")
    encoder = SentenceTransformer(str(path), device="cpu")
    alone_BD = np.concatenate([encoder.encode([text], normalize_embeddings=True) for text in texts])
    vector_BD = MaskModel(MaskConfig(model=str(path)), "cpu").embed(texts)
    np.testing.assert_allclose(vector_BD, alone_BD, atol=1e-3)


def test_a_greatest_length_that_is_no_multiple_of_eight(tiny_bert, tmp_path):
    path = changed(tiny_bert, tmp_path / "short", position_embeddings=lambda value: value[:45])
    with_settings(path, "config.json", max_position_embeddings=45)
    texts = sentences(WORDS, [3, 42, 60])
    expected_BD = SentenceTransformer(str(path), device="cpu").encode(texts, normalize_embeddings=True)
    vector_BD = MaskModel(MaskConfig(model=str(path)), "cpu").embed(texts)
    np.testing.assert_allclose(vector_BD, expected_BD, atol=1e-3)


def test_the_prompt_is_put_in_front(tiny_bert):
    texts = sentences(WORDS, [3, 9, 14, 60])
    plain = MaskModel(MaskConfig(model=str(tiny_bert)), "cpu")
    prompted = MaskModel(MaskConfig(model=str(tiny_bert), prompt="ba de "), "cpu")
    assert bits(prompted.embed(texts)) == bits(plain.embed([f"ba de {text}" for text in texts]))
    assert bits(prompted.embed(texts)) != bits(plain.embed(texts))


def test_inside_the_worker_nothing_is_computed_before_it_is_taken():
    class Model:
        width, asked = 3, ()

        def embed(self, texts):
            self.asked = (*self.asked, *texts)
            return np.ones((len(texts), 3), np.float16)

    model = Model()
    answer = InsideEmbedder(model).ask(["one", "two"])
    assert model.asked == ()
    assert answer.take().shape == (2, 3)
    assert model.asked == ("one", "two")


def test_the_fingerprint_changes_with_what_changes_the_vectors(tiny_bert, tmp_path):
    config = MaskConfig(model=str(tiny_bert))
    known = mask_model_fingerprint(config)
    assert mask_model_fingerprint(config.model_copy(update={"prompt": "ba "})) != known
    other = changed(tiny_bert, tmp_path / "weights", word_embeddings=lambda value: value + 1e-6)
    assert mask_model_fingerprint(config.model_copy(update={"model": str(other)})) != known
    assert mask_model_fingerprint(MaskConfig(model=str(left_padded(tiny_bert, tmp_path / "left")))) != known
    assert mask_model_fingerprint(config, "cuda") == mask_model_fingerprint(config, "cuda:1") != known
    same = changed(tiny_bert, tmp_path / "same")
    indifferent = {"model": str(same), "sigma": 0.5, "place": "worker", "cache_gib": 0.0}
    assert mask_model_fingerprint(config.model_copy(update=indifferent)) == known


def test_weights_that_are_not_finite_are_one_line(tiny_bert, tmp_path):
    path = changed(tiny_bert, tmp_path / "broken", word_embeddings=lambda value: value * torch.nan)
    with pytest.raises(RunError, match=r"^train\.mask\.model gives vectors that are not finite[^\n]*$"):
        MaskModel(MaskConfig(model=str(path)), "cpu").embed(["ba"])


def test_what_cannot_be_loaded_is_one_line_that_names_the_setting(tiny_bert, tmp_path):
    damaged = changed(tiny_bert, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    (tmp_path / "empty").mkdir()
    for path in (damaged, tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"^train\.mask\.model: [^\n]*$"):
            MaskModel(MaskConfig(model=str(path)), "cpu")


def test_a_zero_vector_is_one_line_that_names_the_sentence(tiny_bert, monkeypatch):
    model = MaskModel(MaskConfig(model=str(tiny_bert)), "cpu")
    whole = MaskModel._forward

    def zero_if_long(self, features):
        return whole(self, features) * (features["input_ids"].shape[1] < 16)

    monkeypatch.setattr(MaskModel, "_forward", zero_if_long)
    assert model.embed(["ba"]).any()
    with pytest.raises(
        RunError, match=r"^train\.mask\.model gives a zero vector, .* for 'de de[^\n]*; take another"
    ):
        model.embed(["ba", "de " * 20])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_another_pooling_gives_its_vectors(tiny_bert, pooling):
    """Against the hidden states themselves, one sentence at a time."""
    texts = sentences(WORDS, [3, 9, 5])
    found = MaskModel(MaskConfig(model=str(tiny_bert), pooling=pooling), "cpu").embed(texts)
    model = SentenceTransformer(str(tiny_bert), device="cpu").eval()
    for text, vector in zip(texts, found, strict=True):
        with torch.no_grad():
            tokens = model[0](model.preprocess([text]))["token_embeddings"][0]
        pooled = tokens[0] if pooling == "cls" else tokens.mean(dim=0)
        expected = torch.nn.functional.normalize(pooled, dim=0)
        assert torch.allclose(torch.from_numpy(vector).float(), expected, atol=2e-3)


def test_a_model_that_pools_nothing_names_the_setting_of_its_pooling(tmp_path, tiny_bert):
    model = SentenceTransformer(str(tiny_bert), device="cpu")
    SentenceTransformer(modules=[model[0]], device="cpu").save(str(tmp_path / "bare"))
    with pytest.raises(ConfigError, match=r"train\.mask\.pooling: .* has no pooling to replace"):
        MaskModel(MaskConfig(model=str(tmp_path / "bare"), pooling="cls"), "cpu")
