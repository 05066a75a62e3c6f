"""Calibration of the deciding score, before the LLM is paid for a corpus: score pairs and fit a map.

The map lies in the store as `calibration/<key>.json`, under a hash of the pairs and of all that decides their
scores, so the pairs are scored once. The rows keep their scores; curation applies the map when it reads them.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from pydantic import JsonValue, TypeAdapter

from multicsr.config import Config, ScorerName
from multicsr.config.packages import parts_of_generation
from multicsr.errors import ConfigError
from multicsr.execution.pool import Pool, map_items
from multicsr.extensions import checked_first
from multicsr.labelled_files import ScoredPairs
from multicsr.llm.base import Rejection
from multicsr.observability.progress import Progress
from multicsr.stages.generate.llm_cache import CacheKey
from multicsr.stages.generate.writing import config_for_workers
from multicsr.stages.score.calibration import ScoreMap, fit_map, read_pairs
from multicsr.stages.score.load import load_scorers, load_scoring_engine
from multicsr.stages.score.scorer import DECIMALS, column_of
from multicsr.storage.manifest import fingerprint
from multicsr.storage.store import Store

_FOLDER = "calibration"
_MODEL = ("llm", "weights", "lora")
"""Settings of writing that decide scores too: those of the model."""
_map = TypeAdapter(ScoreMap)
_log = logging.getLogger(__name__)


def calibrate(config: Config, store: Store, settings: Mapping[str, JsonValue], progress: Progress) -> None:
    """Score the pairs of `score.calibrate` and keep the map, unless it exists or the setting is unset.

    Args:
        config: the settings of the run.
        store: the store of the run.
        settings: those that decide the scored artifact.
        progress: receives the pairs and the result.

    Raises:
        ConfigError: the pairs or the scorer cannot work as configured.
        RunError: the scores of too few pairs exist, or they do not rise with those of people.
    """
    if config.score.calibrate is None:
        return
    pairs = read_pairs(config.score.calibrate)
    name = _name(pairs, config.deciding_score, settings)
    progress.start("calibrate", len(pairs.scores), "pairs")
    if is_known := store.exists(name):
        found = store.read_json(name, _map, "; delete it")
    else:
        found = fit_map(_score(config, pairs), np.array(pairs.scores))
        store.write_json(name, found)
    progress.advance(len(pairs.scores))
    progress.finish(f"{found}{'; reused' if is_known else ''}")
    if found.is_chance:
        _log.warning(
            "score.calibrate: the scores may be unrelated to those of people: %s; take another score.method, "
            "score.model or LLM",
            found,
        )


def read_map(config: Config, store: Store, settings: Mapping[str, JsonValue]) -> ScoreMap | None:
    """Return the map for the scores of a scored artifact; None if `score.calibrate` is unset.

    Args:
        config: the settings of the run.
        store: the store of the run.
        settings: those of the scored artifact.

    Raises:
        ConfigError: the pairs were not scored by the scorer of these rows.
    """
    if config.score.calibrate is None:
        return None
    name = _name(read_pairs(config.score.calibrate), config.deciding_score, settings)
    if not store.exists(name):
        raise ConfigError(
            "score.calibrate: the scorer of these rows has not scored these pairs; run `multicsr generate`, "
            "which writes no row again for it"
        )
    return store.read_json(name, _map, "; delete it, and run `multicsr generate`")


def _name(pairs: ScoredPairs, score: ScorerName, settings: Mapping[str, JsonValue]) -> str:
    """Return the name of the file with the map."""
    writing = settings["writing"]
    model = {key: writing.get(key) for key in _MODEL} if isinstance(writing, dict) else {}
    causes = {"pairs": pairs.digest(), "score": score, "scoring": CacheKey.of(settings).scores}
    return f"{_FOLDER}/{fingerprint({**causes, **model})}.json"


def _score(config: Config, pairs: ScoredPairs) -> np.ndarray:
    """Score the pairs in one actor; return the scores [N], NaN where there is none."""
    generate = config.generate
    pool = Pool(1, generate.cpus_per_actor, generate.gpus_per_actor, generate.nodes)
    texts = list(zip(pairs.sentences1, pairs.sentences2, strict=True))
    worker_config = config_for_workers(config)
    make = checked_first(parts_of_generation(config), lambda: pair_scorer(worker_config))
    [scores] = map_items("generate", make, [texts], pool)
    return np.array([np.nan if score is None else round(score, DECIMALS) for score in scores])


def pair_scorer(config: Config) -> Callable[[Sequence[tuple[str, str]]], list[float | None]]:
    """Load the scorer whose scores decide; return the function that scores pairs with it."""
    engine = load_scoring_engine(config)
    column = column_of(config.deciding_score)
    scorer = next(each for each in load_scorers(config, engine) if each.column == column)
    size = (engine.batch_size if engine else None) or config.generate.batch_size

    def score(texts: Sequence[tuple[str, str]]) -> list[float | None]:
        order = sorted(range(len(texts)), key=lambda index: -sum(map(len, texts[index])))
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        with ThreadPoolExecutor(engine.batches_at_once if engine else 1) as threads:
            results = threads.map(
                lambda batch: scorer.score([texts[i] for i in batch], [f"pair {i}" for i in batch]), batches
            )
            found = {
                index: None if isinstance(result, Rejection) else result.value
                for batch, scored in zip(batches, results, strict=True)
                for index, result in zip(batch, scored, strict=True)
            }
        if engine is not None:
            engine.close()
        return [found[index] for index in range(len(texts))]

    return score
