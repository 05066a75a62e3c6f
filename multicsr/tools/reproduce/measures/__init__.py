"""The ways from the settings of a row to its figures; `MEASURES` is the list of them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from multicsr.tools.reproduce.measures.cost import cost_measurer
from multicsr.tools.reproduce.measures.curation import curation_measurer
from multicsr.tools.reproduce.measures.examples import examples_measurer
from multicsr.tools.reproduce.measures.mask import mask_measurer
from multicsr.tools.reproduce.measures.tasks import task_measurer
from multicsr.tools.reproduce.measures.work import RowMeasurer, TableWork
from multicsr.tools.reproduce.paper import Measure

MEASURES: Mapping[Measure, Callable[[TableWork], RowMeasurer]] = MappingProxyType(
    {
        Measure.TASKS: task_measurer,
        Measure.CURATION: curation_measurer,
        Measure.MASK: mask_measurer,
        Measure.COST: cost_measurer,
        Measure.EXAMPLES: examples_measurer,
    }
)
"""Measure -> function from the work on a table to the function that measures a row."""

__all__ = ["MEASURES", "RowMeasurer", "TableWork"]
