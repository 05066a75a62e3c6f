"""Publication on a local imitation of the hub."""

import time

import pytest
from huggingface_hub.repocard import ModelCard

from multicsr.config import CardConfig
from multicsr.errors import ConfigError, RunError
from multicsr.observability.progress import SilentProgress
from multicsr.storage.versions import current
from multicsr.tools.cards.dataset import COLUMNS
from multicsr.tools.encoder_source import EncoderSource, model_source
from multicsr.tools.hub import push_encoder
from tests.support.fake_hub import READ_ONLY_TOKEN, used_hub
from tests.support.finished_store import NUM_CURATED, finished_store

MODEL, DATASET = "models/org/encoder", "datasets/org/triplets"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> EncoderSource:
    store = finished_store(tmp_path_factory.mktemp("hub") / "store")
    return EncoderSource("support-tickets", current(store), CardConfig(license="apache-2.0"))


@pytest.fixture
def hub(monkeypatch):
    with used_hub(monkeypatch) as hub:
        yield hub


def push(source, **options):
    return push_encoder(source, "org/encoder", SilentProgress(), **options)


def test_encoder_is_pushed_with_its_card(source, hub):
    assert push(source) == [f"{hub.address}/org/encoder"]
    files = hub.repositories[MODEL].files
    assert {"README.md", "config.json", "modules.json", "model.safetensors"} <= files.keys()
    assert files["model.safetensors"] == b"weights"
    assert ModelCard(files["README.md"].decode()).data.license == "apache-2.0"
    assert [*hub.repositories] == [MODEL]
    assert hub.repositories[MODEL].private is False


def test_triplets_are_pushed_with_their_card(source, hub, tmp_path):
    datasets = pytest.importorskip("datasets")
    addresses = push(source, dataset="org/triplets", private=True)
    assert addresses == [f"{hub.address}/org/encoder", f"{hub.address}/datasets/org/triplets"]
    assert [each.private for each in hub.repositories.values()] == [True, True]
    assert ModelCard(hub.repositories[MODEL].files["README.md"].decode()).data.datasets == ["org/triplets"]
    for name, content in hub.repositories[DATASET].files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    paths = sorted(map(str, tmp_path.glob("data/*.parquet")))
    loaded = datasets.load_dataset(
        "parquet", data_files=paths, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.column_names == [*COLUMNS]
    assert loaded.num_rows == NUM_CURATED
    assert loaded[8] == {
        "anchor": "Sentence 8 is here.",
        "positive": "There is sentence 8.",
        "negative": "Sentence 8 is absent.",
        "positive_score": 4.5,
        "negative_score": 0.5,
        "language": "de",
        "llm": "google/flan-t5-xl",
        "row_id": f"{8:032x}",
    }
    assert b"/home" not in b"".join(hub.repositories[DATASET].files.values())


def test_older_triplets_are_replaced(source, hub):
    push(source, dataset="org/triplets")
    files = hub.repositories[DATASET].files
    files |= {"data/train-00000-of-00009.parquet": b"old", "notes.md": b"kept"}
    push(source, dataset="org/triplets")
    assert [*sorted(files)] == [
        "README.md",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "notes.md",
    ]


def test_directory_is_pushed_as_it_is(hub, tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").write_bytes(b"graph")
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nMine\n")
    push(model_source(str(tmp_path)))
    files = hub.repositories[MODEL].files
    assert {name: files[name] for name in ("onnx/model.onnx", "README.md")} == {
        "onnx/model.onnx": b"graph",
        "README.md": b"---\nlicense: mit\n---\nMine\n",
    }


def test_no_token_is_one_line(source, monkeypatch):
    with used_hub(monkeypatch, token=None) as hub:
        with pytest.raises(ConfigError, match=r"^push needs a token .*set HF_TOKEN, or run `hf auth login`$"):
            push(source)
        assert hub.requests == []


def test_wrong_token(source, monkeypatch):
    with (
        used_hub(monkeypatch, token="hf_wrong") as hub,
        pytest.raises(RunError, match="org/encoder: the hub rejects the token; set HF_TOKEN"),
    ):
        push(source)
    assert hub.repositories == {}


def test_token_without_the_right_to_write(source, monkeypatch):
    with (
        used_hub(monkeypatch, token=READ_ONLY_TOKEN) as hub,
        pytest.raises(RunError, match="org/encoder: the token has no right to write there"),
    ):
        push(source)
    assert hub.repositories == {}


def test_busy_hub_is_asked_again(source, hub):
    hub.failures = {"/commit/main": [500], "/repos/create": [503]}
    push(source)
    assert "model.safetensors" in hub.repositories[MODEL].files


def test_hub_that_stays_busy_is_one_line(source, hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.failures = {"/commit/main": [500] * 9}
    with pytest.raises(RunError, match=r"^org/encoder: the hub answers with HTTP status 500 after 5 tries"):
        push(source)
    assert hub.repositories[MODEL].files == {}


def test_failed_upload_of_a_large_file_is_one_line(source, hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.failures = {"/objects/batch": [403]}
    with pytest.raises(RunError, match="no right to write"):
        push(source)


def test_hub_that_cannot_be_reached_is_one_line(source, monkeypatch):
    with used_hub(monkeypatch) as hub:
        pass
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(RunError, match=r"^org/encoder: the hub cannot be reached after 5 tries"):
        push(source)
    assert hub.requests == []


def test_public_repository_does_not_become_private(source, hub):
    push(source)
    with pytest.raises(ConfigError, match="--private: org/encoder exists and is public"):
        push(source, private=True)


@pytest.mark.parametrize("name", ["a/b/c", "org/with blanks", "/absolute"])
def test_wrong_name_is_one_line(source, hub, name):
    with pytest.raises(ConfigError, match="is no name of a repository; write organization/name"):
        push_encoder(source, name, SilentProgress())


def test_model_has_no_triplets(hub, tmp_path):
    with pytest.raises(ConfigError, match="--dataset needs"):
        push(model_source(str(tmp_path)), dataset="org/triplets")


def test_model_of_the_hub_is_there_already(hub):
    with pytest.raises(ConfigError, match="is on the hub already"):
        push(model_source("org/encoder"))
