"""Evaluation stage of a run: its encoder after training and, as a baseline, before training."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import JsonValue, TypeAdapter

from multicsr.artifacts import ENCODER, FileRecord
from multicsr.config import Config, TrainConfig
from multicsr.errors import ConfigError
from multicsr.execution.materialise import Artifact, materialise
from multicsr.models.resolve import identify_weights
from multicsr.observability.progress import Progress
from multicsr.stages.evaluate.cache import METHOD
from multicsr.stages.evaluate.encoders import Candidate, Evaluation, measure_models, saved
from multicsr.stages.evaluate.held_out import (
    HeldOut,
    choosing_share,
    held_out_share,
    read_held_out,
    rows_trained_on,
)
from multicsr.stages.evaluate.leaks import LEAKS, labelled_texts, look_for_leaks
from multicsr.stages.evaluate.neighbours import (
    MOST_TEXTS,
    NEIGHBOURS,
    NUM_SENTENCES,
    Neighbour,
    nearest,
    side_by_side,
)
from multicsr.stages.evaluate.records import ARTIFACT, read_record
from multicsr.stages.evaluate.task import Encode
from multicsr.stages.evaluate.tasks import FoundTasks, find_tasks
from multicsr.stages.evaluate.thresholds import TaskThresholds, ThresholdsFile, measure_thresholds
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.storage.collected import unused
from multicsr.storage.manifest import Contents, Manifest
from multicsr.storage.versions import Snapshot

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

EVALUATION = "evaluation.json"
"""Name of the record in the artifact `evaluation`."""
THRESHOLDS = "thresholds.json"
"""Name of the record of cosine thresholds in the artifact `evaluation`; older artifacts have none."""
_BEFORE = "before training"
"""Label of the encoder that training started from, if it is a variant of the published one."""
_evaluation, _thresholds = TypeAdapter(Evaluation), TypeAdapter(ThresholdsFile)


def evaluate_run(
    config: Config,
    snapshot: Snapshot,
    progress: Progress,
    found: FoundTasks | None = None,
    known: Callable[[], KnownTexts | None] | None = None,
) -> Manifest:
    """Measure the encoder of a run and write an artifact `evaluation`, or reuse an existing one.

    Args:
        config: the configuration of the run.
        snapshot: artifacts of the version; `model` is measured.
        progress: receives one stage per encoder.
        found: the tasks of `evaluate.data`; they are read if None.
        known: returns the texts of the labelled sets, in which leaks are looked for; they are read if None.

    Returns:
        The manifest of the artifact.

    Raises:
        ConfigError: `evaluate.data` is unusable, or empty while no triplets are held out.
        RunError: no encoder was trained in this store.
    """
    model = snapshot.manifest("model")
    if not config.evaluate.data and not held_out_share(model):
        raise ConfigError(
            "evaluate.data is empty: name files with labels, or directories of them; or hold triplets out of "
            "the training with evaluate.held_out"
        )
    tasks = found or (
        find_tasks(config.evaluate.data, kinds=config.evaluate.kinds)
        if config.evaluate.data
        else FoundTasks([], {})
    )
    settings = _settings(config, model, tasks)
    if held_out_share(model):
        settings["held_out"] = snapshot.manifest("curated").fingerprint
    settings = unused(snapshot.store, settings)
    artifact = Artifact(
        snapshot.store, "evaluate", ARTIFACT, config.name, settings, unit=None, summarise=None
    )
    known = known or partial(labelled_texts, config)
    return materialise(
        artifact, progress, lambda: _measured(config, snapshot, artifact, tasks, known, progress)
    )


def _measured(
    config: Config,
    snapshot: Snapshot,
    artifact: Artifact,
    tasks: FoundTasks,
    known: Callable[[], KnownTexts | None],
    progress: Progress,
) -> Contents:
    """Measure the encoders, write the records, and return the contents of the artifact."""
    store, model = snapshot.store, snapshot.manifest("model")
    held_out = None
    if share := held_out_share(model):
        held_out = read_held_out(store, snapshot.manifest("curated"), share, choosing_share(model))
        tasks = FoundTasks([*tasks.tasks, *held_out.tasks()], tasks.skipped)
    with store.as_directory(f"{snapshot.folder('model')}/{ENCODER}", model.files) as path:
        trained = saved(
            str(path),
            "after training",
            prompt=_prompt_of(model),
            trust_remote_code=config.train.trust_remote_code,
        )
        candidates = [*_baselines(config), trained]
        evaluation, records = _records(candidates, tasks, held_out, config.evaluate.batch_size, progress)
    if (rows := rows_trained_on(model)) in snapshot and (texts := known()) is not None:
        records[LEAKS] = look_for_leaks(store, snapshot.manifest(rows), model, texts)
    return Contents(
        rows_digest=model.rows_digest,
        files=[store.write_json(f"{artifact.folder}/{name}", record) for name, record in records.items()],
        counters={score.task: score.value for score in evaluation.encoders[-1].main_scores()},
    )


def _records(
    candidates: Sequence[Candidate],
    tasks: FoundTasks,
    held_out: HeldOut | None,
    batch_size: int,
    progress: Progress,
) -> tuple[Evaluation, dict[str, FileRecord]]:
    """Load each encoder once and take from its vectors all that the records hold.

    Args:
        candidates: the encoders; thresholds are those of the last one.
        tasks: all tasks, those on held-out triplets too, so that every text of a record is among theirs.
        held_out: the held-out triplets, in which neighbours are looked for.
        batch_size: texts in one forward pass.
        progress: receives one stage per encoder.

    Returns:
        The figures, and all records by their names.
    """
    thresholds: list[TaskThresholds] = []
    near: dict[str, list[list[Neighbour]]] = {}
    premises = held_out.premises[:NUM_SENTENCES] if held_out else []
    texts = held_out.texts()[:MOST_TEXTS] if held_out else []

    def look(label: str, encode: Encode) -> None:
        if label == candidates[-1].label:
            thresholds.extend(measure_thresholds(tasks.tasks, encode))
        if held_out is not None:
            near[label] = nearest(encode, premises, texts)

    evaluation = measure_models(candidates, tasks, batch_size, progress, look=look, since=_BEFORE)
    records: dict[str, FileRecord] = {EVALUATION: evaluation, THRESHOLDS: ThresholdsFile(tasks=thresholds)}
    if held_out is not None:
        records[NEIGHBOURS] = side_by_side(premises, near)
    return evaluation, records


def read_evaluation(snapshot: Snapshot) -> Evaluation | None:
    """Return the evaluation of a version; None if it has none.

    Raises:
        RunError: the evaluation is damaged or gone.
    """
    return read_record(snapshot, EVALUATION, _evaluation)


def read_thresholds(snapshot: Snapshot) -> list[TaskThresholds]:
    """Return the cosine thresholds of a version's encoder; none if they were not measured.

    Raises:
        RunError: the record is damaged or gone.
    """
    record = read_record(snapshot, THRESHOLDS, _thresholds)
    return record.tasks if record else []


def _prompt_of(model: Manifest) -> str | None:
    """Return the prompt that a model was trained with, which the configuration may no longer have."""
    training = model.settings.get("train")
    prompt = training.get("prompt") if isinstance(training, dict) else None
    return None if prompt is None else str(prompt)


def _settings(config: Config, model: Manifest, found: FoundTasks) -> dict[str, JsonValue]:
    encoder, has_baseline = config.train.encoder, config.evaluate.baseline
    return {
        "method": METHOD,
        "model": model.fingerprint,
        "baseline": identify_weights(encoder, "train.encoder") if has_baseline else None,
        "variant": [config.train.layers, config.train.pooling, config.train.prompt],
        "tasks": {**found.digests},
    }


def _baselines(config: Config) -> list[Candidate]:
    """Return the encoder as published and, where training started from a variant of it, that variant."""
    if not config.evaluate.baseline:
        return []
    return [published(config.train), *([untrained(config.train)] if is_variant(config.train) else [])]


def is_variant(config: TrainConfig) -> bool:
    """Return True if training starts from an encoder with other layers, pooling or prompt than published."""
    return (config.layers, config.pooling, config.prompt) != (None, None, None)


def published(config: TrainConfig) -> Candidate:
    """Return a candidate for encoder G as it was published, through its own modules."""
    return saved(
        config.encoder,
        "published",
        trust_remote_code=config.trust_remote_code,
        setting="train.encoder",
    )


def untrained(config: TrainConfig) -> Candidate:
    """Return a candidate for encoder G before training, with the training's layers, pooling and prompt."""

    def load() -> "SentenceTransformer":
        from sentence_transformers.util import get_device_name

        from multicsr.models.encoder import load_for_training
        from multicsr.models.published_encoder import with_prompt

        return with_prompt(load_for_training(config, adapters=False), config.prompt).to(get_device_name())

    return Candidate(_BEFORE, load)
