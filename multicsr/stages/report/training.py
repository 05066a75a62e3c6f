"""Records of a training: `train.jsonl` and, if they exist, examples and statistics of masked pairs."""

from dataclasses import dataclass
from typing import TypeVar

from pydantic import TypeAdapter

from multicsr.artifacts import (
    HISTOGRAM,
    LOG,
    MASKED_PAIRS,
    MERGES,
    DevScore,
    Histogram,
    MaskedPair,
    Merges,
    Step,
    parse_log,
)
from multicsr.storage.store import FileEntry, Store
from multicsr.storage.versions import Snapshot

_ARTIFACT = "model"
T = TypeVar("T")


@dataclass(frozen=True)
class TrainingReport:
    """Content of the log of a training, with the records of its mask."""

    steps: list[Step]
    dev: list[DevScore]
    masked_pairs: list[MaskedPair]
    similarities: Histogram | None
    merges: Merges | None
    """Candidates from which dev chose when the training was done; None: there was no such choice."""

    @property
    def best(self) -> DevScore | None:
        """Return the score of the checkpoint that was kept; None if no dev set chose it."""
        return max((point for point in self.dev if point.best), key=lambda point: point.step, default=None)


def read_training(snapshot: Snapshot) -> TrainingReport | None:
    """Read the log and the mask's records of a finished training; return None if there is no log.

    Raises:
        RunError: one of these files is damaged.
    """
    if _ARTIFACT not in snapshot:
        return None
    store, folder = snapshot.store, snapshot.folder(_ARTIFACT)
    entries = {entry.path.removeprefix(f"{folder}/"): entry for entry in snapshot.manifest(_ARTIFACT).files}
    if LOG not in entries:
        return None
    lines = parse_log(store.read_verified(entries[LOG]).decode())
    return TrainingReport(
        [line for line in lines if isinstance(line, Step)],
        [line for line in lines if isinstance(line, DevScore)],
        _read(store, entries.get(MASKED_PAIRS), TypeAdapter(list[MaskedPair])) or [],
        _read(store, entries.get(HISTOGRAM), TypeAdapter(Histogram)),
        _read(store, entries.get(MERGES), TypeAdapter(Merges)),
    )


def _read(store: Store, entry: FileEntry | None, kind: TypeAdapter[T]) -> T | None:
    return None if entry is None else kind.validate_json(store.read_verified(entry))
