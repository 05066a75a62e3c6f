"""The map, from raw text to curated rows with the fake engine, on local Ray."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from multicsr import pipeline
from multicsr.config_file import load_config
from multicsr.errors import ConfigError, RunError
from multicsr.manifest import iter_rejects, iter_tables
from multicsr.progress import SilentProgress
from multicsr.ray_start import start_ray
from multicsr.rows import CURATED, SCORED, SENTENCE, Reason
from multicsr.store import Store
from multicsr.versions import current, versions

ROOT = Path(__file__).parents[1]
ROOMS = {"sentences": SENTENCE, "scored": SCORED, "curated": CURATED}
pytestmark = pytest.mark.usefixtures("ray_cluster")


class Summaries(SilentProgress):
    def __init__(self):
        self.said = []

    def start(self, stage, total, unit="rows"):
        self.stage = stage

    def finish(self, summary):
        self.said.append((self.stage, summary))


def change(config, **sections):
    """The configuration with some settings of some sections changed."""
    changed = {name: getattr(config, name).model_copy(update=to) for name, to in sections.items()}
    return config.model_copy(update=changed)


def read_room(config, room):
    store = Store.open(config.store)
    return pa.concat_tables(iter_tables(store, current(store).manifest(room)))


def test_every_row_is_accounted_for(fake_run):
    store = Store.open(fake_run.store)
    before = None
    for room, schema in ROOMS.items():
        manifest = current(store).manifest(room)
        rows = read_room(fake_run, room)
        refused = [row for table in iter_rejects(store, manifest) for row in table.to_pylist()]
        assert rows.schema == schema
        assert manifest.rows_in == manifest.rows_out + sum(manifest.rejected.values())
        assert manifest.rows_in == rows.num_rows + len(refused)
        assert len(set(rows["row_id"].to_pylist())) == manifest.rows_out > 0
        if before is not None:
            assert {*rows["row_id"].to_pylist(), *(row["row_id"] for row in refused)} == before
        before = set(rows["row_id"].to_pylist())
    sentences = current(store).manifest("sentences")
    assert (sentences.rows_in, sentences.rows_out) == (303, 300)
    assert sentences.rejected == {Reason.DUPLICATE: 2, Reason.TOO_SHORT: 1}


def test_a_second_run_redoes_nothing(copy_of_run):
    store = Store.open(copy_of_run.store)
    files = {name: store.read_bytes(name) for name in store.names("")}
    progress = Summaries()
    pipeline.run(copy_of_run, progress, until="curate")
    assert len(versions(store)) == 3
    after = {name: store.read_bytes(name) for name in store.names("")}
    assert {name for name in after if after[name] != files.get(name)} == {
        name for name in after if name not in files
    }, "nothing that was there is changed"
    assert {name.split("/")[0] for name in after if name not in files} == {"log", "leases"}
    assert [stage for stage, said in progress.said if said.endswith("reused")] == list(pipeline.STAGES)[:3]


def test_thresholds_cost_no_generation(copy_of_run):
    before = current(Store.open(copy_of_run.store)).manifest("scored")
    progress = Summaries()
    strict = change(copy_of_run, curate={"alpha": 4.0})
    pipeline.run(strict, progress, until="curate")
    assert [said.endswith("reused") for _, said in progress.said] == [True, True, False]
    assert current(Store.open(strict.store)).manifest("scored") == before
    assert min(read_room(strict, "curated")["a"].to_pylist()) >= 4
    assert 0 < read_room(strict, "curated").num_rows < read_room(copy_of_run, "scored").num_rows


def test_a_touched_source_file_costs_no_generation(copy_of_run, tmp_path):
    (source,) = copy_of_run.input.paths
    copy = tmp_path / "sentences.txt"
    shutil.copy(source, copy)
    progress = Summaries()
    pipeline.run(change(copy_of_run, input={"paths": [str(copy)]}), progress, until="curate")
    assert [said.endswith("reused") for _, said in progress.said] == [False, False, True, True]


@pytest.mark.parametrize(
    "sections",
    [{"generate": {"actors": 3}}, {"ingest": {"rows_per_file": 17}}, {"generate": {"rows_per_shard": 7}}],
)
def test_actors_and_shards_do_not_change_rows(fake_run, tmp_path, sections):
    other = change(fake_run, **sections).model_copy(update={"store": str(tmp_path / "other")})
    pipeline.run(other, SilentProgress(), until="curate")
    for room in ROOMS:
        assert read_room(other, room).to_pylist() == read_room(fake_run, room).to_pylist()


@pytest.fixture(scope="module")
def written(tmp_path_factory, ray_cluster):
    """A run in which the shipped LM writes and scores, in one actor and one shard."""
    store = tmp_path_factory.mktemp("written") / "store"
    config = load_config(ROOT / "configs/demo.yaml", [f"store={store}", "generate.actors=1"])
    head = store.parent / "head.tsv"
    lines = (ROOT / "multicsr/assets/demo/sentences.tsv").read_text(encoding="utf-8").splitlines()
    head.write_text("\n".join(lines[:97]) + "\n", encoding="utf-8")
    config = change(config, input={"paths": [str(head)]}, generate={"max_new_tokens": 24})
    pipeline.run(config, SilentProgress(), until="generate")
    return config


@pytest.mark.cluster
def test_the_shipped_lm_writes_the_same_bits(written, tmp_path):
    """With more actors, and other batches, shards and files."""
    generate = {"actors": 3, "batch_size": 7, "rows_per_shard": 20}
    changed = change(written, generate=generate, ingest={"rows_per_file": 30})
    other = changed.model_copy(update={"store": str(tmp_path / "other")})
    pipeline.run(other, SilentProgress(), until="generate")
    rows = read_room(written, "scored")
    assert rows.num_rows > 60
    assert read_room(other, "scored").to_pylist() == rows.to_pylist()


def test_a_step_without_its_input_says_what_to_run(fake_run, tmp_path):
    empty = fake_run.model_copy(update={"store": str(tmp_path / "empty")})
    for step, needed in (("generate", "ingest"), ("curate", "generate"), ("evaluate", "train")):
        config = change(empty, evaluate={"data": ["x"]})
        with pytest.raises(RunError, match=f"run `multicsr {needed} CONFIG` first"):
            pipeline.run_step(step, config, SilentProgress())


def test_sweep_table(fake_run):
    table = pipeline.sweep_table(fake_run, "3", "3", "0,1")
    kept = [int(cell) for cell in table.columns[3].cells]
    assert kept[1] == read_room(fake_run, "curated").num_rows <= kept[0]
    with pytest.raises(ConfigError, match="--beta 9: write numbers from 0 to 5"):
        pipeline.sweep_table(fake_run, "3", "9", "1")
    with pytest.raises(ConfigError, match="--alpha a,b"):
        pipeline.sweep_table(fake_run, "a,b", "3", "1")


def test_start_ray_uses_what_is_there():
    import ray

    with start_ray(100):
        assert ray.is_initialized()
    assert ray.is_initialized(), "it did not start this Ray and does not stop it"
