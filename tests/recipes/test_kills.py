"""Every recipe, killed halfway and started again, gives the rows and the encoder of an undisturbed run.

A run is a process with a Ray of its own; all of its processes are killed by SIGKILL, once about half the
shards of the LLM are in the store, or while it trains. `make test-slow` runs this, a quarter of an hour a
recipe.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from multicsr.artifacts import ENCODER
from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.recipes import load_recipe, recipe_names
from multicsr.stages.train.checkpoint_folder import PATTERN
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools.audit import audit
from tests.recipes.test_recipes import toy
from tests.support.jobs_here import write_inputs
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROWS_PER_SHARD, SHARDS = 5, 12
STEPS = 60
RUN_S = 600
"""Seconds after which a run counts as stuck."""


def shards_written(config: Config) -> int:
    """Files of the LLM cache: one for each shard that the fake LLM has written."""
    return len([*Path(config.store, "llm_cache").glob("*/*/*/*.parquet")])


def steps_kept(config: Config) -> int:
    """Step of the newest checkpoint."""
    names = [path.stem for path in Path(config.store).rglob(PATTERN)]
    return max((int(name.rpartition("-")[2]) for name in names), default=0)


MOMENTS: dict[str, Callable[[Config], bool]] = {
    "generate": lambda config: shards_written(config) >= SHARDS // 2,
    "train": lambda config: steps_kept(config) >= STEPS // 4,
}
"""Stage -> whether it is halfway."""
CASES = [
    (name, stage)
    for name in recipe_names()
    for stage in MOMENTS
    if stage == "train" or load_recipe(name).config().train.rows == "curated"
]


def start(config: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with config.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.recipe_side", str(config)],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )


def finish(process: subprocess.Popen[bytes], config: Path) -> None:
    try:
        process.wait(timeout=RUN_S)
    finally:
        kill(process)
    assert process.returncode == 0, config.with_suffix(".log").read_text()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a run and the processes that it started, if it is still there."""
    with suppress(psutil.NoSuchProcess):
        run = psutil.Process(process.pid)
        for victim in [run, *run.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
    process.wait()


def published(path: Path) -> tuple[dict[str, str], list[dict[str, object]], dict[str, bytes]]:
    """Fingerprints, rows and rejects in the order of their files, and the bytes of the parameters."""
    snapshot = current(Store.of(load_config(path)))
    assert audit(snapshot) == []
    rows = [
        row
        for artifact in ("sentences", "scored", "curated")
        if artifact in snapshot
        for reader in (iter_tables, iter_rejects)
        for table in reader(snapshot.store, snapshot.manifest(artifact))
        for row in table.to_pylist()
    ]
    files = snapshot.manifest("model").files
    with snapshot.store.as_directory(f"{snapshot.folder('model')}/{ENCODER}", files) as folder:
        parameters = {path.name: path.read_bytes() for path in Path(folder).rglob("*.safetensors")}
    assert rows
    assert parameters
    return dict(snapshot.fingerprints), rows, parameters


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(inputs) -> Callable[[str], tuple[object, ...]]:
    """What a recipe publishes if nothing disturbs it."""
    known: dict[str, tuple[object, ...]] = {}

    def result(name: str) -> tuple[object, ...]:
        if name not in known:
            path = write_config(name, inputs, "undisturbed")
            finish(start(path), path)
            known[name] = published(path)
        return known[name]

    return result


def write_config(name: str, inputs: Path, run: str) -> Path:
    """Write the small recipe with a store of its own, small shards, and a checkpoint after every step."""
    config = toy(name, inputs, inputs / f"{name}-{run}")
    tree = config.model_dump(mode="json", exclude_unset=True)
    tree["lease_s"] = 1
    tree["train"] |= {"steps": STEPS, "checkpoint_every_s": 0}
    if "generate" in tree:
        tree["generate"] |= {"rows_per_shard": ROWS_PER_SHARD, "actors": 1}
    path = inputs / f"{name}-{run}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize(("name", "stage"), CASES, ids=["-".join(case) for case in CASES])
def test_a_recipe_that_is_killed_halfway_gives_what_an_undisturbed_one_does(name, stage, inputs, undisturbed):
    expected = undisturbed(name)
    path = write_config(name, inputs, stage)
    config, process, deadline = load_config(path), start(path), time.monotonic() + RUN_S
    try:
        while not MOMENTS[stage](config) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        kill(process)
    assert process.returncode < 0, path.with_suffix(".log").read_text()
    assert stage == "train" or shards_written(config) < SHARDS, "the LLM had written all"
    assert stage == "generate" or steps_kept(config) < STEPS, "the training was over"
    process = start(path)
    finish(process, path)
    assert published(path) == expected
