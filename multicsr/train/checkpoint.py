"""What a killed training run needs to end with the same parameters as an undisturbed one.

Batches and dropout are functions of (seed, step), so no state of a random generator is kept.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from multicsr.errors import RunError

State = dict[str, Tensor]


@dataclass(frozen=True)
class Best:
    """The parameters that did best on dev so far."""

    step: int
    dev: float
    model: State


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimizer steps."""

    run: str
    """Fingerprint of settings and triplets: another run's checkpoint is not continued."""
    step: int
    encoder: State
    optimizer: dict[str, object]
    best: Best | None

    def save(self, path: Path) -> None:
        """Replace `path` in one step.

        Raises:
            RunError: it cannot be written.
        """
        # Named by process: the worker of a killed command may live on for a while.
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save({**vars(self), "best": self.best and asdict(self.best)}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise RunError(f"store: cannot write checkpoint {path}: {error}") from error

    @classmethod
    def load(cls, path: Path, run: str) -> Self | None:
        """The checkpoint at `path`; None when there is none, or it is another run's."""
        if not path.exists():
            return None
        stored = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint = cls(**{**stored, "best": stored["best"] and Best(**stored["best"])})
        return checkpoint if checkpoint.run == run else None
