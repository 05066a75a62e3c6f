"""The runner of an ablation: every variant with every seed, measured, and compared over examples and seeds.

Every training takes the same number of optimizer steps, so that a larger corpus is not a longer training. The
checkpoint with the best `train.dev` figure is measured. Results are kept in `ablation/` of the store, a file
for each training and task, so that an interrupted ablation continues and several may run side by side.
"""

import hashlib
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from multicsr.config import Config, TrainConfig
from multicsr.errors import ConfigError
from multicsr.messages.extras import require_extra
from multicsr.observability.progress import Progress
from multicsr.pipeline.preflight import require_no_problems
from multicsr.stages.evaluate import (
    Candidate,
    FoundTasks,
    Measurement,
    ResultCache,
    find_tasks,
    measure_encoder,
    saved,
)
from multicsr.stages.evaluate.run import published, untrained
from multicsr.stages.train.fingerprint import deciding_files, deciding_settings
from multicsr.storage.lease import held
from multicsr.storage.manifest import fingerprint
from multicsr.storage.store import Store
from multicsr.tools.ablate.table import Row, table_of
from multicsr.tools.ablate.untrained import input_embeddings, whitened
from multicsr.tools.ablate.variants import COLUMNS, SEEDED, Method, Variant, variants

if TYPE_CHECKING:
    from rich.table import Table
    from sentence_transformers import SentenceTransformer

FOLDER = "ablation"
"""Folder of the results in the store."""


def ablate(
    config: Config,
    *,
    data: Sequence[str],
    seeds: int,
    progress: Progress,
    human: Path | None = None,
    stages: bool = True,
    baselines: bool = False,
) -> "Table":
    """Train every variant with every seed, and compare them with the published encoder.

    Args:
        config: settings of the full method; `train.steps` sets the length of every training.
        data: evaluation files or directories.
        seeds: number of trainings of each variant, with seeds config.seed, config.seed + 1, ...
        progress: reporter of the stages.
        human: TSV of human triplets (anchor, positive, negative); None: no variant has any.
        stages: add the variants without some of the stages.
        baselines: add the methods that are compared with MultiCSR.

    Returns:
        A table with a row for each variant and a column for the main metric of each task.

    Raises:
        ConfigError: `train.steps` is unset, a setting has no effect or takes stages away, the store is no
            local directory, the seeds are too large, or data or human triplets cannot be used.
        RunError: another ablation is training the same variant with the same seed.
    """
    require_extra("baselines" if baselines else "train", "an ablation")
    _check(config.train)
    if baselines and config.train.extra_triplets:
        raise ConfigError(
            "train.extra_triplets: baselines train on the generated triplets alone; leave it out, or give "
            "--human, which adds variants with human triplets"
        )
    store = Store.of(config)
    if store.directory is None:
        raise ConfigError("store: an ablation keeps its trainings in a local directory; give one")
    if config.seed + seeds > 2**63:
        raise ConfigError(f"seed: {config.seed} is too large for {seeds} seeds below 2^63; set a smaller one")
    found = find_tasks(data)
    require_no_problems(["train"], config)
    chosen = variants(config, human, stages=stages, baselines=baselines, progress=progress)
    runner = _Runner(config, store, store.directory / FOLDER, found, progress)
    return table_of([runner.row(variant, seeds) for variant in chosen])


def _check(train: TrainConfig) -> None:
    """Raise if the trainings would not follow the settings."""
    if train.steps is None:
        raise ConfigError("train.steps is unset: an ablation trains every variant for the same number")
    if train.workers != 1 or train.min_workers is not None or train.nodes:
        raise ConfigError(
            "train.workers, min_workers and nodes have no effect: an ablation trains in this process, with "
            "the same result; set train.workers=1 and leave out the others"
        )


@dataclass(frozen=True)
class _Runner:
    config: Config
    store: Store
    folder: Path
    found: FoundTasks
    progress: Progress

    def row(self, variant: Variant, seeds: int) -> Row:
        """Return the main results of all trainings of a variant."""
        first = self.config.seed
        numbers = range(first, first + seeds) if variant.method in SEEDED else [first]
        results = [self._measured(variant, seed) for seed in numbers]
        return Row(variant.name, variant.num_triplets(), results)

    def _measured(self, variant: Variant, seed: int) -> list[Measurement]:
        """Train and measure, or take kept results; return those in the main metric of each task."""
        key = _fingerprint(variant, seed)
        out = self.folder / key / "training"
        with ExitStack() as held_for_training:

            def load() -> "SentenceTransformer":
                place = self.store.child(f"{FOLDER}/{key}")
                held_for_training.enter_context(
                    held(place, "an ablation", self.config.lease_s, self.progress)
                )
                held_for_training.callback(shutil.rmtree, out, ignore_errors=True)
                return _made(variant, seed, out, self.store, self.progress)

            label = f"{variant.name}, seed {seed}" if variant.method in SEEDED else variant.name
            result = measure_encoder(
                Candidate(label, load, lambda: key),
                self.found.tasks,
                self.config.evaluate.batch_size,
                self.progress,
                ResultCache(self.folder),
            )
        return [*{each.score.task: each for each in reversed(result.measurements)}.values()][::-1]


def _made(variant: Variant, seed: int, out: Path, store: Store, progress: Progress) -> "SentenceTransformer":
    """Return the encoder of a variant."""
    train = variant.train
    match variant.method:
        case Method.PUBLISHED:
            return published(train).load()
        case Method.UNTRAINED:
            return untrained(train).load()
        case Method.INPUT_EMBEDDINGS:
            return input_embeddings(train)
        case Method.WHITENING:
            return whitened(train, variant.triplets["text"].to_pylist())
        case Method.RANKING_LOSS | Method.GIST_LOSS:
            from multicsr.tools.ablate.library_losses import train_by_library

            return train_by_library(train, variant.method, variant.triplets, seed, out)
        case Method.MULTICSR:
            from multicsr.stages.train.fit import fit

            result = fit(train, variant.triplets, seed=seed, out=out, progress=progress, vectors=store)
            model = saved(
                str(result.model_dir), prompt=train.prompt, trust_remote_code=train.trust_remote_code
            )
            return model.load()


def _fingerprint(variant: Variant, seed: int) -> str:
    """Return a hash of everything that decides an encoder, by content: rows, models, dev file, settings."""
    digest = hashlib.blake2b(digest_size=16)
    for name in COLUMNS:
        for text in variant.triplets[name].to_pylist():
            digest.update(text.encode() + b"\0")
    return fingerprint(
        {
            "method": str(variant.method),
            "train": deciding_settings(variant.train),
            "files": deciding_files(variant.train),
            "seed": seed if variant.method in SEEDED else None,
            "triplets": digest.hexdigest(),
        }
    )
