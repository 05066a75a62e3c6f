"""What a measurement is."""

from pydantic import BaseModel, ConfigDict


class Score(BaseModel):
    """One encoder on one task."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    task: str
    kind: str
    """`sts` or `triplets`."""
    metric: str
    """What `value` is, with its scale."""
    value: float
    num_rows: int
    """Pairs or triplets measured."""
    subsets: dict[str, float] = {}
    """The same metric on each subset of an STS file alone, where it is defined."""
