"""Evaluation stage of a run: its encoder after training and, as a baseline, before training."""

from typing import TYPE_CHECKING

from pydantic import JsonValue, TypeAdapter

from multicsr.artifacts import ENCODER
from multicsr.config import Config, TrainConfig
from multicsr.errors import ConfigError
from multicsr.execution.materialise import Artifact, materialise
from multicsr.models.resolve import identify_weights
from multicsr.observability.progress import Progress
from multicsr.stages.evaluate.encoders import Candidate, Evaluation, measure_models, saved
from multicsr.stages.evaluate.tasks import FoundTasks, find_tasks
from multicsr.storage.collected import unused
from multicsr.storage.manifest import Contents, Manifest
from multicsr.storage.versions import Snapshot

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

EVALUATION = "evaluation.json"
"""Name of the record in the artifact `evaluation`."""
_ARTIFACT = "evaluation"
_evaluation = TypeAdapter(Evaluation)


def evaluate_run(
    config: Config, snapshot: Snapshot, progress: Progress, found: FoundTasks | None = None
) -> Manifest:
    """Measure the encoder of a run and write an artifact `evaluation`, or reuse an existing one.

    Args:
        config: the configuration of the run.
        snapshot: artifacts of the version; `model` is measured.
        progress: receives one stage per encoder.
        found: the tasks of `evaluate.data`; they are read if None.

    Returns:
        The manifest of the artifact.

    Raises:
        ConfigError: `evaluate.data` is empty or unusable.
        RunError: no encoder was trained in this store.
    """
    if not config.evaluate.data:
        raise ConfigError("evaluate.data is empty: name TSV files, or directories of them")
    model = snapshot.manifest("model")
    tasks = found or find_tasks(config.evaluate.data)
    settings = unused(snapshot.store, _settings(config, model, tasks))
    artifact = Artifact(
        snapshot.store, "evaluate", _ARTIFACT, config.name, settings, unit=None, summarise=None
    )
    return materialise(artifact, progress, lambda: _measured(config, snapshot, artifact, tasks, progress))


def _measured(
    config: Config, snapshot: Snapshot, artifact: Artifact, tasks: FoundTasks, progress: Progress
) -> Contents:
    """Measure the encoders, write the record, and return the contents of the artifact."""
    store, model = snapshot.store, snapshot.manifest("model")
    with store.as_directory(f"{snapshot.folder('model')}/{ENCODER}", model.files) as path:
        trained = saved(str(path), "after training")
        candidates = [untrained(config.train), trained] if config.evaluate.baseline else [trained]
        evaluation = measure_models(candidates, tasks, config.evaluate.batch_size, progress)
    return Contents(
        rows_digest=model.rows_digest,
        files=[store.write_json(f"{artifact.folder}/{EVALUATION}", evaluation)],
        counters={score.task: score.value for score in evaluation.encoders[-1].scores},
    )


def read_evaluation(snapshot: Snapshot) -> Evaluation | None:
    """Return the evaluation of a version; None if it has none.

    Raises:
        RunError: the evaluation is damaged.
    """
    if _ARTIFACT not in snapshot:
        return None
    name = f"{snapshot.folder(_ARTIFACT)}/{EVALUATION}"
    return snapshot.store.read_json(name, _evaluation, "; delete it and run `multicsr run CONFIG` again")


def _settings(config: Config, model: Manifest, found: FoundTasks) -> dict[str, JsonValue]:
    encoder, has_baseline = config.train.encoder, config.evaluate.baseline
    return {
        "model": model.fingerprint,
        "baseline": identify_weights(encoder, "train.encoder") if has_baseline else None,
        "tasks": {**found.digests},
    }


def untrained(config: TrainConfig) -> Candidate:
    """Return a candidate for encoder G before training, with the layers and the pooling of the training."""

    def load() -> "SentenceTransformer":
        from multicsr.models.encoder import load_encoder

        return load_encoder(
            config.encoder, pooling=config.pooling, layers=config.layers, max_length=config.max_length
        )

    return Candidate("before training", load)
