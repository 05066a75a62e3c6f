"""The settings and files that decide a model, so that another model gets another fingerprint."""

import hashlib
from collections.abc import Mapping

from pydantic import JsonValue

from multicsr.config import Config, TrainConfig
from multicsr.models.resolve import identify_weights
from multicsr.stages.evaluate import find_tasks, read_task
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.stages.train.data.extra_rows import digest_triplets
from multicsr.stages.train.data.index import Index
from multicsr.stages.train.objectives.load import package_of_objective
from multicsr.stages.train.recipe import resolve_recipe
from multicsr.storage.manifest import fingerprint

EXTRA_TRIPLETS = "extra_triplets"
"""Key of the labelled triplets among the settings of a model."""
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
    "trust_remote_code",
    "gradient_checkpointing",
}
"""Settings of `train` that do not affect the trained model, so a run may resume with other values."""
BY_CONTENT = {EXTRA_TRIPLETS, "keep"}
"""Settings of `train` that name files of which `deciding_files` has only the content."""
BY_CONTENT_IF_SET = {"dev"}
"""Further ones, which are part of the fingerprint, as null, where they are not set."""
IF_SET = {"matryoshka", "merge", "keep_tolerance", "rows", "label_smoothing", "random_pairs"}
"""Settings of `train` that are part of the fingerprint only where they differ from their default: they were
added when there were models already."""
NO_RESULT_OF_MASK = {"place", "cache_gib", "trust_remote_code"}
"""Settings of `train.mask` that do not affect the trained model."""
IF_SET_OF_MASK = {"pooling"}
"""Settings of `train.mask` that are part of the fingerprint only where they are set."""

ROW_SETTINGS = ("held_out", "leaks")
"""Names of what `deciding_rows` returns."""
DATA_SETTINGS = ("dev", "keep", EXTRA_TRIPLETS)
"""Names of what `deciding_data` returns."""


def identity(config: TrainConfig, index: Index, seed: int) -> str:
    """Return a hash of everything that decides the model, so that a checkpoint of another run is rejected.

    Raises:
        ConfigError: a model or the dev file is missing or cannot be used.
    """
    digest = hashlib.blake2b(index.row_R.tobytes())
    digest.update(index.sentence_T[index.text_RS].tobytes())
    if index.score_R2 is not None:
        digest.update(index.score_R2.tobytes())
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
    return files | deciding_data(config)


def deciding_data(config: TrainConfig) -> dict[str, JsonValue]:
    """Return hashes of the labelled data that `train` names: dev file, tasks to keep, and triplets.

    Raises:
        ConfigError, RunError: a file is missing or cannot be used.
    """
    data: dict[str, JsonValue] = {}
    if config.dev is not None:
        data["dev"] = read_task(config.dev).digest()
    if config.keep:
        data["keep"] = [*sorted(find_tasks(config.keep).digests.values())]
    return data | deciding_triplets(config)


def deciding_triplets(config: TrainConfig) -> dict[str, JsonValue]:
    """Return the number of labelled triplets and a hash of them; nothing if there are none.

    Raises:
        ConfigError, RunError: see `digest_triplets`.
    """
    if not config.extra_triplets:
        return {}
    num_rows, digest = digest_triplets(config.extra_triplets)
    return {EXTRA_TRIPLETS: f"{num_rows}:{digest}"}


def num_triplets(settings: Mapping[str, JsonValue]) -> int:
    """Return the number of labelled triplets in the settings of a model; see `deciding_triplets`."""
    return int(str(settings.get(EXTRA_TRIPLETS, "0")).partition(":")[0])


def deciding_rows(config: Config, known: KnownTexts | None = None) -> dict[str, JsonValue]:
    """Return what decides which curated rows are trained on, besides `train`; empty if all of them are.

    Args:
        config: the configuration of the run.
        known: texts of the labelled sets.
    """
    rows: dict[str, JsonValue] = {"held_out": config.evaluate.held_out} if config.evaluate.held_out else {}
    if config.evaluate.drop_leaks and known is not None:
        rows["leaks"] = known.digest()
    return rows


def deciding_settings(config: TrainConfig) -> dict[str, JsonValue]:
    """Return the settings of `train` that decide the model, with those that depend on the encoder.

    They include the version of the package that an objective comes from, if it is not built in.

    Raises:
        ConfigError: see `resolve_recipe`.
    """
    config = resolve_recipe(config)
    at_default = {
        name for name in IF_SET if getattr(config, name) in (TrainConfig.model_fields[name].get_default(), [])
    }
    set_files = {name for name in BY_CONTENT_IF_SET if getattr(config, name) is not None}
    unset_of_mask = {name for name in IF_SET_OF_MASK if getattr(config.mask, name, None) is None}
    settings: dict[str, JsonValue] = config.model_dump(
        mode="json",
        exclude={
            **dict.fromkeys(NO_RESULT | BY_CONTENT | set_files | at_default, True),
            "mask": NO_RESULT_OF_MASK | unset_of_mask,
        },
    )
    package = package_of_objective(config.objective)
    return settings if package is None else {**settings, "objective_package": package}
