"""The variants of an ablation: what each is trained on, and by which method.

The stages are those of MultiCSR Table 3 and, in addition, unsupervised SimCSE on the premises, human
triplets, and human and generated triplets together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from multicsr.config import Config, TrainConfig
from multicsr.errors import ConfigError
from multicsr.observability.progress import Progress
from multicsr.pipeline import full_run
from multicsr.stages.evaluate import TripletTask, read_task
from multicsr.stages.evaluate.run import is_variant
from multicsr.stages.train.data.extra_rows import triplets_table
from multicsr.stages.train.objectives.load import load_objective
from multicsr.stages.train.recipe import resolved
from multicsr.storage.manifest import Manifest, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools.methods import Method

COLUMNS = ["row_id", "text", "entailment", "contradiction"]
TRIPLET = pa.schema([(name, pa.string()) for name in COLUMNS])
"""Columns of the triplets that a variant is trained on."""
NO_TRIPLETS = TRIPLET.empty_table()


@dataclass(frozen=True)
class Variant:
    """Triplets of one origin, and the method and the settings of the training on them."""

    name: str
    triplets: pa.Table
    train: TrainConfig
    method: Method = Method.MULTICSR

    def num_triplets(self) -> int:
        """Return the number of triplets, with those of `train.extra_triplets`, which only `fit` reads.

        Raises:
            ConfigError, RunError: see `triplets_table`.
        """
        labelled = self.train.extra_triplets if self.method == Method.MULTICSR else []
        return len(self.triplets) + (len(triplets_table(labelled)) if labelled else 0)


def variants(
    config: Config, human: Path | None, *, stages: bool, baselines: bool, progress: Progress
) -> list[Variant]:
    """Generate what the variants need, and return them. The first one is the published encoder.

    Args:
        config: settings of the full method.
        human: TSV of human triplets; None: no variant has any.
        stages: add the variants without some of the stages. The LLM then writes once more, with omega 0.
        baselines: add the methods that are compared with MultiCSR.
        progress: reporter of the stages.

    Raises:
        ConfigError: the objective reads scores or needs a mask that a variant lacks, a stage is switched off
            already, the recipe does not suit the encoder, or the human triplets are of the wrong kind.
    """
    if config.train.rows == "sentences":
        raise ConfigError("train.rows: an ablation compares trainings on triplets; set it to curated")
    if load_objective(config.train.objective).uses_scores:
        raise ConfigError(
            f"train.objective: {config.train.objective} trains on scores, which the variants of an ablation "
            "lack; set another one"
        )
    if load_objective(config.train.objective).needs_mask and (stages or human is not None):
        raise ConfigError(
            f"train.objective: {config.train.objective} needs a mask, which the variants without stage 3 and "
            "those of human triplets lack; set another one, or give --no-stages and leave out --human"
        )
    if stages and (config.train.mask is None or config.generate.omega == 0):
        raise ConfigError(
            "an ablation takes stages away: set train.mask and generate.omega of the full run, or give "
            "--no-stages"
        )
    # What is compared is the training, so no merge with the encoder as it was takes part.
    train = resolved(config).train.model_copy(update={"merge": [], "keep": []})
    labelled = human_triplets(human, "--human") if human else None
    raw = _without_stage_1(config, progress) if stages else None
    store = full_run.run(config, progress, until="curate")
    scored, curated = rows_of(store, "scored"), rows_of(store, "curated")
    simcse = Variant("SimCSE, unsupervised, premises alone", scored, _unsupervised(train))
    return [
        Variant("(the encoder as it was)", NO_TRIPLETS, train, Method.PUBLISHED),
        *([Variant("(before training)", NO_TRIPLETS, train, Method.UNTRAINED)] if is_variant(train) else []),
        *(_baselines(scored, curated, train) if baselines else []),
        *([simcse] if stages or baselines else []),
        *(_stages(raw, scored, curated, train) if raw is not None else []),
        Variant("MultiCSR, all stages", curated, train),
        *(_with_human(labelled, curated, train) if labelled is not None else []),
    ]


def _baselines(scored: pa.Table, curated: pa.Table, train: TrainConfig) -> Iterator[Variant]:
    yield Variant("mean of the input embeddings", NO_TRIPLETS, train, Method.INPUT_EMBEDDINGS)
    yield Variant("whitening, fitted on the premises", scored, train, Method.WHITENING)
    yield Variant("sentence-transformers, ranking loss", curated, train, Method.RANKING_LOSS)
    yield Variant("sentence-transformers, GIST loss", curated, train, Method.GIST_LOSS)


def _stages(raw: pa.Table, scored: pa.Table, curated: pa.Table, train: TrainConfig) -> Iterator[Variant]:
    yield Variant("raw generations (no stage 1, 2, 3)", raw, _unmasked(train))
    yield Variant("+ stage 1, contrastive generation", scored, _unmasked(train))
    yield Variant("+ stage 2, self-curation", curated, _unmasked(train))


def _with_human(labelled: pa.Table, curated: pa.Table, train: TrainConfig) -> Iterator[Variant]:
    yield Variant("human triplets, no mask", labelled, _unmasked(train))
    joined = pa.concat_tables([labelled, curated])
    yield Variant("human triplets and MultiCSR's (Appendix G)", joined, train)


def _unmasked(train: TrainConfig) -> TrainConfig:
    return train.model_copy(update={"mask": None})


def _unsupervised(train: TrainConfig) -> TrainConfig:
    """Return the settings of a training on premises alone; anchors of labelled triplets are none."""
    return _unmasked(train).model_copy(update={"objective": "simcse_unsup", "extra_triplets": []})


def _without_stage_1(config: Config, progress: Progress) -> pa.Table:
    plain = config.generate.model_copy(update={"omega": 0.0})
    other = config.model_copy(update={"store": f"{config.store}/without-stage-1", "generate": plain})
    return rows_of(full_run.run(other, progress, until="curate"), "scored")


def rows_of(store: Store, artifact: str) -> pa.Table:
    """Return the triplets of an artifact of the current version of a store."""
    return triplets_in(store, current(store).manifest(artifact))


def triplets_in(store: Store, artifact: Manifest) -> pa.Table:
    """Return the triplets of one version of an artifact."""
    return pa.concat_tables(iter_tables(store, artifact, COLUMNS)).cast(TRIPLET)


def human_triplets(path: Path, option: str) -> pa.Table:
    """Return the human triplets in a file.

    Args:
        path: the file.
        option: the option that names it, for messages.

    Raises:
        ConfigError: the file has other columns than anchor, positive, negative.
    """
    task = read_task(path)
    if not isinstance(task, TripletTask):
        raise ConfigError(f"{option}: {path} needs the columns anchor, positive, negative")
    row_ids = [f"{path.name}:{index}" for index in range(len(task.anchors))]
    return pa.table([row_ids, *task.columns()], schema=TRIPLET)
