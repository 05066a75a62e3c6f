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
    """Return what decides the scores of a package: its version, and the model by its content.

    A model that is a name and no path on this machine counts by its name.
    """
    place = Path(score.model).expanduser() if score.model else None
    if place is not None and place.is_dir():
        model: str | None = digest_model(str(place))
    else:
        model = checksum_of_file(place) if place is not None and place.is_file() else score.model
    return {"package": SCORERS.require(score.method).origin, "model": model}


class PackageScorer:
    """Scorer that calls the function of a package. Thread-safe."""

    column = "model"

    def __init__(self, score: ScoreConfig) -> None:
        """Load the scorer that `score.method` names.

        Raises:
            ConfigError: see `find_scorer`; or it returns no function of one argument.
        """
        self._extension, make = find_scorer(score.method)
        self._score = make(score.model)
        self._extension.require_callable(self._score, 1, "returned")
        self._lock = threading.Lock()

    def score(
        self, pairs: Sequence[tuple[str, str]], row_ids: Sequence[str]
    ) -> Sequence[PairScore | Rejection]:
        """Implement `Scorer.score`.

        Raises:
            RunError: the package returns another number of scores, or one that is not on the scale.
        """
        with self._lock:
            scores = [float(score) for score in self._score(pairs)]
        if len(scores) != len(pairs):
            raise RunError(f"{self._extension} returned {len(scores)} scores for {len(pairs)} pairs")
        for pair, score in zip(pairs, scores, strict=True):
            if score < 0 or score > _HIGHEST:
                raise RunError(f"{self._extension} returned {score:g} for {pair}; scores are from 0 to 5")
        return [PairScore(round(score, DECIMALS)) for score in scores]
