"""Real training under kill -9: 300 steps on real triplets, two workers, three Ray nodes.

`make test-slow` runs this; some twenty minutes on two cores.
"""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from multicsr.artifacts import Step, read_log
from multicsr.config import Config
from multicsr.models.encoder import load_encoder
from multicsr.observability.progress import SilentProgress
from multicsr.stages.evaluate import read_task
from multicsr.stages.train.trainer import train
from multicsr.storage.manifest import Manifest
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from tests.stages.train.test_trainer import publish_curated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 300


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """A head and two nodes that can each hold both workers."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(2):
        cluster.add_node(num_cpus=3, object_store_memory=128 * 2**20)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def small_minilm(tmp_path_factory) -> Path:
    """The first layer of MiniLM, as P: so that two cores are enough for training and scorers."""
    path = tmp_path_factory.mktemp("P") / "model"
    load_encoder("all-MiniLM-L6-v2", pooling="mean", layers=1).save(str(path))
    return path


@pytest.fixture(scope="module")
def make_config(tmp_path_factory, shared_data, small_minilm):
    """Configurations of one training, each with a store of its own."""
    task = read_task(shared_data / "triplets" / "human_nli_triplets_en.tsv.gz")
    names = ("text", "entailment", "contradiction")
    rows = pa.table({name: column[:4800] for name, column in zip(names, task.columns(), strict=True)})

    def make(name: str, **settings: object) -> Config:
        store = Store.open(str(tmp_path_factory.mktemp(name) / "store"))
        publish_curated(store, rows, parts=4)
        training = {
            "encoder": "all-MiniLM-L6-v2",
            "layers": 1,
            "pooling": "mean",
            "mlp_head": False,
            "mask": {"model": str(small_minilm), "sigma": 0.8},
            "max_length": 20,
            "steps": STEPS,
            "learning_rate": 1e-3,
            "global_batch": 16,
            "micro_batch": 4,
            "dev": str(shared_data / "sts" / "stsb_dev.tsv.gz"),
            "evaluate_every": 100,
            # Adapters alone: otherwise most of a step goes into 12 million word vectors.
            "lora": {"rank": 8, "dropout": 0.1},
            "workers": 2,
            "checkpoint_every_s": 5,
        }
        tree = {"name": "kills", "store": store.uri(), "input": {"paths": ["none"]}}
        return Config.model_validate({**tree, "train": training | settings})

    return make


def run(config: Config) -> Manifest:
    return train(config, current(Store.of(config)), SilentProgress())


def weights(config: Config, model: Manifest) -> dict[str, torch.Tensor]:
    return load_file(Path(config.store, "model", model.fingerprint, "encoder", "model.safetensors"))


@pytest.fixture(scope="module")
def undisturbed(cluster, make_config) -> tuple[dict[str, torch.Tensor], float]:
    """Parameters and dev figure of a run that nobody disturbed."""
    config = make_config("undisturbed")
    model = run(config)
    return weights(config, model), model.counters["best_dev"]


def done_steps(store: Path) -> int:
    """Of the training under way; 0 when there is none."""
    for log in store.glob("training/*/train.jsonl"):
        with suppress(FileNotFoundError):  # the training came to its end
            return max((line.step for line in read_log(log) if isinstance(line, Step)), default=0)
    return 0


def ray_processes(title: str) -> list[psutil.Process]:
    """Processes below this one whose title begins like that."""
    below = psutil.Process().children(recursive=True)
    alive = [process for process in below if process.status() != psutil.STATUS_ZOMBIE]
    return [process for process in alive if " ".join(process.cmdline()).startswith(title)]


def victim(kind: str) -> psutil.Process:
    if kind == "scorer":
        return random.choice(ray_processes("ray::_Scorer"))
    worker = random.choice(ray_processes("ray::RayTrainWorker"))
    return worker if kind == "worker" else worker.parent()  # a node's raylet


def kill_at(step: int, kind: str, store: Path, is_over: threading.Event, pauses_s: list[float]) -> None:
    """kill -9 once so many steps are done; then tell the longest pause between steps up to the last one.

    The workers of a killed node live on for a second or so, and their last steps are no end of the pause.
    """
    while done_steps(store) < step:
        if is_over.wait(0.05):
            return
    process = victim(kind)
    assert kind != "node" or "raylet" in process.name()
    os.kill(process.pid, signal.SIGKILL)
    last_s, last, pause_s = time.monotonic(), done_steps(store), 0.0
    while last < STEPS and not is_over.wait(0.02):
        if (done := done_steps(store)) > last:
            pause_s = max(pause_s, time.monotonic() - last_s)
            last_s = time.monotonic()
        last = done or last  # the log is cut back to the checkpoint
    pauses_s.append(pause_s)


def test_two_workers_end_where_one_does(cluster, make_config):
    """All parameters in training, dropout on: whole micro-batches on every worker make it the same."""
    found = []
    for workers in (1, 2):
        config = make_config(f"workers{workers}", workers=workers, lora=None, learning_rate=1e-4)
        found.append(run(config).counters)
    one, two = found
    sys.stdout.write(f"\nbest STS-B dev: {one['best_dev']:.4f} on one worker, {two['best_dev']:.4f} on two\n")
    assert one["steps"] == two["steps"] == STEPS
    assert (one["workers"], two["workers"]) == (1, 2)
    assert one["best_dev"] > one["dev_before"] + 1
    assert one["best_dev"] == pytest.approx(two["best_dev"], abs=0.1)


@pytest.mark.parametrize(
    ("kind", "again"), [(kind, again) for again in range(4) for kind in ("worker", "scorer", "node")]
)
def test_a_killed_run_ends_with_the_same_parameters(cluster, make_config, undisturbed, kind, again):
    config = make_config(f"{kind}{again}")
    step = random.Random(f"{kind}{again}").randrange(20, STEPS - 40)
    is_over, pauses_s = threading.Event(), list[float]()
    killer = threading.Thread(target=kill_at, args=(step, kind, Path(config.store), is_over, pauses_s))
    killer.start()
    try:
        model = run(config)
    finally:
        is_over.set()
        killer.join()
    assert pauses_s, "nothing was killed"
    sys.stdout.write(f"\n{kind} killed after step {step}: a pause of {pauses_s[0]:.1f} s\n")
    if kind == "node":
        cluster.add_node(num_cpus=3, object_store_memory=128 * 2**20)
    ours, (theirs, best_dev) = weights(config, model), undisturbed
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert model.counters["best_dev"] == best_dev
