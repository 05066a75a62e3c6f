"""The runner of a table or figure: its rows in order, each with the settings of its plan."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from multicsr.config import Config
from multicsr.errors import ConfigError, MulticsrError, NothingKept
from multicsr.execution.ray_session import lazy_ray_session
from multicsr.messages.extras import require_extra
from multicsr.messages.terminal import one_line
from multicsr.observability.progress import Progress
from multicsr.pipeline.full_run import largest_pool
from multicsr.stages.evaluate.cache import package_versions
from multicsr.storage.store import Store
from multicsr.tools.ablate.trainings import FOLDER, require_seeds
from multicsr.tools.reproduce.data import TripletReader
from multicsr.tools.reproduce.measures import MEASURES, RowMeasurer, TableWork
from multicsr.tools.reproduce.paper import BACKBONES, PaperEntry
from multicsr.tools.reproduce.plan import RowPlan, plan_rows
from multicsr.tools.reproduce.result import ReproducedRow, Reproduction, RowFigures, StatedNumber
from multicsr.tools.reproduce.scale import ReproduceOptions, inputs_of, require_effects


def reproduce(entry: PaperEntry, options: ReproduceOptions, progress: Progress) -> Reproduction:
    """Run the rows of a table or figure, and return its figures with the paper's numbers beside them.

    What was written, trained or measured before is not done again. A row that fails does not end the others.

    Raises:
        ConfigError: a setting or file is wrong, or the seeds are too large.
    """
    require_extra("train", "a table of the paper")
    begin = time.monotonic()
    require_effects(entry, options)
    inputs = inputs_of(entry, options)
    plans = plan_rows(entry, options, inputs)
    base = next(plan.config for plan in plans if plan.config is not None and not plan.reason)
    require_seeds(base.seed, options.num_seeds)
    store = Store.of(base)
    if store.directory is None:
        raise ConfigError(f"--store: {base.store} is no local directory, which trainings and samples need")
    sample = min(filter(None, (entry.sample, options.limit)), default=None)
    reader = TripletReader(progress, inputs.labelled, sample)
    work = TableWork(entry, options, inputs, base, store, store.directory / FOLDER, reader, progress)
    with lazy_ray_session(largest_pool(base), progress.announce):
        measure = MEASURES[entry.measure](work)
        rows = [_row(plan, measure, progress) for plan in plans]
    return _reproduction(entry, options, base, rows, time.monotonic() - begin)


def _row(plan: RowPlan, measure: RowMeasurer, progress: Progress) -> ReproducedRow:
    """Run one row; an error becomes its reason. Thresholds that keep nothing are a result."""
    figures, reason, failed = RowFigures(), plan.reason, False
    if not reason:
        try:
            figures = measure(plan)
        except NothingKept as error:
            reason = one_line(str(error))
        except MulticsrError as error:
            reason, failed = one_line(str(error)), True
        if reason:
            progress.announce(f"{plan.row.name}: {reason}")
    return ReproducedRow(
        name=plan.row.name,
        group=BACKBONES[plan.row.encoder].title,
        changes=[*plan.changes],
        reason=reason,
        failed=failed,
        figures=figures,
        paper={column: number.value for column, number in plan.row.numbers.items()},
        line=plan.row.line,
        x=plan.row.x,
        settings={**plan.settings()},
    )


def _reproduction(
    entry: PaperEntry,
    options: ReproduceOptions,
    base: Config,
    rows: Sequence[ReproducedRow],
    seconds: float,
) -> Reproduction:
    columns = [column.name for column in entry.columns]
    measured = dict.fromkeys(name for row in rows for name in row.figures.cells)
    return Reproduction(
        name=entry.name,
        title=entry.title,
        scale=options.scale,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=package_versions(),
        seeds=[base.seed + number for number in range(options.num_seeds if entry.trains else 1)],
        seconds=round(seconds, 1),
        columns=columns,
        extra_columns=[name for name in measured if name not in columns],
        rows=[*rows],
        stated=[StatedNumber(value=number.value, quote=number.quote) for number in entry.stated],
        notes=[*entry.notes, *_about_data(entry, options, base)],
        x_label=entry.x_label,
    )


def _about_data(entry: PaperEntry, options: ReproduceOptions, base: Config) -> Iterator[str]:
    """Yield statements about the data of trainings: what chose their checkpoints, and leaks."""
    if not entry.trains:
        return
    if base.train.dev is None:
        yield "No --dev chose a checkpoint: the last one of each training was measured."
    elif entry.on_dev:
        yield "Checkpoints are chosen on the file that is measured, as in the paper."
    if options.is_small and entry.needs_labelled and options.labelled is None and not options.data:
        yield (
            "The labelled triplets are the demo's development set, and 44 of their hypotheses stand in its "
            "test set too; no premise does."
        )
    yield "Leaks are not looked for: texts of the training data may stand in the data that are measured."
