"""The evaluation stage of a run: its encoder after training and, as a baseline, before."""

import time
from typing import TYPE_CHECKING

from pydantic import JsonValue, TypeAdapter

from multicsr.config import Config, TrainConfig
from multicsr.errors import ConfigError
from multicsr.evaluate.evaluation import Candidate, Evaluation, evaluate_models, saved
from multicsr.evaluate.tasks import find_tasks
from multicsr.manifest import Manifest, fingerprint, new_manifest, write_manifest
from multicsr.progress import Progress
from multicsr.ray_stage import reusable
from multicsr.store import FileEntry, checksum
from multicsr.train.log import ENCODER
from multicsr.versions import Rooms

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

EVALUATION = "evaluation.json"
"""In the room `evaluation`."""
_ROOM = "evaluation"
_evaluation = TypeAdapter(Evaluation)


def evaluate_run(config: Config, rooms: Rooms, progress: Progress) -> Manifest:
    """Measure a run's encoder; returns the manifest of a room `evaluation`.

    Raises:
        ConfigError: `evaluate.data` is empty or unusable.
        RunError: no encoder was trained in this store.
    """
    if not config.evaluate.data:
        raise ConfigError("evaluate.data is empty: name TSV files, or directories of them")
    started, store, model = time.monotonic(), rooms.store, rooms.manifest("model")
    settings = _settings(config, model)
    key = fingerprint(settings)
    if made := reusable(store, _ROOM, key):
        progress.start("evaluate", None)
        progress.finish("reused")
        return made
    with store.as_directory(f"{rooms.folder('model')}/{ENCODER}") as path:
        trained = saved(str(path), "after training")
        candidates = [untrained(config.train), trained] if config.evaluate.baseline else [trained]
        evaluation = evaluate_models(candidates, config.evaluate.data, config.evaluate.batch_size, progress)
    name, text = f"{_ROOM}/{key}/{EVALUATION}", evaluation.model_dump_json(indent=2) + "\n"
    store.write_text(name, text)
    manifest = new_manifest(
        "evaluate",
        config.name,
        settings,
        time.monotonic() - started,
        rows_digest=model.rows_digest,
        files=[FileEntry(path=name, rows=0, bytes=len(text.encode()), checksum=checksum(text.encode()))],
        counters={score.task: score.value for score in evaluation.encoders[-1].scores},
    )
    write_manifest(store, _ROOM, manifest)
    return manifest


def read_evaluation(rooms: Rooms) -> Evaluation | None:
    """The figures of a version; None where there are none. Raises RunError when they are damaged."""
    if _ROOM not in rooms:
        return None
    name = f"{rooms.folder(_ROOM)}/{EVALUATION}"
    return rooms.store.read_json(name, _evaluation, "; delete it and run `multicsr run CONFIG` again")


def _settings(config: Config, model: Manifest) -> dict[str, JsonValue]:
    tasks = find_tasks(config.evaluate.data).tasks
    return {
        "model": model.fingerprint,
        "baseline": config.evaluate.baseline,
        "tasks": {task.name: checksum(repr(task).encode()) for task in tasks},
    }


def untrained(config: TrainConfig) -> Candidate:
    """Encoder G as training finds it: same layers, same pooling."""

    def load() -> "SentenceTransformer":
        from multicsr.train.encoder import load_encoder

        return load_encoder(
            config.encoder, pooling=config.pooling, layers=config.layers, max_length=config.max_length
        )

    return Candidate("before training", load)
