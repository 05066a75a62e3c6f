"""The cards of an encoder and of its triplets state what is known, and the hub's own library reads them."""

import io
import re

import pytest
from huggingface_hub import DatasetCardData, ModelCardData
from huggingface_hub.repocard import DatasetCard, ModelCard

from multicsr.config import CardConfig, TrainConfig
from multicsr.errors import ConfigError, RunError
from multicsr.models.model_card import Card, hub_id, model_card
from multicsr.storage.store import Store
from multicsr.storage.versions import Snapshot, current
from multicsr.tools.cards import complete_card, dataset_card
from tests.support.finished_store import LLM, NUM_CURATED, NUM_ROWS, NUM_TRAINED, finished_store
from tests.support.versions import publish

STATED = CardConfig(license="apache-2.0", data_license="cc-by-sa-4.0")
TRAINED = model_card(TrainConfig(), 42, 10, 5, 71.0)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory) -> Snapshot:
    return current(finished_store(tmp_path_factory.mktemp("cards") / "store"))


def without(snapshot: Snapshot, *artifacts: str) -> Snapshot:
    kept = {name: each for name, each in snapshot.fingerprints.items() if name not in artifacts}
    return Snapshot(snapshot.store, kept)


def metadata(content: str) -> ModelCardData:
    """Metadata of a model card, as the hub's library validates them."""
    return ModelCard(content, ignore_metadata_errors=False).data


def test_metadata_of_the_model_card(snapshot):
    data = metadata(complete_card(TRAINED, snapshot, STATED, ("org/triplets",)))
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert (data.license, data.language, data.datasets) == ("apache-2.0", ["en", "de"], ["org/triplets"])
    assert (data.library_name, data.pipeline_tag) == ("sentence-transformers", "sentence-similarity")
    [figure] = data.eval_results
    assert (figure.dataset_name, figure.metric_name, figure.metric_value) == ("stsb", "Spearman x 100", 72.5)
    assert figure.metric_type == "spearman_x_100"


def test_text_of_the_model_card(snapshot):
    text = complete_card(TRAINED, snapshot, STATED)
    assert f"{NUM_CURATED} triplets, made of {NUM_ROWS} sentences" in text
    assert f"The encoder was trained on {NUM_TRAINED} triplets. Triplets that" in text
    assert f"Check those of `{LLM}` before you publish" in text
    assert "| stsb | Spearman x 100 | 40 | 70.25 (68.25 to 71.25) | 72.50 (70.50 to 73.50) |" in text
    assert "| 0.95 | 0.812 | 0.750 to 0.875 | 0.900 to 0.980 | 0.500 | 20 |" in text
    assert "`stsb`: 40 pairs, of which 19 match (pairs with label 1)." in text
    assert "learning_rate: 5.0e-05" in text
    assert "No licence is stated" not in text


def test_card_has_the_number_of_labelled_triplets(tmp_path):
    store = finished_store(tmp_path / "store")
    model = current(store).manifest("model")
    publish(
        store, "model", model.model_copy(update={"rows_out": 1_500, "counters": {"labelled_rows": 1_200.0}})
    )
    text = complete_card(TRAINED, current(store), STATED)
    assert "trained on 1,500 triplets; 1,200 labelled ones were given besides those of the LLM." in text


def test_card_states_nothing_that_is_not_known(snapshot):
    text = complete_card(TRAINED, without(snapshot, "curated", "evaluation"), CardConfig())
    data = metadata(text)
    assert (data.license, data.language, data.eval_results) == (None, None, None)
    assert [part for part in ("## Data", "## Evaluation", "thresholds\n") if part in text] == []
    assert "No licence is stated" in text


def test_configuration_comes_before_what_is_found(snapshot):
    card = CardConfig(languages=["nl"], base_model="org/base")
    data = metadata(complete_card(TRAINED, snapshot, card))
    assert (data.language, data.base_model) == (["nl"], "org/base")


def test_evaluation_without_thresholds_has_none_on_the_card(snapshot, tmp_path):
    store = finished_store(tmp_path / "store")
    manifest = current(store).manifest("evaluation")
    publish(store, "evaluation", manifest.model_copy(update={"files": manifest.files[:1]}))
    text = complete_card(TRAINED, current(store), STATED)
    assert "## Evaluation" in text
    assert "## Cosine thresholds" not in text


def test_cards_hold_no_secrets(snapshot):
    train = TrainConfig(dev="s3://key:secret123@bucket/dev.tsv", mlflow="http://user:secret456@host")
    text = complete_card(model_card(train, 1, 2, 1, 3.0), snapshot, STATED)
    text += dataset_card(snapshot, STATED, "org/triplets")
    assert not re.search("secret|/home", text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("FacebookAI/roberta-base", "FacebookAI/roberta-base"),
        ("models/of/mine", None),
        ("/models/mine", None),
        ("tests/support", None),
    ],
)
def test_hub_id_of_an_encoder(name, expected, monkeypatch):
    from tests.support.paths import ROOT

    monkeypatch.chdir(ROOT)
    assert hub_id(name) == expected


def test_directory_is_no_base_model(tmp_path):
    store = finished_store(tmp_path / "store", train=TrainConfig(encoder="/models/mine"))
    text = complete_card(
        model_card(TrainConfig(encoder="/models/mine"), 1, 1, 1, None), current(store), STATED
    )
    assert metadata(text).base_model is None


def test_dataset_card_is_valid(snapshot):
    card = DatasetCard(dataset_card(snapshot, STATED, "org/triplets"), ignore_metadata_errors=False)
    data: DatasetCardData = card.data
    assert (data.license, data.language, data.size_categories) == ("cc-by-sa-4.0", ["en", "de"], ["n<1K"])
    assert data.configs == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}
    ]
    assert 'load_dataset("org/triplets", split="train")' in card.text


def test_dataset_card_needs_triplets(tmp_path):
    with pytest.raises(RunError, match="no curated rows"):
        dataset_card(current(Store.open(str(tmp_path))), STATED, "org/triplets")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("---\nlicense: mit\n---\n# Title\n", {"license": "mit"}),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n# Title\n", {"license": "mit"}),
        ("# Title\n", {}),
        ("---\n# Title\n", {}),
    ],
)
def test_card_is_split(content, found, tmp_path):
    card = Card.parse(content, tmp_path)
    assert card.metadata == found
    assert "# Title" in card.text
    assert Card.parse(card.render(), tmp_path) == card


@pytest.mark.parametrize("front", ["a: [", "- a"])
def test_invalid_metadata_are_named(front, tmp_path):
    with pytest.raises(ConfigError, match=r"README.md: the metadata at the top"):
        Card.parse(f"---\n{front}\n---\nText\n", tmp_path / "README.md")


@pytest.mark.parametrize(
    "wrong", [{"license": "Apache License"}, {"languages": ["English"]}, {"base_model": "/models/x"}]
)
def test_wrong_statements_are_errors(wrong):
    with pytest.raises(ValueError, match=r"ISO 639|no licence name|no id of the Hugging Face hub"):
        CardConfig.model_validate(wrong)


def test_curated_artifact_loads_as_a_dataset(snapshot, tmp_path):
    """As it lies in a store: `datasets` knows nothing of this project."""
    datasets = pytest.importorskip("datasets")
    from multicsr.rows import CURATED

    files = [str(snapshot.store.directory / entry.path) for entry in snapshot.manifest("curated").files]
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert loaded.column_names == CURATED.names
    assert loaded.num_rows == NUM_CURATED
    assert loaded[0]["entailment"] == "There is sentence 0."
    buffer = io.BytesIO()
    loaded.to_json(buffer)
    assert buffer.getvalue().count(b"\n") == NUM_CURATED
