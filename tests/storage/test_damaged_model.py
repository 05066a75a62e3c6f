"""A damaged file of a trained encoder is found by whoever uses it, and the remedy in the message works."""

import random
import shutil
from pathlib import Path

import pytest

from multicsr.artifacts import ENCODER
from multicsr.config import Config
from multicsr.errors import DamagedFileError, MissingFileError
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.stages.evaluate import evaluate_run
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools.fetch import fetch_encoder
from tests.support.paths import ROOT

DEMO = ROOT / "multicsr/assets/demo"
pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600), pytest.mark.cluster]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, ray_cluster) -> Config:
    """The configuration of a store that is complete up to the evaluation."""
    folder = tmp_path_factory.mktemp("model")
    for name, last in (("sentences.tsv", 101), ("test_triplets.tsv", 21)):
        lines = (DEMO / name).read_text(encoding="utf-8").splitlines()[:last]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = Config.model_validate(
        {
            "name": "model",
            "store": str(folder / "store"),
            "input": {"paths": [str(folder / "sentences.tsv")], "column": "sentence"},
            "llm": {"engine": "fake"},
            "train": {"layers": 1, "pooling": "mean", "mlp_head": False, "mask": None, "steps": 2}
            | {"global_batch": 8, "max_length": 16},
            "evaluate": {"data": [str(folder / "test_triplets.tsv")], "baseline": False},
            "lease_s": 5,
        }
    )
    full_run.run(config, SilentProgress())
    return config


@pytest.fixture
def config(trained, tmp_path) -> Config:
    """The same with a store of its own."""
    shutil.copytree(trained.store, tmp_path / "store", symlinks=True)
    return trained.model_copy(update={"store": str(tmp_path / "store")})


def flip(path: Path, dice: random.Random) -> bytes:
    """Flip a bit of a file; return what the file held before."""
    data = path.read_bytes()
    at = dice.randrange(len(data))
    path.write_bytes(data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :])
    return data


def test_fetch_and_evaluation_find_every_damaged_file(config, tmp_path):
    store, dice = Store.of(config), random.Random(0)
    snapshot = current(store)
    entries = [entry for entry in snapshot.manifest("model").files if f"/{ENCODER}/" in entry.path]
    store.delete(snapshot.folder("evaluation"))
    assert len(entries) > 5
    for entry in entries:
        path = Path(config.store, entry.path)
        data = flip(path, dice)
        with pytest.raises(DamagedFileError, match=f"{entry.path} is damaged; delete it and run"):
            fetch_encoder(snapshot, tmp_path / "fetched")
        with pytest.raises(DamagedFileError, match=f"{entry.path} is damaged; delete it and run"):
            evaluate_run(config, snapshot, SilentProgress())
        path.write_bytes(data)
    assert [path.name for path in tmp_path.iterdir()] == ["store"], "nothing half-written"
    with pytest.raises(MissingFileError, match="no such file; `multicsr run CONFIG` makes it again"):
        fetch_encoder(snapshot, tmp_path / "fetched")
    evaluate_run(config, snapshot, SilentProgress())
    fetch_encoder(snapshot, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "modules.json").is_file()


@pytest.mark.slow  # two more trainings
def test_after_the_remedy_the_model_is_the_same(config, tmp_path):
    store = Store.of(config)
    snapshot = current(store)
    (weights,) = [entry for entry in snapshot.manifest("model").files if entry.path.endswith(".safetensors")]
    flip(Path(config.store, weights.path), random.Random(0))
    with pytest.raises(DamagedFileError, match="delete it"):
        fetch_encoder(snapshot, tmp_path / "fetched")
    store.delete(weights.path)
    full_run.run(config, SilentProgress())
    assert current(store).fingerprints == snapshot.fingerprints
    assert weights in current(store).manifest("model").files
    fetch_encoder(current(store), tmp_path / "fetched")


def test_a_stray_file_of_an_encoder_is_not_used(config, tmp_path):
    store = Store.of(config)
    snapshot = current(store)
    before = snapshot.manifest("evaluation").counters
    store.write_text(f"{snapshot.folder('model')}/{ENCODER}/adapter_config.json", "{")
    fetch_encoder(snapshot, tmp_path / "fetched")
    assert not (tmp_path / "fetched" / "adapter_config.json").exists()
    store.delete(snapshot.folder("evaluation"))
    assert evaluate_run(config, snapshot, SilentProgress()).counters == before
