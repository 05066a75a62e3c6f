"""What a killed training run needs to end with the same parameters as an undisturbed one.

Batches and dropout are functions of (seed, batch), so no state of a random generator is kept. Worker 0 writes
the whole state, so that any number of workers can go on from it.
"""

import os
import pickle
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch

from multicsr.errors import RunError
from multicsr.train.engine import Tensors, TrainState
from multicsr.train.survey import Survey

_DAMAGE = (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, BadZipFile, zlib.error)
"""What reading a damaged file may raise."""


@dataclass(frozen=True)
class Best:
    """The parameters that did best on dev so far."""

    step: int
    dev: float
    model: Tensors


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimizer steps."""

    run: str
    """Identity of settings and triplets: another run's checkpoint is not continued."""
    step: int
    state: TrainState
    best: Best | None
    not_better: int
    """Dev evaluations since the best one."""
    survey: Survey

    def save(self, path: Path) -> None:
        """Replace `path` in one step.

        Raises:
            RunError: it cannot be written.
        """
        # Named by process: the worker of a killed command may live on for a while.
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(self._plain(), file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise RunError(f"store: cannot write checkpoint {path}: {error}") from error

    @classmethod
    def load(cls, path: Path, run: str, kept_at: str | None = None) -> Self | None:
        """The checkpoint at `path`; None when there is none.

        Args:
            kept_at: the folder that it is a copy from, for messages.

        Raises:
            RunError: it is damaged, or another run's.
        """
        if not path.exists():
            return None
        place = f"{kept_at}/{path.name}" if kept_at else path
        try:
            _verify(path)
            plain = torch.load(path, map_location="cpu", weights_only=True)
        except _DAMAGE as error:
            reason = str(error).partition("\n")[0]
            raise RunError(f"checkpoint {place} is damaged: {reason}; delete it to start anew") from error
        if plain.get("run") != run:
            raise RunError(
                f"checkpoint {place} is of a run with other settings or triplets; delete it to start anew"
            )
        return cls(
            run=run,
            step=plain["step"],
            state=TrainState(**plain["state"]),
            best=plain["best"] and Best(**plain["best"]),
            not_better=plain["not_better"],
            survey=Survey(np.asarray(plain["counts"], np.int64), [tuple(cell) for cell in plain["cells"]]),
        )

    def _plain(self) -> dict[str, object]:
        """In types that load without running code."""
        return {
            "run": self.run,
            "step": self.step,
            "state": vars(self.state),
            "best": self.best and vars(self.best),
            "not_better": self.not_better,
            "counts": self.survey.counts.tolist(),
            "cells": self.survey.cells,
        }


def _verify(path: Path) -> None:
    """Raises where a checksum is wrong, at which torch does not look: it would go on with damaged numbers."""
    with ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise BadZipFile(f"wrong checksum of {damaged}")
