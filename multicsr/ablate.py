"""What is each stage worth? The same encoder trained with and without them, several seeds each.

The variants of MultiCSR Table 3; beside them unsupervised SimCSE on the premises, human triplets, and both
joined.
Every variant takes the same number of optimizer steps, so that a larger corpus is not a longer training.
The checkpoint with the best `train.dev` figure is the one measured.
"""

import hashlib
import shutil
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, TypeAdapter

from multicsr import pipeline
from multicsr.config import Config, TrainConfig
from multicsr.errors import ConfigError
from multicsr.evaluate import Evaluation, TripletTask, evaluate_models, read_task, saved
from multicsr.evaluate.run import untrained
from multicsr.manifest import fingerprint, iter_tables
from multicsr.progress import Progress
from multicsr.store import Store
from multicsr.versions import current

if TYPE_CHECKING:
    from rich.table import Table

RESULTS = "ablation.json"
_COLUMNS = ["row_id", "text", "entailment", "contradiction"]
_TRIPLET = pa.schema([(name, pa.string()) for name in _COLUMNS])


@dataclass(frozen=True)
class Variant:
    """One way to get triplets and to train on them."""

    name: str
    triplets: pa.Table
    train: TrainConfig


class Trained(BaseModel):
    """One variant trained with one seed, kept so that an interrupted ablation goes on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str
    seed: int
    rows: int
    fingerprint: str
    figures: dict[str, float]


_Results = TypeAdapter(list[Trained])


def ablate(config: Config, *, data: Sequence[str], human: Path, seeds: int, progress: Progress) -> "Table":
    """Generate with omega as configured and with 0; train every variant with every seed; measure.

    Args:
        config: the full method; `train.steps` sets the length of every training.
        data: evaluation files or directories.
        human: TSV of human triplets (anchor, positive, negative).
        seeds: runs of each variant, with seeds config.seed, config.seed + 1, ...

    Returns:
        Variants down, tasks across: mean and standard deviation over seeds. The figures of every run are
        in `ablation.json` of the store.

    Raises:
        ConfigError: a stage is switched off already, no steps, or human triplets of the wrong kind.
    """
    if config.train.steps is None:
        raise ConfigError("train.steps is unset: an ablation trains every variant for the same number")
    if config.train.mask is None or config.generate.omega == 0:
        raise ConfigError("an ablation takes stages away: set train.mask and generate.omega of the full run")
    store, folder = Store.of(config), Store.of(config).directory
    if folder is None:
        raise ConfigError("store: an ablation keeps its trainings in a local directory; give one")
    results = {result.fingerprint: result for result in _read(store)}
    wanted: list[Trained] = []
    for variant in _variants(config, human, progress):
        for seed in range(config.seed, config.seed + seeds):
            key = _fingerprint(variant, seed, data)
            if key not in results:
                results[key] = _train(variant, seed, key, data, store, folder / f"ablation/{key}", progress)
                store.write_text(RESULTS, _Results.dump_json([*results.values()], indent=1).decode() + "\n")
            wanted.append(results[key])
    start = evaluate_models([untrained(config.train)], data, config.evaluate.batch_size, progress)
    return _table(_figures(start), wanted)


def _variants(config: Config, human: Path, progress: Progress) -> list[Variant]:
    plain = config.model_copy(
        update={
            "store": f"{config.store}/without-stage-1",
            "generate": config.generate.model_copy(update={"omega": 0.0}),
        }
    )
    raw = _rows(pipeline.run(plain, progress, until="curate"), "scored")
    refined_store = pipeline.run(config, progress, until="curate")
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


def _rows(store: Store, room: str) -> pa.Table:
    return pa.concat_tables(iter_tables(store, current(store).manifest(room), _COLUMNS)).cast(_TRIPLET)


def _human(path: Path) -> pa.Table:
    task = read_task(path)
    if not isinstance(task, TripletTask):
        raise ConfigError(f"--human: {path} needs the columns anchor, positive, negative")
    row_ids = [f"{path.name}:{index}" for index in range(len(task.anchors))]
    return pa.table([row_ids, *task.columns()], schema=_TRIPLET)


def _fingerprint(variant: Variant, seed: int, data: Sequence[str]) -> str:
    """Changes with whatever the figures depend on."""
    digest = hashlib.blake2b(digest_size=16)
    for name in _COLUMNS:
        for text in variant.triplets[name].to_pylist():
            digest.update(text.encode() + b"\0")
    train = variant.train.model_dump(mode="json")
    return fingerprint({"train": train, "seed": seed, "data": [*data], "triplets": digest.hexdigest()})


def _train(
    variant: Variant, seed: int, key: str, data: Sequence[str], store: Store, out: Path, progress: Progress
) -> Trained:
    from multicsr.train.loop import fit

    result = fit(variant.train, variant.triplets, seed=seed, out=out, progress=progress, vectors=store)
    model = saved(str(result.model_dir), f"{variant.name}, seed {seed}")
    figures = _figures(evaluate_models([model], data, 128, progress))
    shutil.rmtree(result.model_dir)
    return Trained(
        variant=variant.name, seed=seed, rows=variant.triplets.num_rows, fingerprint=key, figures=figures
    )


def _figures(evaluation: Evaluation) -> dict[str, float]:
    (encoder,) = evaluation.encoders
    return {score.task: score.value for score in encoder.scores}


def _read(store: Store) -> list[Trained]:
    return _Results.validate_json(store.read_text(RESULTS)) if store.exists(RESULTS) else []


def _table(start: dict[str, float], results: Iterable[Trained]) -> "Table":
    from rich.table import Table

    by_variant: dict[str, list[Trained]] = {}
    for result in results:
        by_variant.setdefault(result.variant, []).append(result)
    table = Table(title="Ablation: mean and standard deviation over seeds", title_justify="left")
    table.add_column("trained on")
    table.add_column("triplets", justify="right")
    for task in start:
        table.add_column(task, justify="right")
    table.add_row("(before training)", "", *(f"{value:.2f}" for value in start.values()))
    for name, runs in by_variant.items():
        cells = [_mean_and_spread([run.figures[task] for run in runs]) for task in start]
        table.add_row(name, f"{runs[0].rows:,}", *cells)
    return table


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.2f} ± {spread:.2f}"
