"""Training in the calling process, without Ray."""

from pathlib import Path

import pyarrow as pa
import torch

from multicsr.config import TrainConfig
from multicsr.observability.progress import Progress, SilentProgress
from multicsr.stages.evaluate import read_task
from multicsr.stages.train.checkpoint_folder import delete_checkpoints
from multicsr.stages.train.data.extra_rows import triplets_table
from multicsr.stages.train.data.index import digest_labelled, digest_rows, join_index
from multicsr.stages.train.data.source import from_table
from multicsr.stages.train.fingerprint import identity
from multicsr.stages.train.job import FitResult, TrainingJob
from multicsr.stages.train.loop import run_training
from multicsr.stages.train.mask_model.model import InsideEmbedder, MaskModel
from multicsr.stages.train.monitoring.dev_evaluation import InsideEvaluator
from multicsr.stages.train.objectives.load import check_objective, load_objective
from multicsr.stages.train.recipe import resolve_recipe
from multicsr.stages.train.services import TrainingServices
from multicsr.storage.store import Store


def fit(
    config: TrainConfig,
    triplets: pa.Table,
    *,
    seed: int,
    out: Path,
    progress: Progress | None = None,
    vectors: Store | None = None,
) -> FitResult:
    """Train an encoder in this process. If the process is killed, a call with the same arguments resumes.

    Args:
        config: the settings of the training.
        triplets: `rows.CURATED`, or any table with row_id, text, entailment, contradiction. Those of
            `config.extra_triplets` are added.
        seed: seed of the batches, the dropout and the head.
        out: see `TrainingJob`.
        progress: receives an update after every step.
        vectors: store that keeps P's vectors for other runs; None: they are not kept.

    Raises:
        ConfigError: a model or dev file cannot be used, or the triplets do not fill a batch.
        RunError: the table is broken, a loss or gradient is not finite, or the disk is full.
    """
    check_objective(config)
    config = resolve_recipe(config)
    parts = [digest_rows(triplets, config.objective)]
    if config.extra_triplets:
        labelled = triplets_table(config.extra_triplets)
        parts.append(digest_labelled(labelled, config.objective))
        columns = ["row_id", *load_objective(config.objective).sentences]
        tables = [triplets.select(columns), labelled.select(columns)]
        triplets = pa.concat_tables(tables, promote_options="default")
    index = join_index(parts)
    device = "cuda" if config.gpus_per_worker > 0 and torch.cuda.is_available() else "cpu"
    mask = config.mask
    job = TrainingJob(
        config=config,
        seed=seed,
        run=identity(config, index, seed),
        index=index,
        device=device,
        name=out.name,
        out=out,
        events=out / "tensorboard",
    )
    services = TrainingServices(
        source=from_table(triplets, index, config.objective),
        embedder=None if mask is None else lambda: InsideEmbedder(MaskModel(mask, device)),
        evaluator=None if config.dev is None else lambda: InsideEvaluator(config),
        chooser=None if config.dev is None else lambda: read_task(str(config.dev)),
        vectors=vectors,
    )
    result = run_training(job, services, progress or SilentProgress())
    delete_checkpoints(out)
    return result
