"""The settings and files that decide a model, so that another model gets another fingerprint."""

import hashlib

from pydantic import JsonValue

from multicsr.config import TrainConfig
from multicsr.models.resolve import identify_weights
from multicsr.stages.evaluate import digest_task, read_task
from multicsr.stages.train.data.index import Index
from multicsr.storage.manifest import fingerprint

NO_RESULT = {
    "cpus_per_worker",
    "nodes",
    "gpus_per_worker",
    "workers",
    "min_workers",
    "grad_cache",
    "deepspeed",
    "checkpoint_every_s",
    "max_restarts",
    "tensorboard",
    "mlflow",
}
"""Settings of `train` that do not affect the trained model, so a run may resume with other values."""
NO_RESULT_OF_MASK = {"place", "cache_gib"}
"""Settings of `train.mask` that do not affect the trained model."""


def identity(config: TrainConfig, index: Index, seed: int) -> str:
    """Return a hash of everything that decides the model, so that a checkpoint of another run is rejected.

    Raises:
        ConfigError: a model or the dev file is missing or cannot be used.
    """
    digest = hashlib.blake2b(index.row_R.tobytes())
    digest.update(index.sentence_T[index.text_RS].tobytes())
    return fingerprint(
        {
            "train": deciding_settings(config),
            "files": deciding_files(config),
            "seed": seed,
            "triplets": digest.hexdigest(),
        }
    )


def deciding_files(config: TrainConfig, start: str | None = None) -> dict[str, JsonValue]:
    """Return hashes of the files that `train` names, so that other content at the same path is another run.

    Args:
        config: the settings of the training.
        start: fingerprint of the model that is trained further instead of `train.encoder`.

    Raises:
        ConfigError: a model or the dev file is missing or cannot be used.
    """
    files: dict[str, JsonValue] = {
        "encoder_weights": start or identify_weights(config.encoder, "train.encoder")
    }
    if config.mask is not None:
        files["mask_weights"] = identify_weights(config.mask.model, "train.mask.model")
    if config.dev is not None:
        files["dev"] = digest_task(read_task(config.dev))
    return files


def deciding_settings(config: TrainConfig) -> dict[str, JsonValue]:
    """Return the settings of `train` that decide the model."""
    return config.model_dump(
        mode="json", exclude={**dict.fromkeys(NO_RESULT, True), "mask": NO_RESULT_OF_MASK}
    )
