"""Scorer of another package: `score.method` names its entry point of the group `multicsr.scorers`."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from multicsr.config import ScoreConfig
from multicsr.config.triplets import SCORERS
from multicsr.errors import RunError
from multicsr.extensions import Extension
from multicsr.hashing import checksum_of_file
from multicsr.llm.base import Rejection
from multicsr.models.resolve import digest_model
from multicsr.stages.score.scorer import DECIMALS, PairScore

_HIGHEST = 5
_SHOWN = 80
"""Maximum number of characters of a sentence in a message."""


class ScorePairs(Protocol):
    """A function that scores pairs of sentences. It is never called by two threads at once."""

    def __call__(self, pairs: Sequence[tuple[str, str]], /) -> Sequence[float]:
        """Return the score of each pair (premise, hypothesis), from 0 to 5.

        The score of a pair depends on no other pair. NaN: the pair has no score, and its row is rejected.
        """


class MakeScorer(Protocol):
    """The object that an entry point of the group `multicsr.scorers` names."""

    def __call__(self, model: str | None, /) -> ScorePairs:
        """Return the function that scores, with what it needs loaded.

        Args:
            model: the text of `score.model`; None if it is not set.
        """


def find_scorer(name: str) -> tuple[Extension, MakeScorer]:
    """Import the package that has a scorer; return its entry point and its object.

    Raises:
        ConfigError: no package has it, it cannot be imported, or it is no function of one argument.
    """
    extension = SCORERS.require(name)
    found = extension.load()
    extension.require_callable(found, 1)
    return extension, cast(MakeScorer, found)


def deciding_package(score: ScoreConfig) -> dict[str, str | None]:
    """Return what decides the scores of a package: its version, and the model by its content."""
    return {"package": SCORERS.require(score.method).origin, "model": _content_of(score.model)}


def _content_of(model: str | None) -> str | None:
    """Return a digest of the folder or file of that path, below the working directory if it is relative.

    A text that is no path on this machine counts itself, such as a name, or an instruction too long for one.
    """
    place = _path_of(model) if model else None
    if place is None:
        return model
    return digest_model(str(place)) if place.is_dir() else checksum_of_file(place)


def _path_of(model: str) -> Path | None:
    """Return the path of that text; None if this machine has none, or the text cannot be one."""
    try:
        place = Path(model).expanduser()
        return place if place.is_dir() or place.is_file() else None
    except (OSError, RuntimeError):  # too long, or the home of an unknown user
        return None


class PackageScorer:
    """Scorer that calls the function of a package. Thread-safe."""

    column = "model"

    def __init__(self, score: ScoreConfig) -> None:
        """Load the scorer that `score.method` names.

        Raises:
            ConfigError: see `find_scorer`; or it returns no function of one argument.
        """
        self._extension, make = find_scorer(score.method)
        with self._extension.calling():
            self._score = make(score.model)
        self._extension.require_callable(self._score, 1, "returned")
        self._lock = threading.Lock()

    def score(
        self, pairs: Sequence[tuple[str, str]], row_ids: Sequence[str]
    ) -> Sequence[PairScore | Rejection]:
        """Implement `Scorer.score`.

        Raises:
            RunError: the package raises an exception, returns another number of scores, or one that is no
                number or not on the scale.
        """
        with self._lock, self._extension.calling():
            scores = [float(score) for score in self._score(pairs)]
        if len(scores) != len(pairs):
            raise RunError(f"{self._extension} returned {len(scores)} scores for {len(pairs)} pairs")
        rounded = [round(score, DECIMALS) + 0.0 for score in scores]  # 0.0 makes 0.0 of -0.0
        for (premise, hypothesis), score, value in zip(pairs, scores, rounded, strict=True):
            if value < 0 or value > _HIGHEST:
                pair = f"{premise[:_SHOWN]!r} and {hypothesis[:_SHOWN]!r}"
                raise RunError(f"{self._extension} returned {score!r} for {pair}; scores are from 0 to 5")
        return [PairScore(value) for value in rounded]
