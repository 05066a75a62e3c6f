"""`train.extra_triplets` from files to an audited model, under Ray Train."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from safetensors.torch import load_file

from multicsr.artifacts import Step, read_log
from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.observability.progress import SilentProgress
from multicsr.stages.train.fit import fit
from multicsr.stages.train.trainer import model_fingerprint, train
from multicsr.storage.manifest import Manifest, add_digests
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools.audit import audit, remarks
from tests.support.versions import publish

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Trained:
    """A training on curated and labelled triplets, which the tests share; they change copies of it."""

    config: Config
    model: Manifest
    folder: Path
    """The store, and the files of labelled triplets."""

    @property
    def labelled(self) -> list[Path]:
        """The file of triplets and the file of pairs."""
        return [self.folder / "nli.tsv", self.folder / "pairs.jsonl"]

    def copy(self, folder: Path) -> "Trained":
        shutil.copytree(self.folder, folder)
        tree = changed(self.config, extra_triplets=_entries(folder)).model_dump(exclude_unset=True)
        return Trained(Config.model_validate(tree | {"store": str(folder / "store")}), self.model, folder)


@pytest.fixture(scope="module")
def trained(fake_run, tiny_bert, ray_cluster, tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("labelled") / "all"
    shutil.copytree(fake_run.store, folder / "store")
    write_labelled(folder)
    training = {
        "encoder": str(tiny_bert),
        "mask": {"model": str(tiny_bert), "sigma": 0.99},
        "global_batch": 16,
        "epochs": 1,
        "checkpoint_every_s": 0,
        "extra_triplets": _entries(folder),
    }
    tree = fake_run.model_dump(exclude_unset=True)
    config = Config.model_validate(tree | {"train": training, "store": str(folder / "store")})
    return Trained(config, train(config, current(Store.of(config)), SilentProgress()), folder)


@pytest.fixture
def copied(trained, tmp_path) -> Trained:
    return trained.copy(tmp_path / "copy")


def write_labelled(folder: Path) -> None:
    """Write triplets to a TSV file and pairs to a JSONL file; three rows are bad, one is repeated."""
    triplets = [f"Anchor {n} of mine.\tPositive {n} of mine.\tNegative {n} of mine." for n in range(40)]
    lines = ["sent0\tsent1\thard_neg", *triplets, triplets[3], "only one field", "Same.\tsame.\tOther."]
    (folder / "nli.tsv").write_text("\n".join(lines))
    pairs = [f'{{"query": "Question {n}?", "pos": ["Answer {n}."]}}' for n in range(40)]
    (folder / "pairs.jsonl").write_text("\n".join([*pairs, '{"query": "Question?", "pos": []}']))


def _entries(folder: Path) -> list[object]:
    return [{"path": str(folder / "nli.tsv"), "weight": 0.5}, str(folder / "pairs.jsonl")]


def changed(config: Config, **settings: object) -> Config:
    tree = config.model_dump(exclude_unset=True)
    return Config.model_validate(tree | {"train": tree["train"] | settings})


def losses(folder: Path) -> list[float]:
    """Of every step."""
    return [line.loss for line in read_log(folder / "train.jsonl") if isinstance(line, Step)]


def weights(store: Store, model) -> dict:
    return load_file(store.directory / f"model/{model.fingerprint}/encoder/model.safetensors")


def test_labelled_rows_are_counted_kept_and_audited(copied):
    store, model = Store.of(copied.config), copied.model
    curated = current(store).manifest("curated")
    assert model.counters["labelled_rows"] == 80
    assert model.rows_in == curated.rows_out + 84
    assert model.rejected == {
        "duplicate": 1,
        "malformed record": 1,
        "same hypotheses": 1,
        "empty": 1,
    }
    assert model.rows_out == curated.rows_out + 80
    assert model.rows_digest != curated.rows_digest == add_digests([curated.rows_digest])
    assert model.counters["steps"] == (curated.rows_out + 80) // 16
    published = publish(store, "model", model)
    assert audit(published) == remarks(published) == []

    (entry,) = (entry for entry in model.files if entry.path.endswith(".parquet"))
    table = store.read_table(entry)
    other = table.set_column(1, table.schema.field("text"), pa.array(["Another text."] * len(table)))
    rewritten = store.write_table(entry.path, other)
    files = [rewritten if each == entry else each for each in model.files]
    published = publish(store, "model", model.model_copy(update={"files": files}))
    assert any("80 row ids are not the hash" in found for found in audit(published))


def test_the_model_is_that_of_fit_and_no_order_or_format_of_files_changes_it(trained, tmp_path):
    config, model, store = trained.config, trained.model, Store.of(trained.config)
    curated = pa.concat_tables(map(store.read_table, current(store).manifest("curated").files))
    fit(config.train, curated, seed=config.seed, out=tmp_path / "bare")
    ours = losses(store.directory / f"model/{model.fingerprint}")
    assert len(ours) > 15
    assert losses(tmp_path / "bare") == pytest.approx(ours, rel=1e-4)

    lines = trained.labelled[0].read_text().splitlines()
    csv = tmp_path / "nli.csv"
    csv.write_text("\n".join(line.replace("\t", ",") for line in [lines[0], *lines[:0:-1]]))
    files = [str(trained.labelled[1]), {"path": str(csv), "weight": 0.5}]
    assert model_fingerprint(changed(config, extra_triplets=files), current(store)) == model.fingerprint


def test_content_and_weight_make_another_model_and_no_triplets_the_same_as_before(copied):
    config, labelled = copied.config, copied.labelled
    snapshot = current(Store.of(config))
    known = model_fingerprint(config, snapshot)
    plain = changed(config, extra_triplets=[])
    tree = plain.model_dump(exclude_unset=True)
    del tree["train"]["extra_triplets"]
    without = Config.model_validate(tree)
    assert known == copied.model.fingerprint
    assert model_fingerprint(plain, snapshot) == model_fingerprint(without, snapshot) != known
    heavier = changed(config, extra_triplets=[str(path) for path in labelled])
    assert model_fingerprint(heavier, snapshot) not in (known, model_fingerprint(plain, snapshot))
    labelled[1].write_text(labelled[1].read_text().replace("Answer 3", "Answer three"))
    assert model_fingerprint(config, snapshot) != known


@pytest.mark.slow  # a training on two workers
def test_two_workers_read_the_same_rows(copied):
    store, one = Store.of(copied.config), copied.model
    first = weights(store, one)
    for entry in one.files:
        store.delete(entry.path)
    store.delete(f"model/{one.fingerprint}/manifest.json")
    two = train(changed(copied.config, workers=2), current(store), SilentProgress())
    assert two.fingerprint == one.fingerprint
    assert (two.rows_out, two.rows_digest) == (one.rows_out, one.rows_digest)
    assert two.counters["masked"] == pytest.approx(one.counters["masked"])
    assert first.keys() == weights(store, two).keys()


def test_a_bad_header_ends_the_training_before_it_starts(copied):
    copied.labelled[0].write_text("A dog runs.\tAn animal moves.\n")
    with pytest.raises(
        ConfigError, match=r"^train.extra_triplets: nli.tsv, line 1: no column of anchors among "
    ):
        train(copied.config, current(Store.of(copied.config)), SilentProgress())
