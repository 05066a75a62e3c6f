"""Evaluation stage: measure sentence encoders on STS pairs and triplets from TSV files."""

from multicsr.labelled_files import StsTask, Task, TripletTask, digest_task, read_task
from multicsr.stages.evaluate.encoders import (
    Candidate,
    Evaluation,
    Measured,
    PartialEvaluation,
    evaluate_models,
    saved,
)
from multicsr.stages.evaluate.metrics import Score, measure
from multicsr.stages.evaluate.metrics_file import check_metrics_path, write_metrics
from multicsr.stages.evaluate.run import EVALUATION, evaluate_run, read_evaluation
from multicsr.stages.evaluate.table import render
from multicsr.stages.evaluate.tasks import FoundTasks, find_tasks, parse_joins

__all__ = [
    "EVALUATION",
    "Candidate",
    "Evaluation",
    "FoundTasks",
    "Measured",
    "PartialEvaluation",
    "Score",
    "StsTask",
    "Task",
    "TripletTask",
    "check_metrics_path",
    "digest_task",
    "evaluate_models",
    "evaluate_run",
    "find_tasks",
    "measure",
    "parse_joins",
    "read_evaluation",
    "read_task",
    "render",
    "saved",
    "write_metrics",
]
