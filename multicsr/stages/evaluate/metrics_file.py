"""The file that `multicsr evaluate --json` writes."""

import os
from pathlib import Path

from multicsr.errors import ConfigError
from multicsr.stages.evaluate.encoders import Evaluation


def check_metrics_path(path: Path) -> None:
    """Raise ConfigError if `path` is not writable.

    It is checked before the measurement, which may take hours.
    """
    if path.is_dir():
        raise ConfigError(f"--json: {path} is a directory; name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"--json: there is no directory {path.parent}; create it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"--json: {path} cannot be written by this user; name another file")


def write_metrics(path: Path, evaluation: Evaluation) -> None:
    """Write an evaluation as JSON."""
    path.write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")
