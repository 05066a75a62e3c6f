"""An LLM that measures the similarity of the pairs of a task itself (Table 1)."""

from collections.abc import Sequence

import numpy as np

from multicsr.config import Config
from multicsr.config.packages import parts_of_generation
from multicsr.errors import RunError
from multicsr.execution.pool import Pool, map_items
from multicsr.extensions import checked_first
from multicsr.stages.evaluate import Measurement, ResultCache, StsTask, Task, TripletTask
from multicsr.stages.evaluate.kinds.means import share_measurement
from multicsr.stages.generate.calibrate import pair_scorer
from multicsr.stages.generate.fingerprint import result_settings
from multicsr.storage.manifest import fingerprint
from multicsr.tools.reproduce.measures.work import TableWork

TextPair = tuple[str, str]


def measure_by_llm(config: Config, tasks: Sequence[Task], work: TableWork) -> list[Measurement]:
    """Score the pairs of tasks by an LLM, and compare the scores with human ones.

    Args:
        config: settings of the LLM, its prompt set and the score that decides.
        tasks: tasks of pairs with scores, or triplets; others are left out.
        work: the table.

    Raises:
        RunError: no task has pairs, or the LLM scored too few of them.
    """
    usable = [task for task in tasks if isinstance(task, (StsTask, TripletTask))]
    if not usable:
        raise RunError("no task has pairs that an LLM could score")
    cache = ResultCache(work.folder)
    key = fingerprint(
        {"scored pairs": result_settings(_without_demonstrations(config)), "score": config.deciding_score}
    )
    results: list[Measurement] = []
    for task in usable:
        found = cache.read(key, task, config.generate.batch_size)
        if found is None:
            found = [_measure(config, task, work)]
            cache.write(key, task, config.generate.batch_size, found)
        results.extend(found)
    return results


def _without_demonstrations(config: Config) -> Config:
    """Return the settings of a score, whose prompt shows no demonstrations."""
    generate = config.generate.model_copy(update={"demonstrations": None})
    return config.model_copy(update={"generate": generate})


def _measure(config: Config, task: StsTask | TripletTask, work: TableWork) -> Measurement:
    pairs, count = _pairs(task), len(task.columns()[0])
    work.progress.start("score", len(pairs), "pairs")
    pool = Pool(1, config.generate.cpus_per_actor, config.generate.gpus_per_actor, config.generate.nodes)
    make = checked_first(parts_of_generation(config), lambda: pair_scorer(config))
    [scores] = map_items("score", make, [pairs], pool)
    work.progress.advance(len(pairs))
    score_P = np.array([np.nan if score is None else score for score in scores])
    scored = int(np.isfinite(score_P).sum())
    work.progress.finish(f"{task.name}: {scored:,} of {len(pairs):,} pairs have a score")
    if isinstance(task, StsTask):
        return _correlation(task, score_P)
    return _share(task, score_P[:count], score_P[count:])


def _pairs(task: StsTask | TripletTask) -> list[TextPair]:
    """Return the pairs of a task: of triplets those with the positives, then those with the negatives."""
    first, *others = task.columns()
    return [pair for other in others for pair in zip(first, other, strict=True)]


def _correlation(task: StsTask, score_N: np.ndarray) -> Measurement:
    """Return Spearman's correlation over the pairs that have a score."""
    known_N = np.isfinite(score_N)
    human_N = np.asarray(task.scores)[known_N]
    if known_N.sum() < 2 or np.ptp(human_N) == 0:
        raise RunError(f"{task.name}: the LLM scored {int(known_N.sum()):,} pairs, too few to correlate")
    return task.correlation(score_N[known_N], human_N)


def _share(task: TripletTask, positive_N: np.ndarray, negative_N: np.ndarray) -> Measurement:
    """Return the share of triplets whose positive has the higher score; a missing score is wrong."""
    right_N = np.nan_to_num(positive_N, nan=-1.0) > np.nan_to_num(negative_N, nan=6.0)
    return share_measurement(task, "accuracy x 100", right_N)
