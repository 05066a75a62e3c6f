"""Exports of small encoders agree with the original in all but the data type."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    StaticEmbedding,
    Transformer,
    WeightedLayerPooling,
)

from multicsr.errors import ConfigError, RunError
from multicsr.observability.progress import SilentProgress
from multicsr.storage.versions import current
from multicsr.tools.encoder_source import EncoderSource, model_source
from multicsr.tools.export import ExportFormat, export_encoder
from tests.support.encoder_kinds import encoder_with_code, save_kind
from tests.support.finished_store import finished_store

SENTENCES = ["ba de", "mi no pu ra so te", "fa", "ba ba ba " * 30]
HALF = [ExportFormat.FLOAT16, ExportFormat.BFLOAT16]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, tiny_bert):
    """An encoder with a dense layer, normalised vectors, a prompt, a length limit and another similarity."""
    torch.manual_seed(1)
    transformer = Transformer(str(tiny_bert), max_seq_length=40)
    model = SentenceTransformer(
        modules=[transformer, Pooling(32, pooling_mode="mean"), Dense(32, 16), Normalize()],
        prompts={"query": "ba na "},
        similarity_fn_name="dot",
        device="cpu",
    )
    path = tmp_path_factory.mktemp("encoder")
    model.save(str(path), create_model_card=False)
    (path / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    return path


def export(place, target, kind, **options):
    return export_encoder(model_source(str(place)), target, kind, SilentProgress(), **options)


def modules_of(path):
    return [module["type"] for module in json.loads((path / "modules.json").read_text())]


@pytest.mark.parametrize("kind", HALF)
def test_half_precision_loads_and_agrees(encoder, kind, tmp_path):
    exported = export(encoder, tmp_path / "out", kind)
    original = SentenceTransformer(str(encoder), device="cpu")
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    dtype = torch.float16 if kind is ExportFormat.FLOAT16 else torch.bfloat16
    assert {parameter.dtype for parameter in loaded[0].parameters()} == {dtype}
    ours_SD, theirs_SD = (torch.from_numpy(each.encode(SENTENCES)).float() for each in (loaded, original))
    assert torch.cosine_similarity(ours_SD, theirs_SD).min() > 0.999
    assert 0.999 < exported.agreement.smallest < 1
    assert modules_of(tmp_path / "out") == modules_of(encoder)
    assert (loaded.max_seq_length, loaded.similarity_fn_name) == (40, "dot")
    assert loaded.prompts["query"] == "ba na "
    size = (encoder / "model.safetensors").stat().st_size
    assert (tmp_path / "out/model.safetensors").stat().st_size < 0.6 * size


def test_card_states_the_export(encoder, tmp_path):
    export(encoder, tmp_path / "out", ExportFormat.FLOAT16)
    card = (tmp_path / "out/README.md").read_text()
    assert card.startswith("---\nlicense: mit\n---\n# Mine\n\n## Export\n")
    assert "format `safetensors-fp16`" in card
    assert "Cosine with the original on 29 sentences: smallest " in card


def test_too_small_a_cosine_leaves_nothing(encoder, tmp_path):
    with pytest.raises(RunError, match=r"smallest 0.9.*below 1, for .*; nothing was written"):
        export(encoder, tmp_path / "out", ExportFormat.BFLOAT16, min_cosine=1.0)
    assert [*tmp_path.iterdir()] == []


def test_numbers_beyond_float16_are_never_written(tmp_path):
    path = save_kind("static with normalize", tmp_path)
    model = SentenceTransformer(str(path), device="cpu")
    with torch.no_grad():
        model[0].embedding.weight.mul_(1e6)
    model.save(str(tmp_path / "large"), create_model_card=False)
    with pytest.raises(RunError, match=r"vectors are not finite, .* such as safetensors-bf16"):
        export(tmp_path / "large", tmp_path / "half", ExportFormat.FLOAT16, min_cosine=-1)
    assert not list(tmp_path.glob("half*"))
    assert export(tmp_path / "large", tmp_path / "brain", ExportFormat.BFLOAT16).agreement.smallest > 0.99


def test_existing_directory_is_kept(encoder, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="out exists already"):
        export(encoder, tmp_path / "out", ExportFormat.FLOAT16)
    assert [*tmp_path.rglob("*")] == [tmp_path / "out"]


def test_figures_of_both_on_given_tasks(encoder, dev_file, tmp_path):
    exported = export(encoder, tmp_path / "out", ExportFormat.FLOAT16, data=[str(dev_file)])
    assert [each.label for each in exported.evaluation.encoders] == ["original", "safetensors-fp16"]
    first, second = (each.scores[0].value for each in exported.evaluation.encoders)
    assert abs(first - second) < 5


def test_missing_task_is_found_before_the_export(encoder, tmp_path):
    with pytest.raises(ConfigError, match="no evaluation file"):
        export(encoder, tmp_path / "out", ExportFormat.FLOAT16, data=[str(tmp_path / "none.tsv")])


def test_encoder_of_a_store_is_compared_on_its_corpus(encoder, tmp_path):
    store = finished_store(tmp_path / "store", encoder)
    source = EncoderSource("support-tickets", current(store))
    exported = export_encoder(source, tmp_path / "out", ExportFormat.FLOAT16, SilentProgress())
    assert exported.agreement.num_sentences == 29 + 6, "the first file of sentences has 6"
    assert "## Cosine thresholds" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("kind", [ExportFormat.ONNX, ExportFormat.ONNX_INT8])
def test_onnx_agrees_on_any_length_and_batch(encoder, kind, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    exported = export(encoder, tmp_path / "out", kind, min_cosine=0.9)
    assert exported.agreement.smallest > (0.99999 if kind is ExportFormat.ONNX else 0.98)
    assert [*(tmp_path / "out").glob("*.safetensors")] == []
    assert modules_of(tmp_path / "out") == modules_of(encoder)
    original = SentenceTransformer(str(encoder), device="cpu")
    session = runtime.InferenceSession(
        str(tmp_path / "out/onnx/model.onnx"), providers=["CPUExecutionProvider"]
    )
    assert [each.name for each in session.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]
    for batch in (SENTENCES[:1], SENTENCES[1:]):
        tokens = original.tokenizer(batch, padding=True, truncation=True, max_length=40, return_tensors="np")
        (token_BLD,) = session.run(["last_hidden_state"], {name: tokens[name] for name in tokens})
        with torch.no_grad():
            tensors = {name: torch.from_numpy(tokens[name]) for name in tokens}
            expected_BLD = original[0].model(**tensors).last_hidden_state.numpy()
        keep_BL = tokens["attention_mask"] == 1
        if kind is ExportFormat.ONNX:
            np.testing.assert_allclose(token_BLD[keep_BL], expected_BLD[keep_BL], atol=1e-4)


def test_onnx_directory_loads_in_sentence_transformers(encoder, tmp_path):
    """The releases of optimum-onnx up to 0.1.0 exclude transformers 5; the test runs where one fits."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("optimum.onnxruntime", exc_type=ImportError)
    export(encoder, tmp_path / "out", ExportFormat.ONNX)
    loaded = SentenceTransformer(str(tmp_path / "out"), backend="onnx", device="cpu")
    original = SentenceTransformer(str(encoder), device="cpu")
    np.testing.assert_allclose(loaded.encode(SENTENCES), original.encode(SENTENCES), atol=1e-4)


def test_lines_on_the_card_of_an_onnx_export_give_the_vectors_of_the_original(encoder, tmp_path):
    pytest.importorskip("onnxruntime")
    export(encoder, tmp_path / "out", ExportFormat.ONNX)
    card = (tmp_path / "out/README.md").read_text()
    lines = card.split("```python\n")[-1].split("```")[0]
    names: dict[str, object] = {}
    exec(lines.replace("path/to/this/directory", str(tmp_path / "out")), names)
    original = SentenceTransformer(str(encoder), device="cpu")
    np.testing.assert_allclose(names["encode"](SENTENCES), original.encode(SENTENCES), atol=1e-4)


@pytest.mark.parametrize("kind", [ExportFormat.FLOAT16, ExportFormat.ONNX])
def test_code_of_an_encoder_is_run_and_copied_only_if_it_is_trusted(kind, tmp_path, monkeypatch):
    if kind.is_onnx:
        pytest.importorskip("onnxruntime")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "cache"))
    path = encoder_with_code(tmp_path)
    with pytest.raises(
        ConfigError, match=r"^MODEL: .* needs code that comes with it; .* --trust-remote-code"
    ):
        export(path, tmp_path / "out", kind)
    source = EncoderSource(str(path), None, trust_remote_code=True)
    export_encoder(source, tmp_path / "out", kind, SilentProgress())
    assert (tmp_path / "out/halving.py").is_file()


def test_onnx_needs_a_transformer(tiny_bert, tmp_path):
    pytest.importorskip("onnxruntime")
    tokenizer = Transformer(str(tiny_bert)).tokenizer.backend_tokenizer
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    model.save(str(tmp_path / "static"), create_model_card=False)
    with pytest.raises(ConfigError, match="begins with StaticEmbedding, not with a transformer"):
        export(tmp_path / "static", tmp_path / "out", ExportFormat.ONNX)
    export(tmp_path / "static", tmp_path / "out", ExportFormat.FLOAT16)


def test_onnx_has_the_last_layer_alone(tiny_bert, tmp_path):
    pytest.importorskip("onnxruntime")
    transformer = Transformer(str(tiny_bert), config_kwargs={"output_hidden_states": True})
    layers = WeightedLayerPooling(32, num_hidden_layers=3, layer_start=1)
    model = SentenceTransformer(modules=[transformer, layers, Pooling(32)], device="cpu")
    model.save(str(tmp_path / "layers"), create_model_card=False)
    with pytest.raises(ConfigError, match="from several layers"):
        export(tmp_path / "layers", tmp_path / "out", ExportFormat.ONNX)


def test_missing_packages_are_named(encoder, tmp_path, monkeypatch):
    from multicsr.messages import extras

    monkeypatch.setattr(extras, "missing_packages", lambda extra: ["onnx"])
    with pytest.raises(ConfigError, match=r"--format onnx needs onnx.*pip install 'multicsr\[export\]'"):
        export(encoder, tmp_path / "out", ExportFormat.ONNX)
