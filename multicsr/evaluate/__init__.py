"""Measures sentence encoders on STS pairs and triplets, from TSV files."""

from multicsr.evaluate.evaluation import Candidate, Evaluation, Measured, evaluate_models, saved
from multicsr.evaluate.measure import measure
from multicsr.evaluate.run import EVALUATION, evaluate_run, read_evaluation
from multicsr.evaluate.score import Score
from multicsr.evaluate.table import render
from multicsr.evaluate.tasks import Found, StsTask, Task, TripletTask, find_tasks, parse_join, read_task

__all__ = [
    "EVALUATION",
    "Candidate",
    "Evaluation",
    "Found",
    "Measured",
    "Score",
    "StsTask",
    "Task",
    "TripletTask",
    "evaluate_models",
    "evaluate_run",
    "find_tasks",
    "measure",
    "parse_join",
    "read_evaluation",
    "read_task",
    "render",
    "saved",
]
