"""Evaluation stage: measure sentence encoders on tasks of several kinds, from labelled files."""

from multicsr.stages.evaluate.cache import ResultCache, user_cache
from multicsr.stages.evaluate.comparison import Comparison, Ranking
from multicsr.stages.evaluate.encoders import (
    Candidate,
    Evaluation,
    Measured,
    MeasuredEncoder,
    PartialEvaluation,
    evaluate_models,
    measure_encoder,
    measure_models,
    saved,
)
from multicsr.stages.evaluate.files import outputs
from multicsr.stages.evaluate.kinds.retrieval import RetrievalTask
from multicsr.stages.evaluate.kinds.sts import StsTask
from multicsr.stages.evaluate.kinds.triplets import TripletTask
from multicsr.stages.evaluate.run import EVALUATION, evaluate_run, read_evaluation, read_thresholds
from multicsr.stages.evaluate.similarity import Similarity, similarity_of
from multicsr.stages.evaluate.table import render, table_rows, verdicts
from multicsr.stages.evaluate.task import Encode, Examples, Measurement, Role, Score, Task
from multicsr.stages.evaluate.tasks import FoundTasks, find_tasks, parse_joins, read_task
from multicsr.stages.evaluate.vectors import encoding

__all__ = [
    "EVALUATION",
    "Candidate",
    "Comparison",
    "Encode",
    "Evaluation",
    "Examples",
    "FoundTasks",
    "Measured",
    "MeasuredEncoder",
    "Measurement",
    "PartialEvaluation",
    "Ranking",
    "ResultCache",
    "RetrievalTask",
    "Role",
    "Score",
    "Similarity",
    "StsTask",
    "Task",
    "TripletTask",
    "encoding",
    "evaluate_models",
    "evaluate_run",
    "find_tasks",
    "measure_encoder",
    "measure_models",
    "outputs",
    "parse_joins",
    "read_evaluation",
    "read_task",
    "read_thresholds",
    "render",
    "saved",
    "similarity_of",
    "table_rows",
    "user_cache",
    "verdicts",
]
