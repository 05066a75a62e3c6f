"""The one door to Ray Data: shards in, shards out, every row accounted for.

Ray Data carries names of shards, never rows. A worker reads a shard, works, writes its rejects, its rows and
last its report, which is what commits the shard. The driver adds up reports.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
from pydantic import JsonValue

from multicsr.manifest import Manifest
from multicsr.progress import Progress
from multicsr.store import Store


@dataclass(frozen=True)
class StageOutput:
    """What a stage made of one shard."""

    rows: pa.Table
    rejects: pa.Table
    """Of schema `rows.rejects(...)`."""
    counters: dict[str, float] = field(default_factory=dict)
    """Amounts that make sense when summed over shards."""


class Shard(Protocol):
    """A named part of a stage's input."""

    key: str

    def read(self, store: Store) -> pa.Table: ...


@dataclass(frozen=True)
class Stage:
    """What runs, and on what."""

    name: str
    """Names the stage in progress, messages, manifests, and the section of its settings."""
    room: str
    """Folder of the store it writes."""
    reads: pa.Schema
    writes: pa.Schema
    make: Callable[[], Callable[[pa.Table], StageOutput]]
    """Called once in each worker; raises ConfigError when it cannot work as configured."""
    actors: int | None = None
    """Size of the actor pool; None: plain tasks, for cheap work without a model."""
    cpus: float = 1
    gpus: float = 0
    shards_per_task: int = 1
    """Shards a task takes in a row; more than one where the work is small beside Ray's overhead."""
    max_rejected: float = 1.0


def run_stage(
    stage: Stage,
    store: Store,
    shards: Sequence[Shard],
    *,
    run: str,
    rows_in: int,
    settings: dict[str, JsonValue],
    progress: Progress,
) -> Manifest:
    """Take every shard through the stage, once, and publish the room.

    Raises:
        ConfigError: the stage cannot work as configured.
        RunError: rows lost, too many rejected, a worker died again and again, the disk is full.
    """
    raise NotImplementedError
