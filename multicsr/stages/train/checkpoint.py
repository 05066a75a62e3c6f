"""Checkpoints: a killed training run that resumes ends with the same parameters as an uninterrupted one.

Batches and dropout are functions of (seed, batch), so no state of a random generator is saved. Worker 0
writes the complete state, so any number of workers can resume from it.
"""

import errno
import os
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self, TypeVar
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch

from multicsr.errors import DamagedFileError, RunError, SchemaError
from multicsr.hashing import checksum
from multicsr.messages.error_chain import error_chain, first_line
from multicsr.stages.train.engines.base import Tensors, TrainState
from multicsr.stages.train.mask_model.statistics import MaskStatistics

T = TypeVar("T")
FORMAT = 2
"""Format number in every checkpoint. It is raised when the fields change; the first format had no number."""
_DAMAGE = (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, BadZipFile, zlib.error)
"""Exceptions that reading a damaged file may raise."""


class LogMark(NamedTuple):
    """The content of the log at a checkpoint: its first `size` bytes."""

    size: int
    """Number of bytes."""
    checksum: str
    """Checksum of these bytes."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the mark of the present content of a log."""
        data = path.read_bytes()
        return cls(len(data), checksum(data))

    def check(self, path: Path) -> None:
        """Raise DamagedFileError if the log does not begin with the bytes of this mark."""
        data = path.read_bytes()[: self.size] if path.exists() else b""
        if (len(data), checksum(data)) != self:
            raise DamagedFileError(f"log {path} is damaged: it differs from what its checkpoint knows of it")


@dataclass(frozen=True)
class Best:
    """The parameters with the best dev score so far."""

    step: int
    dev: float
    model: Tensors


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimizer steps."""

    run: str
    """Hash of the settings and triplets. A checkpoint of another run is rejected."""
    step: int
    state: TrainState
    best: Best | None
    not_better: int
    """Number of dev evaluations since the best one."""
    mask_statistics: MaskStatistics
    """Mask statistics of all workers up to this step."""
    log: LogMark
    """Size and checksum of the log up to this step."""

    def write(self, path: Path) -> None:
        """Write this checkpoint.

        Raises:
            RunError: the file cannot be written.
        """
        # The name contains the process id, because the worker of a killed command may still run for a while.
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(self._plain(), file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise cannot_write(path, error) from error

    @classmethod
    def load(cls, path: Path, run: str, kept_at: str | None = None) -> Self:
        """Return the checkpoint at `path`.

        Args:
            path: the file.
            run: hash of the settings and triplets of the present run.
            kept_at: the folder from which the file was copied, for messages.

        Raises:
            DamagedFileError: the bytes or fields are not those of a checkpoint.
            SchemaError: another version of this package wrote the checkpoint.
            RunError: the checkpoint belongs to another run.
        """
        place = f"{kept_at}/{path.name}" if kept_at else str(path)
        try:
            _verify(path)
            plain = torch.load(path, map_location="cpu", weights_only=True)
        except _DAMAGE as error:
            raise DamagedFileError(f"checkpoint {place} is damaged: {first_line(error)}") from error
        if not isinstance(plain, dict):
            raise DamagedFileError(f"checkpoint {place} is damaged: it holds a {type(plain).__name__}")
        _check_format(place, plain.get("format", 1))
        if plain.get("run") != run:
            raise RunError(
                f"checkpoint {place} is of a run with other settings, models or triplets; "
                "delete it to start anew"
            )
        try:
            return cls._parse(plain)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise DamagedFileError(
                f"checkpoint {place} is damaged: its fields: {first_line(error)}"
            ) from error

    @classmethod
    def _parse(cls, plain: Mapping[str, object]) -> Self:
        """Return the checkpoint that `_plain` made this content from.

        Raises:
            TypeError, ValueError, LookupError: the content is not that of `_plain`.
        """
        state, best, log = (_mapping(plain[name]) for name in ("state", "best", "log"))
        return cls(
            run=_of(str, plain["run"]),
            step=_of(int, plain["step"]),
            state=TrainState(
                encoder=_tensors(state["encoder"]),
                exp_avg=_tensors(state["exp_avg"]),
                exp_avg_sq=_tensors(state["exp_avg_sq"]),
                steps=_of(int, state["steps"]),
                loss_scale={name: _number(value) for name, value in _mapping(state["loss_scale"]).items()},
            ),
            best=_best(best) if best else None,
            not_better=_of(int, plain["not_better"]),
            mask_statistics=MaskStatistics(
                np.asarray(plain["counts"], np.int64), [tuple(cell) for cell in _of(list, plain["cells"])]
            ),
            log=LogMark(_of(int, log["size"]), _of(str, log["checksum"])),
        )

    def _plain(self) -> dict[str, object]:
        """Return the content in types that torch loads without running code (`weights_only=True`)."""
        return {
            "format": FORMAT,
            "run": self.run,
            "step": self.step,
            "state": vars(self.state),
            "best": vars(self.best) if self.best else {},
            "not_better": self.not_better,
            "counts": self.mask_statistics.counts.tolist(),
            "cells": self.mask_statistics.cells,
            "log": self.log._asdict(),
        }


def cannot_write(path: Path, error: Exception) -> RunError:
    """Return the error for a file that cannot be written, with the remedy if the disk is full."""
    # torch wraps the system's error in one of its own; safetensors keeps the message, but no errno.
    if any(
        getattr(each, "errno", None) == errno.ENOSPC or "No space left on device" in str(each)
        for each in error_chain(error, context=True)
    ):
        return RunError(
            f"store: no space left on {path.parent} for {path.name}; free some and run the command again, "
            "which goes on from the last checkpoint"
        )
    return RunError(f"store: cannot write {path}: {first_line(error)}")


def _check_format(place: str, number: object) -> None:
    """Raise SchemaError if the format number is not `FORMAT`."""
    if number == FORMAT:
        return
    if isinstance(number, int) and number > FORMAT:
        raise SchemaError(
            f"checkpoint {place} was written by a newer version of multicsr (format {number}); upgrade"
        )
    raise SchemaError(
        f"checkpoint {place} was written by an older version of multicsr (format {number}); go on with that, "
        "or delete the file to start anew"
    )


def _verify(path: Path) -> None:
    """Raise BadZipFile if a checksum is wrong. torch does not check them and would load damaged numbers."""
    with ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise BadZipFile(f"wrong checksum of {damaged}")


def _mapping(value: object) -> Mapping[str, object]:
    """Return `value` if it is a dict with string keys, otherwise raise TypeError."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"a mapping is expected, not {type(value).__name__}")
    return value


def _tensors(value: object) -> Tensors:
    """Return `value` if it is a dict of tensors with string keys, otherwise raise TypeError."""
    tensors = _mapping(value)
    return {name: _of(torch.Tensor, tensor) for name, tensor in tensors.items()}


def _of(kind: type[T], value: object) -> T:
    """Return `value` if it has the type `kind`, otherwise raise TypeError."""
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} is expected, not {type(value).__name__}")
    return value


def _number(value: object) -> float:
    """Return `value` if it is an int or a float, otherwise raise TypeError."""
    return value if isinstance(value, int) else _of(float, value)


def _best(plain: Mapping[str, object]) -> Best:
    """Return the best parameters from their plain form."""
    return Best(_of(int, plain["step"]), _number(plain["dev"]), _tensors(plain["model"]))
