"""THE MAP: the stages in order, each a function of a configuration, a draft and a progress.

ingest      raw text            -> sentences/        multicsr/ingest
generate    sentences/          -> scored/           multicsr/generate, multicsr/score
curate      scored/             -> curated/          multicsr/curate.py
train       curated/            -> model/            multicsr/train
evaluate    model/              -> evaluation/       multicsr/evaluate
report      everything          -> report.html       multicsr/report

A draft (`draft.py`) is the version in the making: a stage reads its rooms and adds one.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from multicsr.config import Config
from multicsr.draft import Draft, drafting
from multicsr.errors import ConfigError
from multicsr.manifest import Manifest
from multicsr.progress import Progress
from multicsr.ray_stage import run_stage
from multicsr.ray_start import ray_at_need
from multicsr.store import SCHEMA_VERSION, Store
from multicsr.versions import current

if TYPE_CHECKING:
    from rich.table import Table


def ingest(config: Config, draft: Draft, progress: Progress) -> Manifest:
    """Raw text to sentences, each with its id."""
    from multicsr.ingest import ingest

    return draft.add("sentences", ingest(config, draft.store, progress))


def generate(config: Config, draft: Draft, progress: Progress) -> Manifest:
    """Sentences to scored triplets (MultiCSR Eq. 1-3), in a pool of actors that each hold the LLM."""
    from multicsr.generate.run import generate

    return draft.add("scored", generate(config, draft.rooms, progress))


def curate(config: Config, draft: Draft, progress: Progress) -> Manifest:
    """Scored triplets to those worth training on (MultiCSR Eq. 4)."""
    from multicsr.curate import curate_stage

    scored = draft.rooms.manifest("scored")
    rule = config.curate.model_dump(mode="json")
    settings: dict[str, JsonValue] = {"curate": rule, "schema": SCHEMA_VERSION, "scored": scored.fingerprint}
    stage = curate_stage(config.curate)
    manifest = run_stage(stage, draft.store, scored, run=config.name, settings=settings, progress=progress)
    return draft.add("curated", manifest)


def train(config: Config, draft: Draft, progress: Progress) -> Manifest:
    """Curated triplets to an encoder (MultiCSR Eq. 5-7)."""
    from multicsr.train.trainer import train

    return draft.add("model", train(config, draft.rooms, progress))


def evaluate(config: Config, draft: Draft, progress: Progress) -> Manifest:
    """The encoder, and as it was before training, on the tasks of `evaluate.data`."""
    from multicsr.evaluate import evaluate_run

    return draft.add("evaluation", evaluate_run(config, draft.rooms, progress))


def report(config: Config, draft: Draft, progress: Progress) -> None:
    """Everything above as one HTML file."""
    from multicsr.report import publish_report

    progress.start("report", None)
    progress.finish(publish_report(draft.rooms))


STAGES: dict[str, Callable[[Config, Draft, Progress], object]] = {
    "ingest": ingest,
    "generate": generate,
    "curate": curate,
    "train": train,
    "evaluate": evaluate,
    "report": report,
}


def run(config: Config, progress: Progress, until: str | None = None) -> Store:
    """All stages in order, up to and with `until`; what is done already is not redone.

    Without `evaluate.data` there is nothing to evaluate on, and that stage is left out.
    """
    names = list(STAGES)
    names = names[: names.index(until) + 1] if until else names
    names = [name for name in names if name != "evaluate" or config.evaluate.data]
    return run_stages("run", names, config, progress)


def run_step(name: str, config: Config, progress: Progress) -> None:
    """One stage, on what the stages before it left in the store."""
    run_stages(name, [name], config, progress)


def run_stages(command: str, names: Sequence[str], config: Config, progress: Progress) -> Store:
    """Run stages on a draft and publish it.

    A version that only adds rooms is published stage by stage; where rooms are replaced, readers see the old
    ones until all new ones are there.
    """
    with drafting(config, command, progress) as draft, ray_at_need(largest_pool(config)):
        for name in names:
            STAGES[name](config, draft, progress)
            if not draft.replaces:
                draft.publish()
        draft.publish()
    return draft.store


def largest_pool(config: Config) -> float:
    """CPUs that a stage reserves at most."""
    return max(
        config.generate.actors * config.generate.cpus_per_actor,
        config.train.workers * config.train.cpus_per_worker,
    )


def sweep_table(config: Config, alpha: str, beta: str, gamma: str) -> "Table":
    """What each combination of comma-separated thresholds would keep of the scored rows, as a table."""
    from rich.table import Table

    from multicsr.curate import sweep

    store = Store.of(config)
    scored = current(store).manifest("scored")
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


def _thresholds(name: str, text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 <= value <= 5 for value in values):
        raise ConfigError(f"--{name.removesuffix('s')} {text}: write numbers from 0 to 5, such as 2,2.5,3")
    return values
