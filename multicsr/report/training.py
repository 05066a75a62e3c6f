"""What training left behind: `train.jsonl` and, when there are any, examples of masked pairs."""

from dataclasses import dataclass

from pydantic import BaseModel, TypeAdapter, ValidationError

from multicsr.errors import RunError
from multicsr.store import Store
from multicsr.train.log import DevScore, Step, read_log

LOG = "model/train.jsonl"
MASKED_PAIRS = "model/masked_pairs.json"


class MaskedPair(BaseModel):
    """A premise and another row's hypothesis that the mask took for a false negative."""

    anchor: str
    candidate: str
    similarity: float


@dataclass(frozen=True)
class Training:
    """A training run, as its log tells it."""

    steps: list[Step]
    dev: list[DevScore]
    masked_pairs: list[MaskedPair]

    @property
    def best(self) -> DevScore | None:
        """The checkpoint that was kept, when a dev set chose it."""
        return max((point for point in self.dev if point.best), key=lambda point: point.step, default=None)


def read_training(store: Store) -> Training | None:
    """Read the log of a finished or running training; None where there is none.

    Raises:
        RunError: the masked pairs are damaged.
    """
    if not store.exists(LOG):
        return None
    lines = read_log(store.local(LOG))
    try:
        pairs = _PAIRS.validate_json(store.read_text(MASKED_PAIRS)) if store.exists(MASKED_PAIRS) else []
    except ValidationError as error:
        raise RunError(f"{store.uri(MASKED_PAIRS)} is damaged; run `multicsr train` again") from error
    return Training(
        [line for line in lines if isinstance(line, Step)],
        [line for line in lines if isinstance(line, DevScore)],
        pairs,
    )


_PAIRS: TypeAdapter[list[MaskedPair]] = TypeAdapter(list[MaskedPair])
