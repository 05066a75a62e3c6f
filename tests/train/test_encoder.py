import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from multicsr.errors import ConfigError
from multicsr.models import MINILM
from multicsr.train.encoder import Encoder, load_encoder, save_encoder

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


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vectors_are_those_of_the_bare_transformer(tiny_bert, pooling):
    from transformers import AutoModel, AutoTokenizer

    tokenizer, bert = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert).eval()
    model = load_encoder(str(tiny_bert), pooling=pooling)
    for sentence in SENTENCES:
        with torch.no_grad():
            hidden_LD = bert(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0]
        expected = hidden_LD[0] if pooling == "cls" else hidden_LD.mean(dim=0)
        np.testing.assert_allclose(model.encode(sentence), expected.numpy(), atol=1e-5)


def test_layers_keeps_the_first(tiny_bert):
    from transformers import AutoModel, AutoTokenizer

    tokenizer, bert = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert).eval()
    model = load_encoder(str(tiny_bert), pooling="cls", layers=2)
    assert len(model[0].model.encoder.layer) == 2
    with torch.no_grad():
        output = bert(**tokenizer(SENTENCES[1], return_tensors="pt"), output_hidden_states=True)
    np.testing.assert_allclose(model.encode(SENTENCES[1]), output.hidden_states[2][0, 0].numpy(), atol=1e-5)


def test_buckets_and_padding_do_not_change_the_vectors(tiny_bert):
    encoder = Encoder(load_encoder(str(tiny_bert), pooling="mean"), mlp_head=True).eval()
    together_BD = encoder(encoder.tokenize(SENTENCES))
    alone_BD = torch.cat([encoder(encoder.tokenize([sentence])) for sentence in SENTENCES])
    torch.testing.assert_close(together_BD, alone_BD, atol=1e-6, rtol=1e-5)
    reverse_BD = encoder(encoder.tokenize(SENTENCES[::-1]))
    torch.testing.assert_close(reverse_BD.flip(0), together_BD, atol=1e-6, rtol=1e-5)


def test_sentences_are_cut_at_max_length(tiny_bert):
    encoder = Encoder(load_encoder(str(tiny_bert), pooling="cls", max_length=6), mlp_head=False)
    assert [len(ids) for ids in encoder.tokenize(["ba", "ba de fi lo", "ba de fi lo mu na"])] == [3, 6, 6]


def test_saved_directory_is_the_encoder_without_its_head(tiny_bert, tmp_path):
    model = load_encoder(str(tiny_bert), pooling="mean", layers=2, max_length=7)
    encoder = Encoder(model, mlp_head=True).eval()
    save_encoder(encoder.model, tmp_path / "model", "# card\n")
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert [type(module).__name__ for module in loaded] == ["Transformer", "Pooling"]
    assert loaded.max_seq_length == 7
    np.testing.assert_allclose(loaded.encode(SENTENCES), model.encode(SENTENCES), atol=1e-6)
    with torch.no_grad():
        headed = encoder(encoder.tokenize(SENTENCES)).numpy()
    assert not np.allclose(loaded.encode(SENTENCES), headed, atol=1e-2)
    assert (tmp_path / "model" / "README.md").read_text() == "# card\n"
    again = load_encoder(str(tmp_path / "model"), pooling="mean", max_length=7)
    np.testing.assert_allclose(again.encode(SENTENCES), model.encode(SENTENCES), atol=1e-6)


def test_the_unused_pooler_is_not_trained(tiny_bert):
    encoder = Encoder(load_encoder(str(tiny_bert), pooling="cls"), mlp_head=True)
    encoder(encoder.tokenize(SENTENCES)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == ("pooler" not in name), name
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_the_head_is_drawn_from_the_seed(tiny_bert):
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(Encoder(load_encoder(str(tiny_bert), pooling="cls"), mlp_head=True).head[0].weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_minilm_without_its_normalisation():
    model = load_encoder(MINILM, pooling="mean", max_length=128)
    from multicsr.models import resolve_model

    original = SentenceTransformer(resolve_model(MINILM, "train.encoder"), device="cpu")
    ours_2D = model.encode(["A man plays a guitar.", "Two dogs run."], normalize_embeddings=True)
    np.testing.assert_allclose(
        ours_2D, original.encode(["A man plays a guitar.", "Two dogs run."]), atol=1e-6
    )


def test_bad_settings_are_one_line(tiny_bert, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.layers: 4 asked for, .* has 3"):
        load_encoder(str(tiny_bert), pooling="cls", layers=4)
    with pytest.raises(ConfigError, match=r"train\.max_length: 64 asked for, .* has 48 positions"):
        load_encoder(str(tiny_bert), pooling="cls", max_length=64)
    with pytest.raises(ConfigError, match=r"train\.encoder: .* holds no model weights"):
        load_encoder(str(tmp_path), pooling="cls")
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ConfigError, match=r"train\.encoder: cannot load") as caught:
        load_encoder(str(tmp_path), pooling="cls")
    assert "\n" not in str(caught.value)
