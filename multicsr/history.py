"""The nights of a store: what every refresh found, cost and decided. One small file each, never changed."""

import time
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from multicsr.store import Store

_FOLDER = "history"


class Night(BaseModel):
    """One refresh."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    started: str
    """ISO 8601, UTC."""
    seconds: float
    outcome: Literal["nothing new", "published"]
    version: int | None
    """The version it left as the current one."""
    sentences: int
    """In the corpus now."""
    new: int = 0
    """Sentences that were not there before."""
    removed: int = 0
    """Sentences that are gone from the source."""
    rows_written: int = 0
    """Sentences that the LLM wrote hypotheses for."""
    rows_scored: int = 0
    tokens: int = 0
    """Written by the LLM."""
    curated: int = 0
    """Triplets that are trained on."""
    curated_changed: float = 0.0
    """Share of them that differ from what the model before was trained on."""
    gpu_seconds: float = 0.0
    cost: float = 0.0
    """At `refresh.price_per_gpu_hour`."""
    metrics: dict[str, float] = {}
    """Figures of the model that was trained tonight, promoted or not; empty when none was."""
    metrics_before: dict[str, float] = {}
    """Figures of the model before, on the same tasks."""
    decision: str
    """What became of the model and why, in words."""


_night = TypeAdapter(Night)


def append(store: Store, night: Night) -> None:
    """Add a night; the lease on the store keeps others from adding one at the same time."""
    name = f"{_FOLDER}/{time.time_ns():020d}.json"  # names sort as the nights came
    store.write_text(name, night.model_dump_json(indent=1) + "\n")


def nights(store: Store) -> list[Night]:
    """All of them, oldest first. Raises RunError when one is damaged."""
    names = [name for name in store.names(_FOLDER) if name.endswith(".json")]
    return [store.read_json(name, _night, "; delete it") for name in names]
