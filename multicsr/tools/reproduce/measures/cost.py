"""Time and memory of a training on copies of one triplet (Table 13)."""

import shutil
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from multicsr.config import TrainConfig
from multicsr.observability.progress import SilentProgress
from multicsr.stages.train.recipe import resolve_recipe
from multicsr.tools.ablate.trainings import require_one_process
from multicsr.tools.ablate.variants import TRIPLET
from multicsr.tools.reproduce.measures.work import RowMeasurer, TableWork
from multicsr.tools.reproduce.plan import RowPlan, config_of
from multicsr.tools.reproduce.result import MeasuredCell, RowFigures

NUM_ROWS = 10_000
"""Number of copies in the paper."""
_STEPS = {"small": 4, "full": None}
"""Steps of a training at each scale; None: one epoch. Time is stated for `NUM_ROWS` rows in any case."""
_GIB = 2**30


def cost_measurer(work: TableWork) -> RowMeasurer:
    """Return the function that trains on copies of one triplet and measures time and memory."""
    steps = _STEPS[work.options.scale]

    def measure(plan: RowPlan) -> RowFigures:
        config = config_of(plan)
        require_one_process(config.train)
        train = resolve_recipe(config.train)
        batch = train.global_batch
        num_steps = NUM_ROWS // batch if steps is None else steps
        train = train.model_copy(update={"steps": num_steps})
        seconds, memory = _train(train, copies(num_steps * batch), config.seed)
        cells = {
            "s per 10,000 rows": MeasuredCell(
                values=[seconds * NUM_ROWS / (num_steps * batch)], metric="s", num_rows=num_steps * batch
            )
        }
        if memory is not None:
            cells["GPU memory, GiB"] = MeasuredCell(values=[memory], metric="GiB", num_rows=num_steps * batch)
        return RowFigures(num_triplets=num_steps * batch, cells=cells)

    return measure


def copies(count: int) -> pa.Table:
    """Return copies of a triplet of Table 12 that differ by a number at their end."""
    premise, entailment, contradiction = (
        "One of our number will carry out your instructions minutely.",
        "A member of my team will execute your orders with immense precision.",
        "We have no one free at the moment so you have to take action yourself.",
    )
    rows = [
        {
            "row_id": f"copy{number}",
            "text": f"{premise} {number}",
            "entailment": f"{entailment} {number}",
            "contradiction": f"{contradiction} {number}",
        }
        for number in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=TRIPLET)


def _train(train: TrainConfig, triplets: pa.Table, seed: int) -> tuple[float, float | None]:
    """Train once; return the seconds of the steps after the first one, scaled to all, and GiB of the GPU."""
    import torch

    from multicsr.stages.train.fit import fit

    on_gpu = train.gpus_per_worker > 0 and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    clock = StepClock()
    out = Path(tempfile.mkdtemp(prefix="multicsr-"))
    try:
        fit(train, triplets, seed=seed, out=out / "training", progress=clock)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return clock.seconds(), torch.cuda.max_memory_allocated() / _GIB if on_gpu else None


class StepClock(SilentProgress):
    """Progress that notes when each step ends."""

    def __init__(self) -> None:
        """Begin without a step."""
        self._ends: list[float] = []

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Note the time."""
        self._ends.append(time.perf_counter())

    def seconds(self) -> float:
        """Return the seconds of all steps, from those between the ends of the first and the last one.

        The first step is left out: it has the work of a start.
        """
        if len(self._ends) < 2:
            return 0.0
        return (self._ends[-1] - self._ends[0]) * len(self._ends) / (len(self._ends) - 1)
