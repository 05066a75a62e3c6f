"""The runner of an ablation: every variant with every seed, measured, and compared over examples and seeds.

Every training takes the same number of optimizer steps, so that a larger corpus is not a longer training. The
checkpoint with the best `train.dev` figure is measured. Results are kept in `ablation/` of the store, a file
for each training and task, so that an interrupted ablation continues and several may run side by side.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.messages.extras import require_extra
from multicsr.observability.progress import Progress
from multicsr.pipeline.preflight import require_no_problems
from multicsr.stages.evaluate import find_tasks
from multicsr.storage.store import Store
from multicsr.tools.ablate.table import table_of
from multicsr.tools.ablate.trainings import FOLDER, VariantRunner, require_one_process, require_seeds
from multicsr.tools.ablate.variants import variants

if TYPE_CHECKING:
    from rich.table import Table


def ablate(
    config: Config,
    *,
    data: Sequence[str],
    seeds: int,
    progress: Progress,
    human: Path | None = None,
    stages: bool = True,
    baselines: bool = False,
) -> "Table":
    """Train every variant with every seed, and compare them with the published encoder.

    Args:
        config: settings of the full method; `train.steps` sets the length of every training.
        data: evaluation files or directories.
        seeds: number of trainings of each variant, with seeds config.seed, config.seed + 1, ...
        progress: reporter of the stages.
        human: TSV of human triplets (anchor, positive, negative); None: no variant has any.
        stages: add the variants without some of the stages.
        baselines: add the methods that are compared with MultiCSR.

    Returns:
        A table with a row for each variant and a column for the main metric of each task.

    Raises:
        ConfigError: `train.steps` is unset, a setting has no effect or takes stages away, the store is no
            local directory, the seeds are too large, or data or human triplets cannot be used.
        RunError: another ablation is training the same variant with the same seed.
    """
    require_extra("baselines" if baselines else "train", "an ablation")
    if config.train.steps is None:
        raise ConfigError("train.steps is unset: an ablation trains every variant for the same number")
    require_one_process(config.train)
    if baselines and config.train.extra_triplets:
        raise ConfigError(
            "train.extra_triplets: baselines train on the generated triplets alone; leave it out, or give "
            "--human, which adds variants with human triplets"
        )
    store = Store.of(config)
    if store.directory is None:
        raise ConfigError("store: an ablation keeps its trainings in a local directory; give one")
    require_seeds(config.seed, seeds)
    found = find_tasks(data)
    require_no_problems(["train"], config)
    chosen = variants(config, human, stages=stages, baselines=baselines, progress=progress)
    runner = VariantRunner(config, store, store.directory / FOLDER, found, progress)
    return table_of([runner.row(variant, seeds) for variant in chosen])
