"""The evaluation stage of a run: its encoder after training and, as a baseline, before."""

from typing import TYPE_CHECKING

from multicsr.config import Config, TrainConfig
from multicsr.errors import ConfigError
from multicsr.evaluate.evaluation import Candidate, Evaluation, evaluate_models, saved
from multicsr.manifest import read_manifest
from multicsr.progress import Progress
from multicsr.store import Store

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

EVALUATION = "evaluation.json"


def evaluate_run(config: Config, store: Store, progress: Progress) -> Evaluation:
    """Measure a run's encoder and write `evaluation.json` to its store.

    Raises:
        ConfigError: `evaluate.data` is empty or unusable.
        RunError: no encoder was trained in this store.
    """
    if not config.evaluate.data:
        raise ConfigError("evaluate.data is empty: name TSV files, or directories of them")
    read_manifest(store, "model")
    trained = saved(str(store.local("model")), "after training")
    candidates = [untrained(config.train), trained] if config.evaluate.baseline else [trained]
    evaluation = evaluate_models(candidates, config.evaluate.data, config.evaluate.batch_size, progress)
    store.write_text(EVALUATION, evaluation.model_dump_json(indent=2) + "\n")
    return evaluation


def untrained(config: TrainConfig) -> Candidate:
    """Encoder G as training finds it: same layers, same pooling."""

    def load() -> "SentenceTransformer":
        from multicsr.train.encoder import load_encoder

        return load_encoder(
            config.encoder, pooling=config.pooling, layers=config.layers, max_length=config.max_length
        )

    return Candidate("before training", load)
