"""Work that the measurements of all rows of a table share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from multicsr.config import Config
from multicsr.observability.progress import Progress
from multicsr.storage.store import Store
from multicsr.tools.reproduce.data import TripletReader
from multicsr.tools.reproduce.paper import PaperEntry
from multicsr.tools.reproduce.plan import RowPlan
from multicsr.tools.reproduce.result import RowFigures
from multicsr.tools.reproduce.scale import Inputs, ReproduceOptions

RowMeasurer = Callable[[RowPlan], RowFigures]
"""A function that runs a row and returns its figures."""


@dataclass(frozen=True)
class TableWork:
    """The table, its inputs and the store of its results."""

    entry: PaperEntry
    options: ReproduceOptions
    inputs: Inputs
    base: Config
    """Settings of a row, for those that all rows share: seed, lease, evaluation."""
    store: Store
    folder: Path
    """Folder of the results of trainings, in the store."""
    reader: TripletReader
    progress: Progress
