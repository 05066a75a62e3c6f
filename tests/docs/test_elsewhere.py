"""Python of the pages on other tools runs, where those tools are installed."""

import pytest

from multicsr.observability.progress import SilentProgress
from multicsr.tools.encoder_source import model_source
from multicsr.tools.export import ExportFormat, export_encoder
from tests.docs.test_documents import blocks
from tests.support.finished_store import NUM_CURATED, finished_store
from tests.support.paths import ROOT

PAGES = ROOT / "docs/how-to"


def names_of(code: str) -> dict[str, object]:
    """Run code of a page, and return the names that it defines."""
    names: dict[str, object] = {}
    exec(compile(code, "page", "exec"), names)
    return names


@pytest.fixture
def encoder(tiny_bert, tmp_path, monkeypatch):
    """A directory of an encoder that normalises the mean; the working directory is beside it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    monkeypatch.chdir(tmp_path)
    transformer = Transformer(str(tiny_bert), max_seq_length=40)
    model = SentenceTransformer(
        modules=[transformer, Pooling(32, pooling_mode="mean"), Normalize()], device="cpu"
    )
    model.save(str(tmp_path / "encoder"), create_model_card=False)
    return tmp_path / "encoder"


def test_onnx_file_runs_as_the_page_shows(encoder, tmp_path):
    pytest.importorskip("onnxruntime")
    from sentence_transformers import SentenceTransformer

    export_encoder(model_source(str(encoder)), tmp_path / "support-onnx", ExportFormat.ONNX, SilentProgress())
    [_, code] = blocks(PAGES / "export.md", "python")
    encode = names_of(code)["encode"]
    sentences = ["ba de", "mi no pu ra so te ba ba", "fa"]
    expected_SD = SentenceTransformer(str(encoder), device="cpu").encode(sentences)
    assert abs(encode(sentences) - expected_SD).max() < 1e-4


def test_faiss_finds_the_nearest_sentences(encoder, tmp_path):
    pytest.importorskip("faiss")
    (tmp_path / "runs/support-tickets").mkdir(parents=True)
    encoder.rename(tmp_path / "runs/support-tickets/encoder")
    [code, _] = blocks(PAGES / "use-elsewhere.md", "python")
    names = names_of(code)
    assert names["numbers"].shape == (1, 2)


def test_curated_rows_load_as_the_page_shows(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    finished_store(tmp_path / "runs/support-tickets")
    [_, code] = blocks(PAGES / "use-elsewhere.md", "python")
    triplets = names_of(code)["triplets"]
    assert triplets.column_names == ["text", "entailment", "contradiction"]
    assert triplets.num_rows == NUM_CURATED
