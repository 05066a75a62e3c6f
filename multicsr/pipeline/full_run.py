"""List of all stages in order; each is a function of a configuration, a transaction and a progress reporter.

ingest      raw text            -> sentences/        multicsr/stages/ingest
generate    sentences/          -> scored/           multicsr/stages/generate, score; multicsr/llm
curate      scored/             -> curated/          multicsr/stages/curate
train       curated/            -> model/            multicsr/stages/train
evaluate    model/              -> evaluation/       multicsr/stages/evaluate
report      everything          -> report.html       multicsr/stages/report

The transaction (`storage/transaction.py`) holds the artifacts of the next version: a stage reads some of them
and adds one. The labelled texts, which training data must not have, are read once for all stages of a run.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from multicsr.config import Config
from multicsr.execution.ray_session import lazy_ray_session
from multicsr.observability.progress import Progress
from multicsr.pipeline.preflight import require_no_problems
from multicsr.storage.manifest import Manifest
from multicsr.storage.store import Store
from multicsr.storage.transaction import Transaction, open_transaction

if TYPE_CHECKING:
    from multicsr.stages.evaluate import FoundTasks
    from multicsr.stages.ingest.overlap import KnownTexts

Known = Callable[[], "KnownTexts | None"]
"""A function that returns the texts of the labelled sets of a run; None if it has none."""


def labels_of(config: Config) -> Known:
    """Return a function that reads the labelled texts when it is first called, and keeps them."""

    @cache
    def known() -> "KnownTexts | None":
        from multicsr.stages.evaluate.leaks import labelled_texts

        return labelled_texts(config)

    return known


def ingest(
    config: Config, transaction: Transaction, progress: Progress, _known: Known | None = None
) -> Manifest:
    """Convert raw text to sentences, each with its id."""
    from multicsr.stages.ingest import ingest

    return transaction.add("sentences", ingest(config, transaction.store, progress))


def generate(config: Config, transaction: Transaction, progress: Progress, known: Known) -> Manifest:
    """Generate scored triplets from sentences (MultiCSR Eq. 1-3) in actors, each with its own LLM."""
    from multicsr.stages.generate.run import generate

    return transaction.add("scored", generate(config, transaction.snapshot, progress, known()))


def curate(
    config: Config, transaction: Transaction, progress: Progress, _known: Known | None = None
) -> Manifest:
    """Select the scored triplets to train on (MultiCSR Eq. 4)."""
    from multicsr.stages.curate.run import curate

    return transaction.add("curated", curate(config, transaction.snapshot, progress))


def train(config: Config, transaction: Transaction, progress: Progress, known: Known) -> Manifest:
    """Train an encoder on the curated triplets (MultiCSR Eq. 5-7)."""
    from multicsr.stages.train.trainer import train

    return transaction.add("model", train(config, transaction.snapshot, progress, known=known()))


def evaluate(
    config: Config,
    transaction: Transaction,
    progress: Progress,
    known: Known,
    tasks: "FoundTasks | None" = None,
) -> Manifest:
    """Measure the encoder, and as a baseline the encoder before training, on the tasks of `evaluate.data`."""
    from multicsr.stages.evaluate import evaluate_run

    return transaction.add("evaluation", evaluate_run(config, transaction.snapshot, progress, tasks, known))


def report(config: Config, transaction: Transaction, progress: Progress, _known: Known | None = None) -> None:
    """Write the report of all stages as one HTML file."""
    from multicsr.stages.report import publish_report

    progress.start("report", None)
    transaction.check()
    progress.finish(publish_report(transaction.snapshot))


STAGES: dict[str, Callable[[Config, Transaction, Progress, Known], object]] = {
    "ingest": ingest,
    "generate": generate,
    "curate": curate,
    "train": train,
    "evaluate": evaluate,
    "report": report,
}
"""Stages by name, in the order in which they run."""


def run(config: Config, progress: Progress, until: str | None = None) -> Store:
    """Run all stages in order, up to and including `until`; existing results are reused.

    See `stages_of` for those that are left out.

    Args:
        config: the configuration of the run.
        progress: receives every stage.
        until: name of the last stage; all stages if None.

    Returns:
        The store of the run.
    """
    names = list(STAGES)
    names = names[: names.index(until) + 1] if until else names
    needed = stages_of(config)
    return run_stages("run", [name for name in names if name in needed], config, progress)


def stages_of(config: Config) -> list[str]:
    """Return the stages of a run, in order.

    Generation and curation are left out if the encoder is trained on all sentences (`train.rows`), and the
    evaluation if nothing can be measured: `evaluate.data` is empty and `evaluate.held_out` is 0.
    """
    left_out = {"generate", "curate"} if config.train.rows == "sentences" else set()
    if not (config.evaluate.data or config.evaluate.held_out):
        left_out.add("evaluate")
    return [name for name in STAGES if name not in left_out]


def run_step(name: str, config: Config, progress: Progress) -> None:
    """Run one stage on the artifacts that earlier stages left in the store."""
    run_stages(name, [name], config, progress)


def run_stages(command: str, names: Sequence[str], config: Config, progress: Progress) -> Store:
    """Run stages in a transaction and publish its version.

    A version that only adds artifacts is published after each stage. A version that replaces artifacts is
    published once, when all stages are done; until then, readers see the old artifacts.

    Args:
        command: name of the command, as the version records it.
        names: keys of `STAGES`, in order.
        config: the configuration of the run.
        progress: receives every stage.

    Returns:
        The store of the run.
    """
    require_no_problems(names, config)
    known = labels_of(config)
    with (
        open_transaction(config, command, progress) as transaction,
        lazy_ray_session(largest_pool(config), progress.announce),
    ):
        for name in names:
            STAGES[name](config, transaction, progress, known)
            if not transaction.replaces:
                transaction.publish()
        transaction.publish()
    return transaction.store


def largest_pool(config: Config) -> float:
    """Return the largest number of CPUs that a stage reserves."""
    return max(
        config.generate.actors * config.generate.cpus_per_actor,
        config.train.workers * config.train.cpus_per_worker,
    )
