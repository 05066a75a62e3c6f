"""Training whose store is a bucket: killed on the way, it ends as an undisturbed one in a directory."""

import io
import os
import signal
import threading

import psutil
import pytest
import torch

from multicsr.artifacts import Step, parse_log
from multicsr.config import Config
from multicsr.models.encoder import load_encoder
from multicsr.observability.progress import SilentProgress
from multicsr.stages.evaluate import encoding, evaluate_run, read_task
from multicsr.stages.train.trainer import train
from multicsr.stages.train.workspace import Workspace
from multicsr.storage.manifest import write_manifest
from multicsr.storage.store import Store
from tests.stages.train.test_trainer import Recorder, changed, encoder_files, publish_curated
from tests.support.s3.server import Bucket
from tests.support.versions import manifest, publish

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(900), pytest.mark.cluster]
STEPS = 150


@pytest.fixture
def make_config(tiny_bert, dev_file):
    """The same training in any store."""
    training = {
        "encoder": str(tiny_bert),
        "mask": {"model": str(tiny_bert), "sigma": 0.9, "place": "worker"},
        "learning_rate": 1e-3,
        "global_batch": 16,
        "micro_batch": 8,
        "steps": STEPS,
        "dev": str(dev_file),
        "evaluate_every": 50,
        "workers": 2,
        "checkpoint_every_s": 0.2,
    }

    def make(store: str, **s3: object) -> Config:
        tree = {"name": "test", "store": store, "input": {"paths": ["none"]}, "train": training}
        tree |= {"s3": s3} if s3 else {}
        return Config.model_validate({**tree, "evaluate": {"data": [str(dev_file)], "baseline": False}})

    return make


def kill_after_a_checkpoint(bucket: Bucket, is_over: threading.Event, kept: list[Step]) -> None:
    """kill -9 a worker once a checkpoint is in the bucket, and tell the steps that are safe there."""
    while not (found := [key for key in bucket.keys("corpus/training") if key.endswith(".pt")]):
        if is_over.wait(0.05):
            return
    done = torch.load(io.BytesIO(bucket.get(found[0])), weights_only=True)["step"]
    log = parse_log(bucket.get(f"{found[0].rpartition('/')[0]}/train.jsonl").decode())
    kept += [line for line in log if isinstance(line, Step) and line.step <= done]
    workers = [
        process
        for process in psutil.Process().children(recursive=True)
        if " ".join(process.cmdline()).startswith("ray::RayTrainWorker")
    ]
    os.kill(workers[-1].pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_training_in_a_bucket_ends_as_an_undisturbed_one_in_a_directory(
    make_config, bucket, triplets, tmp_path
):
    on_disk = make_config(str(tmp_path / "store"))
    undisturbed = train(on_disk, publish_curated(Store.of(on_disk), triplets), SilentProgress())

    config = make_config(f"{bucket.uri}/corpus", endpoint=bucket.endpoint)
    store, progress, is_over, kept = Store.of(config), Recorder(), threading.Event(), list[Step]()
    snapshot = publish_curated(store, triplets)
    killer = threading.Thread(target=kill_after_a_checkpoint, args=(bucket, is_over, kept))
    killer.start()
    try:
        model = train(config, snapshot, progress)
    finally:
        is_over.set()
        killer.join()
    assert encoder_files(model) == encoder_files(undisturbed)
    assert progress.done == model.counters["steps"] == STEPS
    assert model.counters["best_dev"] == undisturbed.counters["best_dev"]

    log = parse_log(store.read_text(f"model/{model.fingerprint}/train.jsonl"))
    steps = [line for line in log if isinstance(line, Step)]
    assert 0 < len(kept) < STEPS
    assert steps[: len(kept)] == kept, "the same to the second: they were not done again"

    assert store.names("training") == []
    assert store.names(f"tensorboard/{model.fingerprint}")
    for rank in (0, 1):
        assert not Workspace(store, model.fingerprint, rank).path.exists()

    figures = evaluate_run(config, publish(store, "model", model), SilentProgress()).counters
    assert figures == {"dev": pytest.approx(model.counters["best_dev"])}


def test_a_model_in_a_bucket_is_trained_further(make_config, bucket, triplets, tiny_bert, dev_file, tmp_path):
    encoder = load_encoder(str(tiny_bert), pooling="cls")
    torch.manual_seed(0)
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    encoder.save(str(tmp_path / "encoder"))
    dev = read_task(dev_file).measure(encoding(encoder))[0].score.value

    config = make_config(f"{bucket.uri}/corpus", endpoint=bucket.endpoint)
    config, store = changed(config, workers=1, mask=None, steps=2), Store.of(config)
    files = store.upload("model/start/encoder", tmp_path / "encoder")
    write_manifest(store, "model", manifest("train", fingerprint="start", files=files))
    model = train(config, publish_curated(store, triplets), SilentProgress(), start="start")
    assert model.counters["dev_before"] == pytest.approx(dev, abs=1e-3)
