"""Whatever happens to a file of a store: nothing wrong is published, and the remedy in the message works."""

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from multicsr.config import Config
from multicsr.errors import MulticsrError, RunError
from multicsr.execution import stage_runner
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.pipeline.refresh import refresh
from multicsr.stages.evaluate import evaluate_models
from multicsr.stages.report.collect import collect
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.transaction import roll_back
from multicsr.storage.versions import current, latest
from multicsr.tools.explain import explain
from multicsr.tools.fetch import fetch_encoder
from tests.support.jobs_here import jobs_here, tiny_config, write_inputs

ARTIFACTS = ("sentences", "scored", "curated")
STATES = ("ingest", "generate", "curate", "train", "evaluate", "refresh", "rollback")
"""The last command before the damage."""
Contents = dict[str, pa.Table | bytes | float]


@pytest.fixture
def here() -> Iterator[None]:
    """Let a stage cost milliseconds instead of seconds."""
    with jobs_here():
        yield


def config_of(inputs: Path, store: Path, *files: str) -> Config:
    config = tiny_config(inputs, store, *files)
    return config.model_copy(update={"refresh": config.refresh.model_copy(update={"max_removed": 1.0})})


def run(config: Config, until: str = "curate") -> None:
    full_run.run(config, SilentProgress(), until=until)


@pytest.fixture(scope="module")
def states(tmp_path_factory) -> Path:
    """A folder of inputs and of stores, one for each state."""
    folder = tmp_path_factory.mktemp("damage")
    write_inputs(folder)
    with jobs_here():
        for state in STATES:
            make_state(folder, state)
    return folder


def make_state(folder: Path, state: str) -> None:
    config, other = (config_of(folder, folder / state, *files) for files in (["a.txt"], ["a.txt", "b.txt"]))
    if state not in ("refresh", "rollback"):
        return run(config, until=state)
    first, second = (other, config) if state == "refresh" else (config, other)
    run(first, until="evaluate")
    if state == "refresh":
        refresh(second, SilentProgress())
        return None
    number = current_number(config)
    run(second, until="evaluate")
    roll_back(config, number, SilentProgress())
    return None


def current_number(config: Config) -> int:
    version = latest(Store.of(config))
    assert version is not None
    return version.number


def contents(config: Config) -> dict[str, pa.Table]:
    """Everything that readers of the current version see of its rows."""
    snapshot = current(Store.of(config))
    found = {}
    for artifact in ARTIFACTS:
        manifest = snapshot.manifest(artifact)
        found[artifact] = pa.concat_tables(iter_tables(snapshot.store, manifest))
        found[f"rejects of {artifact}"] = pa.concat_tables(iter_rejects(snapshot.store, manifest))
    return found


def use(config: Config, target: Path) -> Contents:
    """Run, evaluate, fetch and read everything; return what was found."""
    full_run.run(config, SilentProgress())
    full_run.run_step("evaluate", config, SilentProgress())
    snapshot = current(Store.of(config))
    tables = contents(config)
    collect(snapshot)
    explain(snapshot, tables["sentences"]["row_id"][0].as_py())
    shutil.rmtree(target, ignore_errors=True)
    fetch_encoder(snapshot, target)
    weights = (target / "model.safetensors").read_bytes()
    (encoder,) = evaluate_models([str(target)], config.evaluate.data, 32, SilentProgress()).encoders
    figures = {f"measured {score.task}": score.value for score in encoder.scores}
    return {**tables, **snapshot.manifest("evaluation").counters, **figures, "weights": weights}


@pytest.fixture(scope="module")
def expected(states) -> dict[str, pa.Table]:
    """The rows that a run on each of the stores must lead to."""
    found = contents(config_of(states, states / "evaluate", "a.txt"))
    assert found["sentences"].num_rows == 60
    assert found["rejects of sentences"].num_rows == 1
    return found


@pytest.fixture(scope="module")
def all_expected(states, tmp_path_factory) -> Contents:
    """Everything that the commands on each of the stores must lead to."""
    folder = tmp_path_factory.mktemp("expected")
    shutil.copytree(states / "evaluate", folder / "store", symlinks=True)
    with jobs_here():
        return use(config_of(states, folder / "store", "a.txt"), folder / "encoder")


def damage(dice: random.Random, files: list[Path]) -> str:
    """Damage one of the files; return how."""
    path = dice.choice(files)
    data = path.read_bytes()
    kind = dice.choice(["bit", "bit", "bit", "bit", "cut", "zeroed", "exchanged", "emptied"])
    if kind == "bit":
        at = dice.randrange(len(data))
        damaged = data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
    elif kind == "cut":
        damaged = data[: -dice.randrange(1, min(200, len(data)))]
    elif kind == "zeroed":
        at, size = dice.randrange(len(data)), dice.randrange(1, 64)
        damaged = (data[:at] + bytes(size) + data[at + size :])[: len(data)]
    elif kind == "exchanged":
        damaged = min(
            files, key=lambda other: (abs(other.stat().st_size - len(data)), other == path)
        ).read_bytes()
    else:
        damaged = b""
    path.write_bytes(damaged)
    return f"{kind}: {path}"


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def follow_remedy(error: MulticsrError, store: Path) -> None:
    """Do what the message says: delete the file that it names, or nothing but run again."""
    message = str(error)
    named = re.search(rf"{re.escape(str(store))}/\S+", message)
    assert "\n" not in message
    assert named, f"names no file: {message}"
    if "delete it" in message:
        Path(named[0].rstrip(":;,")).unlink()
    else:
        assert "again" in message, f"no remedy: {message}"


def survive(config: Config, expected: Contents, what: str) -> int:
    """Use a store and follow remedies until all is as it should be; return how many remedies it took."""
    target = Path(config.store).with_name("encoder")
    for remedies in range(5):
        try:
            found = use(config, target)
        except MulticsrError as error:
            follow_remedy(error, Path(config.store))
            continue
        assert found.keys() == expected.keys()
        different = [name for name, value in expected.items() if found[name] != value]
        assert not different, f"{what}: {different}"
        return remedies
    raise AssertionError(f"{what}: five remedies were not enough")


def damage_and_survive(states, expected: Contents, state: str, tmp_path: Path, seeds: range) -> list[int]:
    taken = []
    for seed in seeds:
        store = tmp_path / "in" / "store"
        shutil.copytree(states / state, store, symlinks=True)
        what = damage(random.Random(f"{state} {seed}"), files_of(store))
        taken.append(survive(config_of(states, store, "a.txt"), expected, f"{state} {seed}: {what}"))
        shutil.rmtree(store.parent)
    return taken


@pytest.fixture
def copied(states, here, tmp_path):
    """A function that returns the configuration of a state's store, copied."""

    def copy(state: str) -> Config:
        shutil.copytree(states / state, tmp_path / state, symlinks=True)
        return config_of(states, tmp_path / state, "a.txt")

    return copy


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_a_damaged_manifest_is_one_warning_and_made_again(copied, expected, artifact, caplog):
    config = copied("curate")
    store = Store.of(config)
    cache = sorted(store.infos("llm_cache"))
    name = f"{current(store).folder(artifact)}/manifest.json"
    store.write_text(name, '{"stage": "half of it')
    run(config)
    messages = [record.getMessage() for record in caplog.records]
    assert f"{store.uri(name)} is damaged; it is made again" in messages
    assert all(table.equals(expected[part]) for part, table in contents(config).items())
    assert sorted(store.infos("llm_cache")) == cache, "nothing was written anew"


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_a_deleted_manifest_is_made_again(copied, expected, artifact):
    config = copied("curate")
    store = Store.of(config)
    store.delete(f"{current(store).folder(artifact)}/manifest.json")
    with pytest.raises(RunError, match="no such file; `multicsr run CONFIG` makes it again"):
        current(store).manifest(artifact)
    run(config)
    assert all(table.equals(expected[part]) for part, table in contents(config).items())


@pytest.mark.parametrize("artifact", ARTIFACTS)
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_an_incomplete_table_is_one_warning_and_made_again(copied, expected, artifact, how, caplog):
    config = copied("curate")
    store = Store.of(config)
    entry = current(store).manifest(artifact).files[0]
    if how == "cut":
        store.write_bytes(entry.path, store.read_bytes(entry.path)[:-100])
    else:
        store.delete(entry.path)
    run(config)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning == f"{store.uri(entry.path)} is missing or damaged; it is made again"
    assert all(table.equals(expected[part]) for part, table in contents(config).items())
    assert store.read_table(entry).num_rows == entry.rows


def test_a_flipped_bit_in_a_table_stops_the_next_stage(copied, expected):
    config = copied("generate")
    store = Store.of(config)
    entry = current(store).manifest("scored").files[0]
    data = bytearray(store.read_bytes(entry.path))
    data[len(data) // 2] ^= 1
    store.write_bytes(entry.path, bytes(data))
    with pytest.raises(RunError, match=rf"{entry.path} is damaged; delete it and run `multicsr run CONFIG`"):
        run(config)
    assert "curated" not in current(store)
    store.delete(entry.path)
    run(config)
    assert all(table.equals(expected[part]) for part, table in contents(config).items())


@pytest.mark.parametrize("damaged", [b"", b'{"key": "part', None])
def test_a_shard_with_a_damaged_mark_is_not_done(copied, expected, damaged):
    config = copied("curate")
    store = Store.of(config)
    folder = current(store).folder("scored")
    before = len(stage_runner.finished(store, folder))
    name = store.names(f"{folder}/done")[0]
    store.write_bytes(name, store.read_bytes(name)[:-5] if damaged is None else damaged)
    assert len(stage_runner.finished(store, folder)) == before - 1
    store.delete(f"{folder}/manifest.json")
    run(config)
    assert len(stage_runner.finished(store, folder)) == before
    assert all(table.equals(expected[part]) for part, table in contents(config).items())


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("state", STATES)
def test_a_damaged_file_is_never_trusted(states, all_expected, state, tmp_path):
    assert len(damage_and_survive(states, all_expected, state, tmp_path, range(4))) == 4


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("state", STATES)
def test_a_damaged_file_is_never_trusted_in_500_trials(states, all_expected, state, tmp_path):
    assert any(damage_and_survive(states, all_expected, state, tmp_path, range(4, 76)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("state", STATES)
def test_a_damaged_file_is_never_trusted_in_a_ray_session(states, all_expected, state, tmp_path):
    assert len(damage_and_survive(states, all_expected, state, tmp_path, range(100, 102))) == 2
