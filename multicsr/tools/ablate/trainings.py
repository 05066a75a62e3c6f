"""Trainings by fingerprint: a variant with every seed, measured, or its results of an earlier call.

Results lie in a folder of the store, a file for each training and task. What was trained and measured before
is not done again, whichever command asked for it.
"""

import hashlib
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from multicsr.config import Config, TrainConfig
from multicsr.errors import ConfigError
from multicsr.observability.progress import Progress
from multicsr.stages.evaluate import Candidate, FoundTasks, Measurement, ResultCache, measure_encoder, saved
from multicsr.stages.evaluate.run import published, untrained
from multicsr.stages.train.fingerprint import deciding_files, deciding_settings
from multicsr.storage.lease import held
from multicsr.storage.manifest import fingerprint
from multicsr.storage.store import Store
from multicsr.tools.ablate.table import Row
from multicsr.tools.ablate.untrained import input_embeddings, whitened
from multicsr.tools.ablate.variants import COLUMNS, Variant
from multicsr.tools.methods import SEEDED, Method

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FOLDER = "ablation"
"""Folder of the results in the store."""


@dataclass(frozen=True)
class VariantRunner:
    """Runner of the trainings of all variants of a table."""

    config: Config
    """Settings of the first seed, the lease and the batch of the evaluation."""
    store: Store
    folder: Path
    """Folder of the results."""
    found: FoundTasks
    progress: Progress
    holder: str = "an ablation"
    """Description of the command, for the messages of others that wait for its trainings."""

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
                held_for_training.enter_context(held(place, self.holder, self.config.lease_s, self.progress))
                held_for_training.callback(shutil.rmtree, out, ignore_errors=True)
                model = _made(variant, seed, out, self.store, self.progress)
                # A training is a stage of its own; the sentences that follow are none of its steps.
                self.progress.start("evaluate", None, "sentences")
                return model

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


def require_seeds(first: int, count: int) -> None:
    """Raise ConfigError if the last of some seeds, from the first one on, is too large."""
    if first + count > 2**63:
        raise ConfigError(f"seed: {first} is too large for {count} seeds below 2^63; set a smaller one")


def require_one_process(train: TrainConfig) -> None:
    """Raise ConfigError if settings of several workers would have no effect on the trainings."""
    if train.workers != 1 or train.min_workers is not None or train.nodes:
        raise ConfigError(
            "train.workers, min_workers and nodes have no effect: every row is trained in this process, with "
            "the same result; set train.workers=1 and leave out the others"
        )
