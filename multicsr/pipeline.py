"""THE MAP: the stages in order, each a function of a configuration, a store and a progress.

ingest      raw text            -> sentences/        multicsr/ingest
generate    sentences/          -> scored/           multicsr/generate, multicsr/score
curate      scored/             -> curated/          multicsr/curate.py
train       curated/            -> model/            multicsr/train
evaluate    model/              -> evaluation.json   multicsr/evaluate
report      everything          -> report.html       multicsr/report
"""

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.manifest import Manifest, read_manifest
from multicsr.progress import Progress
from multicsr.ray_stage import Pool, Stage, run_stage, start_ray
from multicsr.rows import SCORED, SENTENCE
from multicsr.store import SCHEMA_VERSION, Store

if TYPE_CHECKING:
    from rich.table import Table


def ingest(config: Config, store: Store, progress: Progress) -> Manifest:
    """Raw text to sentences, each with its id."""
    from multicsr.ingest import ingest

    return ingest(config, store, progress)


def generate(config: Config, store: Store, progress: Progress) -> Manifest:
    """Sentences to scored triplets (MultiCSR Eq. 1-3), in a pool of actors that each hold the LLM."""
    from multicsr.generate.stage import TripletStage, fingerprint

    sentences = read_manifest(store, "sentences")
    stage = Stage(
        name="generate",
        room="scored",
        reads=SENTENCE,
        writes=SCORED,
        make=lambda: TripletStage(config),
        pool=Pool(
            config.generate.actors,
            config.generate.cpus_per_actor,
            config.generate.gpus_per_actor,
            shards_at_once=2 if config.llm.engine == "vllm" else 1,
        ),
        max_rejected=config.generate.max_rejected,
    )
    settings: dict[str, JsonValue] = {
        **fingerprint(config),
        "schema": SCHEMA_VERSION,
        "sentences": _identity(sentences),
    }
    return run_stage(stage, store, sentences, run=config.name, settings=settings, progress=progress)


def curate(config: Config, store: Store, progress: Progress) -> Manifest:
    """Scored triplets to those worth training on (MultiCSR Eq. 4)."""
    from multicsr.curate import curate_stage

    scored = read_manifest(store, "scored")
    rule = config.curate.model_dump(mode="json")
    settings: dict[str, JsonValue] = {"curate": rule, "schema": SCHEMA_VERSION, "scored": scored.fingerprint}
    return run_stage(
        curate_stage(config.curate), store, scored, run=config.name, settings=settings, progress=progress
    )


def train(config: Config, store: Store, progress: Progress) -> Manifest:
    """Curated triplets to an encoder (MultiCSR Eq. 5-7)."""
    from multicsr.train.trainer import train

    return train(config, store, progress)


def evaluate(config: Config, store: Store, progress: Progress) -> None:
    """The encoder, and as it was before training, on the tasks of `evaluate.data`."""
    from multicsr.evaluate import evaluate_run

    evaluate_run(config, store, progress)


def report(config: Config, store: Store, progress: Progress) -> None:
    """Everything above as one HTML file."""
    from multicsr.report import write_report

    progress.start("report", None)
    write_report(store, store.local("report.html"))
    progress.finish(store.uri("report.html"))


STAGES: dict[str, Callable[[Config, Store, Progress], object]] = {
    "ingest": ingest,
    "generate": generate,
    "curate": curate,
    "train": train,
    "evaluate": evaluate,
    "report": report,
}


_ON_RAY = {"ingest", "generate", "curate", "train"}


def run(config: Config, progress: Progress, until: str | None = None) -> Store:
    """All stages in order, up to and with `until`; what is done already is not redone.

    Without `evaluate.data` there is nothing to evaluate on, and that stage is left out.
    """
    names = list(STAGES)
    names = names[: names.index(until) + 1] if until else names
    return _run([name for name in names if name != "evaluate" or config.evaluate.data], config, progress)


def run_step(name: str, config: Config, progress: Progress) -> None:
    """One stage, on what the stages before it left in the store."""
    _run([name], config, progress)


def sweep_table(config: Config, alpha: str, beta: str, gamma: str) -> "Table":
    """What each combination of comma-separated thresholds would keep of the scored rows, as a table."""
    from rich.table import Table

    from multicsr.curate import sweep

    store = Store.open(config.store)
    scored = read_manifest(store, "scored")
    table = Table(title=f"{scored.rows_out:,} scored rows, {config.curate.rule} rule")
    for name in ("alpha", "beta", "gamma", "kept", "share"):
        table.add_column(name, justify="right")
    grid = {
        name: _thresholds(name, text)
        for name, text in (("alphas", alpha), ("betas", beta), ("gammas", gamma))
    }
    for row in sweep(store, scored, config.curate, **grid):
        limits = [f"{row.alpha:g}", f"{row.beta:g}", "-" if row.gamma is None else f"{row.gamma:g}"]
        table.add_row(*limits, f"{row.kept:,}", f"{row.share:.1%}")
    return table


def _run(names: list[str], config: Config, progress: Progress) -> Store:
    store = Store.open(config.store)
    largest_pool = max(
        config.generate.actors * config.generate.cpus_per_actor,
        config.train.workers * config.train.cpus_per_worker,
    )
    with start_ray(largest_pool) if _ON_RAY.intersection(names) else nullcontext():
        for name in names:
            STAGES[name](config, store, progress)
    return store


def _identity(sentences: Manifest) -> str:
    """Which sentences, in which shards.

    An id says all that generation depends on, so a touched source file does not cost the LLM again.
    """
    layout = hashlib.blake2b(repr([entry.rows for entry in sentences.files]).encode(), digest_size=8)
    return f"{sentences.rows_digest}/{layout.hexdigest()}"


def _thresholds(name: str, text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 <= value <= 5 for value in values):
        raise ConfigError(f"--{name.removesuffix('s')} {text}: write numbers from 0 to 5, such as 2,2.5,3")
    return values
