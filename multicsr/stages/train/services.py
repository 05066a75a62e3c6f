"""The functions through which a training reaches its sentences, P, the dev evaluation and the store."""

from collections.abc import Callable
from dataclasses import dataclass

from multicsr.stages.evaluate import Task
from multicsr.stages.train.data.source import Source
from multicsr.stages.train.mask_model.model import Embedder
from multicsr.stages.train.monitoring.dev_evaluation import Evaluator
from multicsr.storage.store import Store


@dataclass(frozen=True)
class TrainingServices:
    """The services of one training on one worker."""

    source: Source
    """Source of the sentences."""
    embedder: Callable[[], Embedder] | None = None
    """Function that starts P; None: no mask."""
    evaluator: Callable[[], Evaluator] | None = None
    """Function that starts the evaluation on dev; None: no evaluation."""
    chooser: Callable[[], Task] | None = None
    """Function that returns the task that chooses among merges, called before the first step; None: nothing
    chooses."""
    vectors: Store | None = None
    """Store that keeps P's vectors for other runs; None: they are not kept."""
    keep: Callable[..., None] = lambda *names: None
    """Function that is called with the names of all complete files that a later worker will need."""
