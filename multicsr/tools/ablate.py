"""Ablation: the value of each stage, from the same encoder trained with and without it, several seeds each.

The variants are those of MultiCSR Table 3 and, in addition, unsupervised SimCSE on the premises, human
triplets, and human and generated triplets together.
Every variant takes the same number of optimizer steps, so that a larger corpus is not a longer training.
The checkpoint with the best `train.dev` figure is measured.
"""

import hashlib
import logging
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pydantic import TypeAdapter

from multicsr.artifacts import FileRecord
from multicsr.config import Config, TrainConfig
from multicsr.errors import ConfigError, DamagedFileError
from multicsr.observability.progress import Progress
from multicsr.pipeline import full_run
from multicsr.stages.evaluate import Evaluation, TripletTask, evaluate_models, find_tasks, read_task, saved
from multicsr.stages.evaluate.run import untrained
from multicsr.stages.train.fingerprint import deciding_files, deciding_settings
from multicsr.storage.lease import held
from multicsr.storage.manifest import fingerprint, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current

if TYPE_CHECKING:
    from rich.table import Table

logger = logging.getLogger(__name__)

_FOLDER = "ablation"
_COLUMNS = ["row_id", "text", "entailment", "contradiction"]
_TRIPLET = pa.schema([(name, pa.string()) for name in _COLUMNS])


@dataclass(frozen=True)
class Variant:
    """Triplets of one origin, and the settings of the training on them."""

    name: str
    triplets: pa.Table
    train: TrainConfig


class AblatedModel(FileRecord):
    """One training of an ablation with its metrics, kept so that an interrupted ablation can continue."""

    variant: str
    """Name of the variant; another variant with the same rows and settings has the same metrics."""
    seed: int
    rows: int
    metrics: dict[str, float]


_trained = TypeAdapter(AblatedModel)


def ablate(config: Config, *, data: Sequence[str], human: Path, seeds: int, progress: Progress) -> "Table":
    """Generate with omega as configured and with 0, train every variant with every seed, and measure each.

    Args:
        config: settings of the full method; `train.steps` sets the length of every training.
        data: evaluation files or directories.
        human: TSV of human triplets (anchor, positive, negative).
        seeds: number of trainings of each variant, with seeds config.seed, config.seed + 1, ...
        progress: reporter of the stages.

    Returns:
        A table with a row for each variant and a column for each task: mean and standard deviation over
        seeds. The metrics of every training are in a file of their own, `ablation/KEY.json` of the store, so
        that ablations may run side by side.

    Raises:
        ConfigError: a stage is switched off already, `train.steps` is unset, the store is no local
            directory, the seeds are too large, or the human triplets are of the wrong kind.
        RunError: another ablation is training the same variant with the same seed.
    """
    if config.train.steps is None:
        raise ConfigError("train.steps is unset: an ablation trains every variant for the same number")
    if config.train.mask is None or config.generate.omega == 0:
        raise ConfigError("an ablation takes stages away: set train.mask and generate.omega of the full run")
    store, folder = Store.of(config), Store.of(config).directory
    if folder is None:
        raise ConfigError("store: an ablation keeps its trainings in a local directory; give one")
    if config.seed + seeds > 2**63:
        raise ConfigError(f"seed: {config.seed} is too large for {seeds} seeds below 2^63; set a smaller one")
    tasks = find_tasks(data).digests
    rows: list[tuple[Variant, list[AblatedModel]]] = []
    for variant in _variants(config, human, progress):
        rows.append((variant, []))
        for seed in range(config.seed, config.seed + seeds):
            key = _fingerprint(variant, seed, tasks)
            if (done := _read(store, key)) is None:
                with held(store.child(f"{_FOLDER}/{key}"), "an ablation", config.lease_s, progress):
                    done = _train(variant, seed, data, store, folder / _FOLDER / key / "training", progress)
                    store.write_json(_record(key), done)
            rows[-1][1].append(done)
    start = evaluate_models([untrained(config.train)], data, config.evaluate.batch_size, progress)
    return _table(_metrics(start), rows)


def _variants(config: Config, human: Path, progress: Progress) -> list[Variant]:
    plain = config.model_copy(
        update={
            "store": f"{config.store}/without-stage-1",
            "generate": config.generate.model_copy(update={"omega": 0.0}),
        }
    )
    raw = _rows(full_run.run(plain, progress, until="curate"), "scored")
    refined_store = full_run.run(config, progress, until="curate")
    refined, curated = _rows(refined_store, "scored"), _rows(refined_store, "curated")
    people = _human(human)
    masked = config.train
    unmasked = masked.model_copy(update={"mask": None})
    unsupervised = unmasked.model_copy(update={"objective": "simcse_unsup"})
    return [
        Variant("SimCSE, unsupervised, premises alone", refined, unsupervised),
        Variant("raw generations (no stage 1, 2, 3)", raw, unmasked),
        Variant("+ stage 1, contrastive generation", refined, unmasked),
        Variant("+ stage 2, self-curation", curated, unmasked),
        Variant("+ stage 3, mask = MultiCSR", curated, masked),
        Variant("human triplets, no mask", people, unmasked),
        Variant(
            "human triplets and MultiCSR's, mask (Appendix G)", pa.concat_tables([people, curated]), masked
        ),
    ]


def _rows(store: Store, artifact: str) -> pa.Table:
    return pa.concat_tables(iter_tables(store, current(store).manifest(artifact), _COLUMNS)).cast(_TRIPLET)


def _human(path: Path) -> pa.Table:
    task = read_task(path)
    if not isinstance(task, TripletTask):
        raise ConfigError(f"--human: {path} needs the columns anchor, positive, negative")
    row_ids = [f"{path.name}:{index}" for index in range(len(task.anchors))]
    return pa.table([row_ids, *task.columns()], schema=_TRIPLET)


def _fingerprint(variant: Variant, seed: int, tasks: Mapping[str, str]) -> str:
    """Return a hash of everything that the metrics depend on, by content: rows, models, dev file, tasks."""
    digest = hashlib.blake2b(digest_size=16)
    for name in _COLUMNS:
        for text in variant.triplets[name].to_pylist():
            digest.update(text.encode() + b"\0")
    return fingerprint(
        {
            "train": deciding_settings(variant.train),
            "files": deciding_files(variant.train),
            "seed": seed,
            "tasks": dict(tasks),
            "triplets": digest.hexdigest(),
        }
    )


def _train(
    variant: Variant, seed: int, data: Sequence[str], store: Store, out: Path, progress: Progress
) -> AblatedModel:
    from multicsr.stages.train.fit import fit

    result = fit(variant.train, variant.triplets, seed=seed, out=out, progress=progress, vectors=store)
    model = saved(str(result.model_dir), f"{variant.name}, seed {seed}")
    metrics = _metrics(evaluate_models([model], data, 128, progress))
    shutil.rmtree(result.model_dir)
    return AblatedModel(variant=variant.name, seed=seed, rows=variant.triplets.num_rows, metrics=metrics)


def _metrics(evaluation: Evaluation) -> dict[str, float]:
    (encoder,) = evaluation.encoders
    return {score.task: score.value for score in encoder.scores}


def _record(key: str) -> str:
    """Return the name of the file with the metrics of a training."""
    return f"{_FOLDER}/{key}.json"


def _read(store: Store, key: str) -> AblatedModel | None:
    """Return the record of an earlier ablation; None if the variant has to be trained."""
    if not store.exists(_record(key)):
        return None
    try:
        return store.read_json(_record(key), _trained, "")
    except DamagedFileError as error:
        logger.warning("%s; this variant is trained again", error)
        return None


def _table(start: dict[str, float], rows: Sequence[tuple[Variant, Sequence[AblatedModel]]]) -> "Table":
    from rich.table import Table

    table = Table(title="Ablation: mean and standard deviation over seeds", title_justify="left")
    table.add_column("trained on")
    table.add_column("triplets", justify="right")
    for task in start:
        table.add_column(task, justify="right")
    table.add_row("(before training)", "", *(f"{value:.2f}" for value in start.values()))
    for variant, runs in rows:
        cells = [_mean_and_spread([run.metrics[task] for run in runs]) for task in start]
        table.add_row(variant.name, f"{variant.triplets.num_rows:,}", *cells)
    return table


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.2f} ± {spread:.2f}"
