import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers.pytorch_utils import Conv1D

from multicsr.config import LoraConfig, TrainConfig
from multicsr.errors import ConfigError
from multicsr.models.encoder import Encoder, load_encoder, save_encoder
from multicsr.models.model_card import model_card
from multicsr.models.published_encoder import load_published_encoder, with_prompt
from multicsr.models.resolve import MINILM

SENTENCES = [
    "ba de",
    "mi no pu ra so te",
    "fa",
    "ba ba ba",
    "ki lo mu",
    "re so",
    "ti",
    "na na pe po pu ra ra",
]
WITH_TYPES = ["input_ids", "token_type_ids", "attention_mask"]


def bare(path):
    """Tokenizer and transformer, without sentence-transformers and without us."""
    from transformers import AutoModel, AutoTokenizer

    return AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()


def hidden_states(path, sentence) -> list[np.ndarray]:
    """[L, D] below the first layer, after it, and so on."""
    tokenizer, transformer = bare(path)
    with torch.no_grad():
        output = transformer(**tokenizer(sentence, return_tensors="pt"), output_hidden_states=True)
    return [hidden_1LD[0].numpy() for hidden_1LD in output.hidden_states]


def edited(path, to, **changes) -> Path:
    """A copy of the model at `path` in the folder `to`, with other settings of its tokenizer."""
    shutil.copytree(path, to)
    settings = to / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **changes}))
    return to


def train_steps(encoder, steps=3) -> None:
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=0.02)
    encoder.train()
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        embedding_BD = encoder(encoder.tokenize(SENTENCES))
        torch.cdist(embedding_BD, embedding_BD.flip(0)).mean().neg().backward()
        optimizer.step()
    encoder.eval()


def gradient_reaches_what_is_trained(encoder) -> bool:
    encoder(encoder.tokenize(SENTENCES)).sum().backward()
    return all((parameter.grad is not None) == parameter.requires_grad for parameter in encoder.parameters())


def trained_names(encoder) -> set[str]:
    return {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}


def test_cls_is_the_first_token_of_the_bare_transformer(tiny_encoder):
    model = load_encoder(str(tiny_encoder), pooling="cls")
    for sentence in SENTENCES[:2]:
        last_LD = hidden_states(tiny_encoder, sentence)[-1]
        np.testing.assert_allclose(model.encode(sentence), last_LD[0], atol=1e-5)


def test_mean_and_first_last_are_those_of_the_bare_transformer(tiny_model):
    mean, both = (load_encoder(str(tiny_model), pooling=kind) for kind in ("mean", "first_last"))
    for sentence in SENTENCES[:2]:
        _, first_LD, _, last_LD = hidden_states(tiny_model, sentence)
        np.testing.assert_allclose(mean.encode(sentence), last_LD.mean(axis=0), atol=1e-5)
        both_D = ((first_LD + last_LD) / 2).mean(axis=0)
        np.testing.assert_allclose(both.encode(sentence), both_D, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "first_last"])
def test_every_parameter_is_trained_or_frozen(tiny_model, pooling):
    encoder = Encoder(load_encoder(str(tiny_model), pooling=pooling), mlp_head=True).train()
    assert gradient_reaches_what_is_trained(encoder)
    frozen = {name for name, _ in encoder.named_parameters()} - trained_names(encoder)
    others = {name for name in frozen if "pooler" not in name}
    assert others == ({"model.1.layer_weights"} if pooling == "first_last" else set())


def test_the_unused_pooler_is_not_trained(tiny):
    encoder = Encoder(load_encoder(str(tiny("bert")), pooling="cls"), mlp_head=True)
    assert gradient_reaches_what_is_trained(encoder)
    frozen = {name for name, _ in encoder.named_parameters()} - trained_names(encoder)
    assert frozen == {"model.0.model.pooler.dense.weight", "model.0.model.pooler.dense.bias"}


@pytest.mark.parametrize("pooling", ["mean", "first_last"])
def test_saved_directory_is_the_encoder_cut_to_its_first_layers(tiny_model, pooling, tmp_path):
    model = load_encoder(str(tiny_model), pooling=pooling, layers=2)
    encoder = Encoder(model, mlp_head=False)
    train_steps(encoder)
    save_encoder(encoder.model, tmp_path / "model", "# card\n")
    modules = json.loads((tmp_path / "model" / "modules.json").read_text())
    assert all(module["type"].startswith("sentence_transformers.") for module in modules)
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert loaded.max_seq_length == 48
    np.testing.assert_allclose(loaded.encode(SENTENCES), model.encode(SENTENCES), atol=1e-6)
    with torch.no_grad():
        trained_BD = encoder(encoder.tokenize(SENTENCES))
    np.testing.assert_allclose(loaded.encode(SENTENCES), trained_BD.numpy(), atol=1e-5)
    assert len(hidden_states(tmp_path / "model", "ba")) == 3
    again = load_encoder(str(tmp_path / "model"), pooling=pooling)
    np.testing.assert_allclose(again.encode(SENTENCES), model.encode(SENTENCES), atol=1e-6)


def test_layers_keeps_the_first(tiny_bert):
    model = load_encoder(str(tiny_bert), pooling="cls", layers=2)
    assert len(model[0].model.encoder.layer) == 2
    second_LD = hidden_states(tiny_bert, SENTENCES[1])[2]
    np.testing.assert_allclose(model.encode(SENTENCES[1]), second_LD[0], atol=1e-5)


def test_first_last_of_one_layer_is_that_layer(tiny_bert):
    mean, both = (load_encoder(str(tiny_bert), pooling=kind, layers=1) for kind in ("mean", "first_last"))
    np.testing.assert_allclose(both.encode(SENTENCES), mean.encode(SENTENCES), atol=1e-6)


def test_first_last_does_not_outlive_its_setting(tiny_bert, tmp_path):
    save_encoder(load_encoder(str(tiny_bert), pooling="first_last"), tmp_path, "")
    model, original = (load_encoder(str(path), pooling="mean") for path in (tmp_path, tiny_bert))
    assert not model[0].config.output_hidden_states
    np.testing.assert_allclose(model.encode(SENTENCES), original.encode(SENTENCES), atol=1e-6)


def test_buckets_and_padding_do_not_change_the_vectors(tiny_model):
    encoder = Encoder(load_encoder(str(tiny_model), pooling="mean"), mlp_head=True).eval()
    together_BD = encoder(encoder.tokenize(SENTENCES))
    alone_BD = torch.cat([encoder(encoder.tokenize([sentence])) for sentence in SENTENCES])
    torch.testing.assert_close(together_BD, alone_BD, atol=1e-6, rtol=1e-5)
    reverse_BD = encoder(encoder.tokenize(SENTENCES[::-1]))
    torch.testing.assert_close(reverse_BD.flip(0), together_BD, atol=1e-6, rtol=1e-5)


def test_training_pads_and_types_as_the_saved_model_does(tiny, tmp_path):
    # To GPT-2 positions are absolute, and types of 0 add something that no types do not.
    path = edited(tiny("gpt2"), tmp_path / "left", padding_side="left", model_input_names=WITH_TYPES)
    encoder = Encoder(load_encoder(str(path), pooling="mean"), mlp_head=False)
    save_encoder(encoder.model, tmp_path / "model", "")
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert "token_type_ids" in loaded.preprocess(SENTENCES)
    with torch.no_grad():
        trained_BD = encoder(encoder.tokenize(SENTENCES))
    np.testing.assert_allclose(loaded.encode(SENTENCES), trained_BD.numpy(), atol=1e-5)


def test_sentences_are_cut_at_max_length(tiny_bert):
    encoder = Encoder(load_encoder(str(tiny_bert), pooling="cls"), mlp_head=False, max_length=6)
    assert [len(ids) for ids in encoder.tokenize(["ba", "ba de fi lo", "ba de fi lo mu na"])] == [3, 6, 6]


def test_the_longest_sentence_fits_and_no_longer_one(tiny_model):
    encoder = Encoder(load_encoder(str(tiny_model), pooling="mean"), mlp_head=False, max_length=48)
    sequences = encoder.tokenize(["ba " * 60])
    assert len(sequences[0]) == 48
    assert torch.isfinite(encoder(sequences)).all()
    with pytest.raises(ConfigError, match=r"train\.max_length: 49 asked for, the encoder takes 48 tokens"):
        Encoder(load_encoder(str(tiny_model), pooling="mean"), mlp_head=False, max_length=49)


def test_saved_directory_has_no_head(tiny_bert, tmp_path):
    encoder = Encoder(load_encoder(str(tiny_bert), pooling="mean"), mlp_head=True).eval()
    save_encoder(encoder.model, tmp_path / "model", "# card\n")
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert [type(module).__name__ for module in loaded] == ["Transformer", "Pooling"]
    with torch.no_grad():
        headed = encoder(encoder.tokenize(SENTENCES)).numpy()
    assert not np.allclose(loaded.encode(SENTENCES), headed, atol=1e-2)
    assert (tmp_path / "model" / "README.md").read_text() == "# card\n"


def test_the_head_is_drawn_from_the_seed(tiny_bert):
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(Encoder(load_encoder(str(tiny_bert), pooling="cls"), mlp_head=True).head[0].weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_parameters_in_training_are_float32_whatever_the_checkpoint_holds(tiny_model, tmp_path):
    tokenizer, transformer = bare(tiny_model)
    transformer.bfloat16().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_encoder(str(tmp_path), pooling="mean")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    encoder = Encoder(model, mlp_head=True)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_embeddings_are_float32_at_least(tiny_model, lora):
    model = load_encoder(str(tiny_model), pooling="first_last", lora=lora)
    encoder = Encoder(model, mlp_head=True).eval()
    with torch.no_grad():
        single_BD = encoder(encoder.tokenize(SENTENCES))
        double_BD = encoder.double()(encoder.tokenize(SENTENCES))
        half_BD = encoder.bfloat16()(encoder.tokenize(SENTENCES))
    assert (single_BD.dtype, double_BD.dtype, half_BD.dtype) == (torch.float32, torch.float64, torch.float32)
    torch.testing.assert_close(single_BD.double(), double_BD, atol=1e-5, rtol=1e-4)
    assert torch.isfinite(half_BD).all()


def test_minilm_is_loaded_with_its_normalisation():
    model = load_encoder(MINILM, pooling="mean")
    from multicsr.models.resolve import resolve_model

    original = SentenceTransformer(resolve_model(MINILM, "train.encoder"), device="cpu")
    sentences = ["A man plays a guitar.", "Two dogs run."]
    np.testing.assert_array_equal(model.encode(sentences), original.encode(sentences))


def test_lora_trains_adapters_and_head_alone(tiny_model):
    lora = LoraConfig(rank=2, dropout=0.1)
    encoder = Encoder(load_encoder(str(tiny_model), pooling="first_last", lora=lora), mlp_head=True).train()
    assert gradient_reaches_what_is_trained(encoder)
    names = trained_names(encoder)
    assert all("lora_" in name or name.startswith("head.") for name in names)
    adapted = {name.split(".lora_")[0].partition(".base_model.model.")[2] for name in names}
    modules = bare(tiny_model)[1].named_modules()
    linear = {name for name, module in modules if isinstance(module, nn.Linear | Conv1D)}
    assert adapted - {""} == {name for name in linear if "pooler" not in name}


def test_lora_starts_as_the_encoder_without_it(tiny_bert):
    plain, adapted = (load_encoder(str(tiny_bert), pooling="cls", lora=lora) for lora in (None, LoraConfig()))
    np.testing.assert_allclose(adapted.encode(SENTENCES), plain.encode(SENTENCES), atol=1e-6)


def test_lora_is_saved_merged(tiny_model, tmp_path):
    model = load_encoder(str(tiny_model), pooling="first_last", lora=LoraConfig(rank=2))
    encoder = Encoder(model, mlp_head=False)
    before_BD = encoder.model.encode(SENTENCES)
    train_steps(encoder)
    trained_BD = encoder.model.encode(SENTENCES)
    assert np.abs(trained_BD - before_BD).max() > 0.1
    save_encoder(encoder.model, tmp_path, "")
    names = set(load_file(tmp_path / "model.safetensors"))
    assert names == set(bare(tiny_model)[1].state_dict())
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(loaded.encode(SENTENCES), trained_BD, atol=1e-5)


def test_saving_does_not_change_what_is_trained(tiny_bert, tmp_path):
    def train(saves: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        lora = LoraConfig(rank=2, dropout=0.1)
        encoder = Encoder(load_encoder(str(tiny_bert), pooling="cls", lora=lora), mlp_head=True)
        for _ in range(2):
            train_steps(encoder)
            if saves:
                save_encoder(encoder.model, tmp_path, "")
        return encoder.state_dict()

    saved, unsaved = train(saves=True), train(saves=False)
    assert saved.keys() == unsaved.keys()
    for name in saved:
        assert torch.equal(saved[name], unsaved[name]), name


def test_lora_targets_name_layers(tiny_bert):
    lora = LoraConfig(targets=["query", "intermediate.dense"])
    encoder = Encoder(load_encoder(str(tiny_bert), pooling="cls", lora=lora), mlp_head=False)
    layers = {name.split(".lora_")[0].split(".layer.")[1][2:] for name in trained_names(encoder)}
    assert layers == {"attention.self.query", "intermediate.dense"}
    message = r"train\.lora\.targets: no layer is called querry; there are dense, key, query, value"
    with pytest.raises(ConfigError, match=message):
        load_encoder(str(tiny_bert), pooling="cls", lora=LoraConfig(targets=["key", "querry"]))


def test_lora_without_peft_is_one_line(tiny_bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"^train\.lora needs peft: pip install 'multicsr\[lora\]'$"):
        load_encoder(str(tiny_bert), pooling="cls", lora=LoraConfig())


def test_the_first_token_of_a_decoder_is_rejected(tiny_decoder):
    with pytest.raises(ConfigError, match=r"^train\.pooling: the first token of .* sees no other; take mean"):
        load_encoder(str(tiny_decoder), pooling="cls")


def test_encoder_decoders_are_rejected(tiny):
    with pytest.raises(ConfigError, match=r"^train\.encoder: .* \(bart\) is not a text encoder$"):
        load_encoder(str(tiny("bart")), pooling="mean")


def test_tokenizers_that_cannot_be_trained_with_are_rejected(tiny, tmp_path):
    path = edited(tiny("bert"), tmp_path / "typed", model_input_names=WITH_TYPES)
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    tokenizer["post_processor"]["single"][0]["SpecialToken"]["type_id"] = 2
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match=r"^train\.encoder: .* a way of its own .*other token types"):
        load_encoder(str(path), pooling="mean")
    path = edited(tiny("llama"), tmp_path / "endless", eos_token=None)
    with pytest.raises(ConfigError, match=r"^train\.encoder: .* neither a padding nor an end token$"):
        load_encoder(str(path), pooling="mean")


def test_bad_settings_are_one_line(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.layers: 4 asked for, .* has 3"):
        load_encoder(str(tiny_model), pooling="mean", layers=4)
    with pytest.raises(ConfigError, match=r"train\.encoder: .* holds no model weights"):
        load_encoder(str(tmp_path), pooling="cls")
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ConfigError, match=r"train\.encoder: cannot load") as caught:
        load_encoder(str(tmp_path), pooling="cls")
    assert "\n" not in str(caught.value)


def test_the_card_reports_what_was_trained_and_how(tiny_bert, tmp_path):
    import yaml

    lora = LoraConfig(rank=2, targets=["query"])
    config = TrainConfig(
        encoder=str(tiny_bert),
        pooling="first_last",
        lora=lora,
        mlp_head=False,
        mlflow="http://me:secret@host",
    )
    model = load_encoder(config.encoder, pooling=config.pooling, lora=config.lora)
    save_encoder(model, tmp_path, model_card(config, seed=7, steps=1200, best_step=1100, best_dev=None))
    _, front, body = (tmp_path / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "sentence-transformers"
    assert f"Started from `{tiny_bert}`; parameters after step 1,100 of 1,200." in body
    assert "the mean of its tokens over the first and the last layer" in body
    assert "merged: peft is not needed" in body
    assert "head" not in body.partition("Settings:")[0]
    assert "secret" not in body
    settings = yaml.safe_load(body.partition("```yaml\n")[2].partition("```")[0])
    assert settings["train"]["lora"] == lora.model_dump()
    assert settings["seed"] == 7
    vectors = SentenceTransformer(str(tmp_path), device="cpu").encode(SENTENCES)
    np.testing.assert_allclose(vectors, model.encode(SENTENCES), atol=1e-6)


def test_the_card_of_a_plain_encoder():
    config = TrainConfig(dev="dev.tsv", pooling="cls", mlp_head=True)
    card = model_card(config, seed=1, steps=10, best_step=5, best_dev=71.234)
    assert "parameters after step 5 of 10 (dev score 71.23 on `dev.tsv`)." in card
    assert "that of its first token. The dense head that training used is not part of the model." in card
    assert "peft" not in card
    config = TrainConfig(prompt="query: ")
    card = model_card(config, seed=1, steps=10, best_step=5, best_dev=None)
    assert "made by the same modules as that of the encoder it started from. Training put `query: `" in card


@pytest.mark.parametrize("prompt", [None, "query: ", 'a "quoted" one\n'])
def test_the_usage_lines_of_the_card_encode_as_the_training_did(prompt, tiny_bert):
    config = TrainConfig(encoder=str(tiny_bert), prompt=prompt)
    card = model_card(config, seed=1, steps=10, best_step=5, best_dev=None)
    lines = (
        card.partition("```python\n")[2].partition("```")[0].replace("path/to/this/directory", str(tiny_bert))
    )
    names: dict[str, object] = {}
    exec(lines, names)
    model = with_prompt(load_published_encoder(str(tiny_bert), "encoder"), prompt)
    np.testing.assert_allclose(names["vectors"], model.encode(["A sentence.", "Another one."]), atol=1e-6)
    plain = SentenceTransformer(str(tiny_bert)).encode(["A sentence."])
    assert np.allclose(names["vectors"][:1], plain, atol=1e-4) == (prompt is None)
