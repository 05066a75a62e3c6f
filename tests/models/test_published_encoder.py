"""Encoders as they are published: adapters, code of their own, tokenizers without padding."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from multicsr.cli.measure import evaluate
from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.models import resolve
from multicsr.models.encoder import Encoder, enable_gradient_checkpointing, load_encoder, save_encoder
from multicsr.models.frozen_encoder import FrozenEncoder
from multicsr.models.published_encoder import load_published_encoder, num_positions
from multicsr.models.resolve import identify_weights
from multicsr.stages.evaluate import saved
from multicsr.stages.train.fit import fit
from tests.support.encoder_kinds import encoder_with_code, save_kind

SENTENCES = ["ba de", "mi no pu ra so te", "fa", "re so lo", "na pe po pu ra " * 7]


@pytest.fixture
def adapters(tiny_bert, tmp_path) -> Path:
    """A directory of adapters that change what the model below them says."""
    import peft
    from transformers import AutoModel, AutoTokenizer

    torch.manual_seed(5)
    settings = peft.LoraConfig(target_modules=["query", "value"], init_lora_weights=False)
    adapted = peft.get_peft_model(AutoModel.from_pretrained(tiny_bert), settings)
    adapted.save_pretrained(str(tmp_path / "adapters"))
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "adapters")
    return tmp_path / "adapters"


@pytest.fixture
def with_code(tmp_path) -> Path:
    return encoder_with_code(tmp_path)


def test_adapters_are_trained_and_saved_merged(adapters, tiny_bert, triplets, tmp_path):
    expected_ND = SentenceTransformer(str(adapters), device="cpu").encode(SENTENCES)
    below_ND = SentenceTransformer(str(tiny_bert), device="cpu").encode(SENTENCES)
    assert np.abs(expected_ND - below_ND).max() > 0.01
    model = load_encoder(str(adapters))
    np.testing.assert_allclose(model.encode(SENTENCES), expected_ND, atol=1e-5)
    config = TrainConfig(encoder=str(adapters), mask=None, steps=1, global_batch=8, tensorboard=False)
    result = fit(config, triplets, seed=1, out=tmp_path / "out")
    assert not (result.model_dir / "adapter_config.json").exists()
    names = set(SentenceTransformer(str(result.model_dir), device="cpu").state_dict())
    assert names == set(SentenceTransformer(str(tiny_bert), device="cpu").state_dict())


def test_adapters_without_peft_are_one_line(adapters, monkeypatch):
    from sentence_transformers.base.modules import transformer

    monkeypatch.setattr(transformer, "is_peft_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^train\.encoder: .* adapters, which need peft: pip install"):
        load_encoder(str(adapters))


def test_a_module_that_nobody_has_is_one_line_with_the_name_of_the_model(tmp_path):
    folder = save_kind("bert with normalize", tmp_path / "bert")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.NoSuch"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ConfigError, match=rf"^encoder: cannot load {folder}: .*NoSuch[^\n]*$"):
        load_published_encoder(str(folder), "encoder", device="cpu")


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("train.encoder", r"set train\.trust_remote_code: true"),
        ("train.mask.model", r"set train\.mask\.trust_remote_code: true"),
        ("score.model", r"set score\.trust_remote_code: true"),
    ],
)
def test_code_of_a_model_is_run_only_if_it_is_trusted(with_code, setting, remedy, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        ConfigError, match=rf"^{setting}: .* needs code that comes with it; .*{remedy}[^\n]*$"
    ):
        load_published_encoder(str(with_code), setting)
    with pytest.raises(ConfigError, match=r"^encoder: .* give --trust-remote-code"):
        saved(str(with_code)).load()
    model = load_published_encoder(str(with_code), setting, trust_remote_code=True)
    np.testing.assert_allclose(np.linalg.norm(model.encode(SENTENCES), axis=1), 0.5, atol=1e-6)


def test_evaluate_runs_code_of_a_model_with_its_option_alone(with_code, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "cache"))
    (tmp_path / "sts.tsv").write_text("score\tsentence1\tsentence2\n1\tba\tde\n2\tfa lo\tre\n3\tmi\tmi no\n")
    given = {"models": [str(with_code)], "data": [str(tmp_path / "sts.tsv")], "cache": False}
    with pytest.raises(ConfigError, match=r"^encoder: .* give --trust-remote-code"):
        evaluate(**given)
    evaluate(**given, trust_remote_code=True)


def test_code_of_a_model_is_saved_with_it(with_code, tmp_path):
    model = load_encoder(str(with_code), trust_remote_code=True)
    save_encoder(model, tmp_path / "saved", "")
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu", trust_remote_code=True)
    np.testing.assert_array_equal(again.encode(SENTENCES), model.encode(SENTENCES))


def test_decoders_without_a_padding_token_pad_with_the_end(tiny):
    path = tiny("llama")
    with pytest.raises(ValueError, match="pad"):
        SentenceTransformer(str(path), device="cpu").encode(SENTENCES)
    vectors_ND = saved(str(path)).load().encode(SENTENCES)
    alone_ND = np.array([load_encoder(str(path)).encode(sentence) for sentence in SENTENCES])
    np.testing.assert_allclose(vectors_ND, alone_ND, atol=1e-5)
    frozen_ND = FrozenEncoder(str(path), "train.mask.model", "cpu").embed(SENTENCES)
    unit_ND = alone_ND / np.linalg.norm(alone_ND, axis=1, keepdims=True)
    np.testing.assert_allclose(frozen_ND, unit_ND, atol=1e-3)


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "distilbert", "gpt2", "qwen3", "modernbert"])
def test_as_many_positions_as_tokens_that_can_be_read(tiny, family):
    model = load_published_encoder(str(tiny(family)), "train.encoder")
    assert num_positions(model[0].model) == 48
    assert model.max_seq_length == 48


@pytest.mark.parametrize("kind", ["bert with normalize", "last token", "t5", "modernbert"])
def test_gradient_checkpointing_gives_the_same_gradient(kind, tmp_path):
    def gradients(*, checkpointing: bool) -> dict[str, torch.Tensor]:
        encoder = Encoder(load_encoder(str(path)), mlp_head=False).train()
        if checkpointing:
            enable_gradient_checkpointing(encoder.model)
        torch.manual_seed(3)
        encoder(encoder.tokenize(SENTENCES)).square().sum(dim=0).cos().sum().backward()
        return {name: p.grad for name, p in encoder.named_parameters() if p.requires_grad}

    path = save_kind(kind, tmp_path)
    plain, saving = gradients(checkpointing=False), gradients(checkpointing=True)
    assert plain.keys() == saving.keys()
    assert any(gradient.abs().max() > 0 for gradient in plain.values())
    for name in plain:
        assert torch.equal(plain[name], saving[name]), name


def test_gradient_checkpointing_keeps_fewer_activations(tmp_path):
    def kept(*, checkpointing: bool) -> int:
        """Return the bytes that the forward pass keeps for the backward pass."""
        encoder = Encoder(load_encoder(str(path)), mlp_head=False).train()
        if checkpointing:
            enable_gradient_checkpointing(encoder.model)
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            encoder(encoder.tokenize(SENTENCES))
        return sum(sizes.values())

    path = save_kind("bert with normalize", tmp_path)
    assert kept(checkpointing=True) < kept(checkpointing=False) / 2


def test_gradient_checkpointing_without_a_transformer_is_one_line(tmp_path):
    model = load_encoder(str(save_kind("static", tmp_path)))
    with pytest.raises(ConfigError, match=r"^train\.gradient_checkpointing: .*StaticEmbedding"):
        enable_gradient_checkpointing(model)


def test_word_lists_serve_as_mask_model_and_are_not_trained(tmp_path):
    from sentence_transformers.sentence_transformer.modules import Pooling, WordEmbeddings
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    words = ["PADDING_TOKEN", *{word for sentence in SENTENCES for word in sentence.split()}]
    vectors = np.random.default_rng(0).normal(size=(len(words), 8))
    embeddings = WordEmbeddings(WhitespaceTokenizer(words, stop_words=[]), vectors, True)
    model = SentenceTransformer(modules=[embeddings, Pooling(8, "mean")], device="cpu")
    model.save(str(tmp_path / "words"), create_model_card=False)
    frozen_ND = FrozenEncoder(str(tmp_path / "words"), "train.mask.model", "cpu").embed(SENTENCES)
    expected_ND = model.encode(SENTENCES)
    unit_ND = expected_ND / np.linalg.norm(expected_ND, axis=1, keepdims=True)
    np.testing.assert_allclose(frozen_ND, unit_ND, atol=1e-3)
    with pytest.raises(ConfigError, match=r"^train\.encoder: .* a way of its own \(WordEmbeddings"):
        load_encoder(str(tmp_path / "words"))


def test_adapters_are_identified_with_the_model_below_them(tmp_path):
    for name, text in (("base", "one"), ("adapters", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(text)
    (tmp_path / "adapters/adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "base")})
    )
    before = identify_weights(str(tmp_path / "adapters"), "train.encoder")
    assert identify_weights(str(tmp_path / "adapters"), "train.encoder") == before
    (tmp_path / "base/model.safetensors").write_text("three")
    assert identify_weights(str(tmp_path / "adapters"), "train.encoder") != before
    (tmp_path / "adapters/adapter_config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"^train\.encoder: .*adapter_config\.json is damaged"):
        identify_weights(str(tmp_path / "adapters"), "train.encoder")


def hub_of(monkeypatch, folder: Path, repositories: dict[str, dict[str, object]]) -> None:
    """Put a hub in place of the real one that has these repositories with files of JSON."""
    from transformers.utils import hub

    def cached_file(name: str, file: str, **_: object) -> str | None:
        if file not in repositories[name]:
            return None
        path = folder / name / f"commit-of-{name.partition('/')[2]}" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(repositories[name][file]))
        return str(path)

    monkeypatch.setattr(hub, "cached_file", cached_file)
    monkeypatch.setattr(resolve, "require_on_hub", lambda *_: None)


def write_adapters(folder: Path, base: Path | str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").write_text("adapters")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    return folder


def test_adapters_upon_adapters_are_identified_with_all_models_below_them(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base/model.safetensors").write_text("one")
    middle = write_adapters(tmp_path / "middle", tmp_path / "base")
    outer = str(write_adapters(tmp_path / "outer", middle))
    before = identify_weights(outer, "train.encoder")
    assert before.split("+")[1:] == identify_weights(str(middle), "train.encoder").split("+")
    (tmp_path / "base/model.safetensors").write_text("two")
    assert identify_weights(outer, "train.encoder") != before
    write_adapters(middle, outer)
    with pytest.raises(ConfigError, match=r"^train\.encoder: .* adapters that are added to themselves"):
        identify_weights(outer, "train.encoder")


@pytest.mark.parametrize("place", ["", "0_Transformer/"])
def test_adapters_on_the_hub_are_identified_with_the_model_below_them(place, monkeypatch, tmp_path):
    (tmp_path / "base").mkdir()
    base = tmp_path / "base/model.safetensors"
    base.write_text("one")
    files = {
        "modules.json": [{"path": "0_Transformer"}, {"path": "1_Pooling"}],
        f"{place}adapter_config.json": {"base_model_name_or_path": str(tmp_path / "base")},
    }
    hub_of(monkeypatch, tmp_path, {"some/lora": files, "other/model": {"config.json": {}}})
    before = identify_weights("some/lora", "train.encoder")
    assert before.startswith("commit-of-lora+")
    base.write_text("two")
    assert identify_weights("some/lora", "train.encoder") != before
    files[f"{place}adapter_config.json"] = {"base_model_name_or_path": "other/model"}
    assert identify_weights("some/lora", "train.encoder") == "commit-of-lora+commit-of-model"
    files[f"{place}adapter_config.json"] = {"base_model_name_or_path": str(tmp_path / "gone")}
    with pytest.raises(ConfigError, match=r"^train\.encoder: no directory .*gone"):
        identify_weights("some/lora", "train.encoder")


def test_repositories_without_config_are_identified_by_their_modules(monkeypatch, tmp_path):
    """Static embeddings on the hub have modules.json and no config.json."""
    hub_of(monkeypatch, tmp_path, {"some/static": {"modules.json": [{"path": "0_StaticEmbedding"}]}})
    assert identify_weights("some/static", "train.encoder") == "commit-of-static"


def test_modules_that_do_not_fit_each_other_are_one_line(tmp_path):
    from sentence_transformers.sentence_transformer.modules import LSTM

    path = save_kind("bert with normalize", tmp_path)
    model = SentenceTransformer(str(path), device="cpu")
    modules = [model[0], LSTM(32, 8), model[1]]  # LSTM needs the lengths of sentences, which nobody gives
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "odd"), create_model_card=False)
    for setting, load in (
        ("train.encoder", load_encoder),
        ("train.mask.model", lambda name: FrozenEncoder(name, "train.mask.model", "cpu")),
    ):
        with pytest.raises(ConfigError, match=rf"^{setting}: \S*/odd computes no vector \(KeyError: "):
            load(str(tmp_path / "odd"))


@pytest.mark.parametrize(
    ("file", "entry", "kind"),
    [
        ("config_sentence_transformers.json", {"model_type": "CrossEncoder"}, "CrossEncoder"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "SparseEncoder"),
        ("config.json", {"sbert_ce_default_activation_function": "torch.nn.Identity"}, "CrossEncoder"),
        ("config_sentence_transformers.json", {"model_type": "SentenceTransformer"}, None),
    ],
)
def test_a_model_of_another_class_is_named(tmp_path, caplog, file, entry, kind):
    path = save_kind("bert with normalize", tmp_path)
    (path / file).write_text(json.dumps({**json.loads((path / file).read_text()), **entry}))
    load_published_encoder(str(path), "train.encoder")
    lines = [each.getMessage() for each in caplog.records if each.name.startswith("multicsr")]
    expected = f"train.encoder: {path} is a {kind}, which has no vectors of sentences; the mean of its tokens"
    assert [line.startswith(expected) for line in lines] == [True] * (kind is not None)
