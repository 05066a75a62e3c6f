"""Results of earlier evaluations in the user's cache directory, by the contents of encoder and task.

A file holds the scores of one encoder on one task with their examples. Its first line is the checksum of the
rest; a file that does not have it is measured again.
"""

import io
import logging
import os
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue, TypeAdapter

from multicsr.artifacts import FileRecord
from multicsr.hashing import checksum
from multicsr.stages.evaluate.task import Examples, Measurement, Score, Task
from multicsr.storage.manifest import fingerprint

logger = logging.getLogger(__name__)

METHOD = 3
"""Version of the computation of all metrics. A higher one makes all kept results unused."""
PACKAGES = (
    *("torch", "transformers", "sentence-transformers", "numpy", "scipy", "scikit-learn"),
    *("bm25s", "pytrec-eval-terrier"),
)
"""Packages that compute results."""
_SCORES = "scores"
"""Name of the array that holds the JSON of the scores."""


class _KeptScore(FileRecord):
    """A score, and the statistic of its examples with its scale, if it has any."""

    score: Score
    statistic: str | None
    scale: float


_scores = TypeAdapter(list[_KeptScore])


@dataclass(frozen=True)
class ResultCache:
    """Results in the files of a directory, which need not exist."""

    folder: Path

    def read(self, encoder: str, task: Task, batch_size: int) -> list[Measurement] | None:
        """Return the results of an encoder on a task; None if they are not known.

        Args:
            encoder: digest of everything that decides the encoder's vectors.
            task: the task.
            batch_size: texts in one forward pass, which decides the last bits of vectors.
        """
        path = self._path(encoder, task, batch_size)
        try:
            return _unpack(path.read_bytes(), task.name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
            logger.warning("%s is damaged (%s); %s is measured again", path, error, task.name)
            return None

    def write(self, encoder: str, task: Task, batch_size: int, results: Sequence[Measurement]) -> None:
        """Keep results; see `read`. A directory that cannot be written is a warning."""
        path = self._path(encoder, task, batch_size)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
                try:
                    file.write(_pack(results))
                    file.close()
                    os.replace(file.name, path)
                except OSError:
                    os.unlink(file.name)
                    raise
        except OSError as error:
            logger.warning("the results on %s are not kept: %s", task.name, error)

    def _path(self, encoder: str, task: Task, batch_size: int) -> Path:
        causes: dict[str, JsonValue] = {
            "method": METHOD,
            "encoder": encoder,
            "task": task.digest(),
            "batch_size": batch_size,
            "packages": {**package_versions()},
        }
        return self.folder / f"{fingerprint(causes)}.npz"


def user_cache() -> ResultCache:
    """Return the cache of this user: `multicsr/evaluations` in $XDG_CACHE_HOME, or else in `~/.cache`."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # A relative path is invalid by the XDG specification, and would be another cache in every directory.
    folder = given if given.is_absolute() else Path.home() / ".cache"
    return ResultCache(folder / "multicsr" / "evaluations")


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that compute results; those that are not installed are left out."""
    versions: dict[str, str] = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _pack(results: Sequence[Measurement]) -> bytes:
    kept = [
        _KeptScore(
            score=r.score,
            statistic=r.examples.statistic if r.examples else None,
            scale=r.examples.scale if r.examples else 1.0,
        )
        for r in results
    ]
    arrays: dict[str, Any] = {_SCORES: np.frombuffer(_scores.dump_json(kept), np.uint8)}
    arrays |= {str(n): r.examples.value_NK for n, r in enumerate(results) if r.examples is not None}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return checksum(file.getvalue()).encode() + b"\n" + file.getvalue()


def _unpack(data: bytes, task: str) -> list[Measurement]:
    """Return the results in the bytes of a file; raise ValueError if they are damaged."""
    head, _, body = data.partition(b"\n")
    if head != checksum(body).encode():
        raise ValueError("its checksum is another one")
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        return [
            Measurement(
                kept.score.model_copy(update={"task": task}),
                Examples(kept.statistic, arrays[str(number)], kept.scale) if kept.statistic else None,
            )
            for number, kept in enumerate(_scores.validate_json(arrays[_SCORES].tobytes()))
        ]
