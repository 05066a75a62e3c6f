"""The encoder P by which labelled premises are found: what decides its vectors, and where it runs."""

from typing import TYPE_CHECKING

from pydantic import JsonValue

from multicsr.config import Config, Retriever
from multicsr.errors import ConfigError

if TYPE_CHECKING:
    from multicsr.models.frozen_encoder import FrozenEncoder


def retriever_settings(chosen: Retriever) -> dict[str, JsonValue]:
    """Return the settings that decide the vectors of P, with a digest of its weights.

    Raises:
        ConfigError: there is no such model.
    """
    from multicsr.models.frozen_encoder import vector_settings

    return vector_settings(chosen.model, chosen.setting, chosen.prompt, chosen.pooling, device=None)


def retrieval_device(config: Config) -> str:
    """Return the device of P, `cuda` where actors have GPUs: vectors of two kinds of devices differ."""
    return "cuda" if config.generate.gpus_per_actor > 0 and config.llm.device != "cpu" else "cpu"


def load_encoder(config: Config) -> "FrozenEncoder":
    """Load the encoder P of the demonstrations.

    Raises:
        ConfigError: there is no such model, it has no weights, or a GPU is asked for and there is none.
        AssertionError: there are no demonstrations.
    """
    if config.generate.demonstrations is None:
        raise AssertionError("asked for the encoder of demonstrations, and there are none")
    import torch

    from multicsr.models.frozen_encoder import FrozenEncoder

    device = retrieval_device(config)
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"generate.gpus_per_actor is {config.generate.gpus_per_actor:g}, and torch finds no GPU to find "
            "demonstrations on; set it to 0, or llm.device to cpu"
        )
    torch.set_num_threads(max(1, int(config.generate.cpus_per_actor)))
    chosen = config.generate.demonstrations.retriever(config.train)
    return FrozenEncoder(
        chosen.model,
        chosen.setting,
        device,
        chosen.prompt,
        pooling=chosen.pooling,
        trust_remote_code=chosen.trust_remote_code,
    )
