"""What training left behind: `train.jsonl` and, when there are any, examples of masked pairs."""

from dataclasses import dataclass
from typing import TypeVar

from pydantic import TypeAdapter

from multicsr.store import Store
from multicsr.train.log import HISTOGRAM, LOG, MASKED_PAIRS, DevScore, Histogram, MaskedPair, Step, parse_log
from multicsr.versions import Rooms

_ROOM = "model"
T = TypeVar("T")


@dataclass(frozen=True)
class Training:
    """A training run, as its log tells it."""

    steps: list[Step]
    dev: list[DevScore]
    masked_pairs: list[MaskedPair]
    similarities: Histogram | None

    @property
    def best(self) -> DevScore | None:
        """The checkpoint that was kept, when a dev set chose it."""
        return max((point for point in self.dev if point.best), key=lambda point: point.step, default=None)


def read_training(rooms: Rooms) -> Training | None:
    """Read the log of a finished training; None where there is none.

    Raises:
        RunError: what the mask saw is damaged.
    """
    if _ROOM not in rooms:
        return None
    store, folder = rooms.store, rooms.folder(_ROOM)
    lines = parse_log(store.read_text(f"{folder}/{LOG}"))
    return Training(
        [line for line in lines if isinstance(line, Step)],
        [line for line in lines if isinstance(line, DevScore)],
        _read(store, f"{folder}/{MASKED_PAIRS}", TypeAdapter(list[MaskedPair])) or [],
        _read(store, f"{folder}/{HISTOGRAM}", TypeAdapter(Histogram)),
    )


def _read(store: Store, path: str, kind: TypeAdapter[T]) -> T | None:
    if not store.exists(path):
        return None
    return store.read_json(path, kind, "; delete it and run `multicsr train CONFIG` again")
