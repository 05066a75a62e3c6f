"""The map, from raw text to curated rows with the fake engine, on local Ray."""

import shutil

import pyarrow as pa
import pytest

from multicsr.config_file import load_config
from multicsr.errors import ConfigError, RunError
from multicsr.execution.ray_session import start_ray
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.rows import CURATED, SCORED, SENTENCE, Reason
from multicsr.stages.curate.sweep import sweep_table
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current, versions
from tests.support.paths import ROOT

ARTIFACTS = {"sentences": SENTENCE, "scored": SCORED, "curated": CURATED}
pytestmark = pytest.mark.usefixtures("ray_cluster")


class Summaries(SilentProgress):
    def __init__(self):
        self.printed = []

    def start(self, stage, total, unit="rows"):
        self.stage = stage

    def finish(self, summary):
        self.printed.append((self.stage, summary))


def change(config, **sections):
    """The configuration with some settings of some sections changed."""
    changed = {name: getattr(config, name).model_copy(update=to) for name, to in sections.items()}
    return config.model_copy(update=changed)


def read_artifact(config, artifact):
    store = Store.open(config.store)
    return pa.concat_tables(iter_tables(store, current(store).manifest(artifact)))


def test_every_row_is_accounted_for(fake_run):
    store = Store.open(fake_run.store)
    before = None
    for artifact, schema in ARTIFACTS.items():
        manifest = current(store).manifest(artifact)
        rows = read_artifact(fake_run, artifact)
        rejected = [row for table in iter_rejects(store, manifest) for row in table.to_pylist()]
        assert rows.schema == schema
        assert manifest.rows_in == manifest.rows_out + sum(manifest.rejected.values())
        assert manifest.rows_in == rows.num_rows + len(rejected)
        assert len(set(rows["row_id"].to_pylist())) == manifest.rows_out > 0
        if before is not None:
            assert {*rows["row_id"].to_pylist(), *(row["row_id"] for row in rejected)} == before
        before = set(rows["row_id"].to_pylist())
    sentences = current(store).manifest("sentences")
    assert (sentences.rows_in, sentences.rows_out) == (303, 300)
    assert sentences.rejected == {Reason.DUPLICATE: 2, Reason.TOO_SHORT: 1}


def test_a_second_run_redoes_nothing(copy_of_run):
    store = Store.open(copy_of_run.store)
    files = {name: store.read_bytes(name) for name in store.names("")}
    progress = Summaries()
    full_run.run(copy_of_run, progress, until="curate")
    assert len(versions(store)) == 3
    after = {name: store.read_bytes(name) for name in store.names("")}
    assert {name for name in after if after[name] != files.get(name)} == {
        name for name in after if name not in files
    }, "nothing that was there is changed"
    assert {name.split("/")[0] for name in after if name not in files} == {"log", "leases"}
    assert [stage for stage, printed in progress.printed if printed.endswith("reused")] == list(
        full_run.STAGES
    )[:3]


def test_thresholds_cost_no_generation(copy_of_run):
    before = current(Store.open(copy_of_run.store)).manifest("scored")
    progress = Summaries()
    strict = change(copy_of_run, curate={"alpha": 4.0})
    full_run.run(strict, progress, until="curate")
    assert [printed.endswith("reused") for _, printed in progress.printed] == [True, True, False]
    assert current(Store.open(strict.store)).manifest("scored") == before
    assert min(read_artifact(strict, "curated")["a"].to_pylist()) >= 4
    assert 0 < read_artifact(strict, "curated").num_rows < read_artifact(copy_of_run, "scored").num_rows


def test_a_touched_source_file_costs_no_generation(copy_of_run, tmp_path):
    (source,) = copy_of_run.input.paths
    copy = tmp_path / "sentences.txt"
    shutil.copy(source, copy)
    progress = Summaries()
    full_run.run(change(copy_of_run, input={"paths": [str(copy)]}), progress, until="curate")
    assert [stage for stage, printed in progress.printed if not printed.endswith("reused")] == ["read"]


@pytest.mark.cluster
@pytest.mark.parametrize(
    "sections",
    [{"generate": {"actors": 3}}, {"ingest": {"rows_per_file": 17}}, {"generate": {"rows_per_shard": 7}}],
)
def test_actors_and_shards_do_not_change_rows(fake_run, tmp_path, sections):
    other = change(fake_run, **sections).model_copy(update={"store": str(tmp_path / "other")})
    full_run.run(other, SilentProgress(), until="curate")
    for artifact in ARTIFACTS:
        assert read_artifact(other, artifact).to_pylist() == read_artifact(fake_run, artifact).to_pylist()


@pytest.fixture(scope="module")
def written(tmp_path_factory, ray_cluster):
    """A run in which the shipped LM writes and scores, in one actor and one shard."""
    store = tmp_path_factory.mktemp("written") / "store"
    config = load_config(ROOT / "configs/demo.yaml", [f"store={store}", "generate.actors=1"])
    head = store.parent / "head.tsv"
    lines = (ROOT / "multicsr/assets/demo/sentences.tsv").read_text(encoding="utf-8").splitlines()
    head.write_text("\n".join(lines[:97]) + "\n", encoding="utf-8")
    config = change(config, input={"paths": [str(head)]}, generate={"max_new_tokens": 24})
    full_run.run(config, SilentProgress(), until="generate")
    return config


@pytest.mark.cluster
def test_the_shipped_lm_writes_the_same_bits(written, tmp_path):
    """With more actors, and other batches, shards and files."""
    generate = {"actors": 3, "batch_size": 7, "rows_per_shard": 20}
    changed = change(written, generate=generate, ingest={"rows_per_file": 30})
    other = changed.model_copy(update={"store": str(tmp_path / "other")})
    full_run.run(other, SilentProgress(), until="generate")
    rows = read_artifact(written, "scored")
    assert rows.num_rows > 60
    assert read_artifact(other, "scored").to_pylist() == rows.to_pylist()


def test_a_step_without_its_input_states_what_to_run(fake_run, tmp_path):
    empty = fake_run.model_copy(update={"store": str(tmp_path / "empty")})
    (tmp_path / "triplets.tsv").write_text("anchor\tpositive\tnegative\na\tb\tc\n")
    for step, needed in (("generate", "ingest"), ("curate", "generate"), ("evaluate", "train")):
        config = change(empty, evaluate={"data": [str(tmp_path / "triplets.tsv")]})
        with pytest.raises(RunError, match=f"run `multicsr {needed} CONFIG` first"):
            full_run.run_step(step, config, SilentProgress())


def test_sweep_table(fake_run):
    table = sweep_table(fake_run, "3", "3", "0,1")
    kept = [int(cell) for cell in table.columns[3].cells]
    assert kept[1] == read_artifact(fake_run, "curated").num_rows <= kept[0]
    with pytest.raises(ConfigError, match="--beta 9: write numbers from 0 to 5"):
        sweep_table(fake_run, "3", "9", "1")
    with pytest.raises(ConfigError, match="--alpha a,b"):
        sweep_table(fake_run, "a,b", "3", "1")


def test_sweep_tries_quartiles_and_marks_the_thresholds_of_the_configuration(fake_run):
    table = sweep_table(fake_run)
    alphas, betas, gammas, kept, _, marks = (list(column.cells) for column in table.columns)
    assert len({*alphas}) > 1
    assert marks.count("as configured") == 1
    row = marks.index("as configured")
    assert (alphas[row], betas[row], gammas[row]) == ("3", "3", "1")
    assert int(kept[row]) == read_artifact(fake_run, "curated").num_rows


def test_keeping_nothing_is_an_error_that_publishes_nothing(fake_run):
    store = Store.open(fake_run.store)
    version = versions(store)[-1]
    strict = change(fake_run, curate={"alpha": 4.999, "beta": 0.001})
    with pytest.raises(RunError, match=r"none of \d+ scored rows passes alpha 4\.999, .* keep half"):
        full_run.run_step("curate", strict, SilentProgress())
    assert versions(store)[-1] == version


def test_start_ray_uses_what_is_there():
    import ray

    with start_ray(100):
        assert ray.is_initialized()
    assert ray.is_initialized(), "it did not start this Ray and does not stop it"
