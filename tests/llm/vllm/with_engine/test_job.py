"""The generate job on Ray with engine actors: the same rows from any number of actors, whoever dies."""

import contextlib
import threading
import time
from pathlib import Path

import psutil
import pytest

from multicsr.config import Config
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from tests.llm.vllm.with_engine.conftest import read_premises

ROWS = 800


def make_config(folder: Path, name: str, actors: int) -> Config:
    return Config.model_validate(
        {
            "name": name,
            "store": str(folder / name),
            "input": {"paths": [str(folder / "sentences.txt")]},
            "llm": {"engine": "vllm", "vllm": {"kv_cache_gib": 0.25, "max_model_len": 256}},
            "generate": {
                "rows_per_shard": 100,
                "batch_size": 32,
                "actors": actors,
                "max_new_tokens": 16,
                "max_rejected": 0.9,
            },
        }
    )


def published(config: Config) -> tuple[list[dict], list[dict], dict[str, float]]:
    """(Scored rows, rejects, counters), in the order of the files."""
    store = Store.open(config.store)
    manifest = current(store).manifest("scored")
    rows = [row for table in iter_tables(store, manifest) for row in table.to_pylist()]
    rejects = [row for table in iter_rejects(store, manifest) for row in table.to_pylist()]
    assert len(rows) + len(rejects) == manifest.rows_in
    return rows, rejects, manifest.counters


def processes(title: str) -> list[psutil.Process]:
    """Those that this test session started, directly or through Ray, under such a title."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline() and process.cmdline()[0].startswith(title):
                found.append(process)
    return found


def kill_midway(config: Config, titles: list[str], orphans: list[psutil.Process], killed: list[str]) -> None:
    """Kill -9 one process of each title, each after another shard has been committed; note its children."""
    cache = Path(config.store) / "llm_cache"
    for number, title in enumerate(titles, start=1):
        while len(list(cache.rglob("*.parquet"))) < number:
            time.sleep(0.2)
        while not (found := processes(title)):
            time.sleep(0.2)
        orphans += found[0].children(recursive=True)
        found[0].kill()
        killed.append(title)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, ray_cluster):
    """(Folder with the sentences, what one actor that nobody disturbs publishes)."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "sentences.txt").write_text("\n".join(read_premises(ROWS)) + "\n", encoding="utf-8")
    config = make_config(folder, "one", actors=1)
    full_run.run(config, SilentProgress(), until="generate")
    return folder, published(config)


def test_one_actor_writes_every_row_and_states_how_the_engine_did(undisturbed):
    _, (rows, rejects, counters) = undisturbed
    assert len(rows) + len(rejects) > ROWS * 0.95  # some sentences of the demo are too short or repeat
    assert not [row for row in rejects if row["reason"] == "engine error"]
    assert counters["out_of_step"] == 0
    assert counters["preemptions"] == 0
    assert counters["prefix_queries"] > counters["prefix_hits"]
    assert counters["generated_tokens"] > 10 * len(rows)


@pytest.mark.slow  # three more engines
def test_two_actors_write_the_same_though_an_actor_and_an_engine_are_killed(undisturbed):
    folder, (rows, rejects, _) = undisturbed
    config = make_config(folder, "two", actors=2)
    orphans: list[psutil.Process] = []
    killed: list[str] = []
    titles = ["ray::MapWorker", "VLLM::EngineCore"]
    threading.Thread(target=kill_midway, args=(config, titles, orphans, killed), daemon=True).start()
    full_run.run(config, SilentProgress(), until="generate")
    assert killed == titles
    assert published(config)[:2] == (rows, rejects)
    assert len(orphans) >= 2
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert not alive
