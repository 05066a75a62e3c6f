"""Number of parameters of a causal model, without its weights."""

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from multicsr.models.resolve import loading_model


def count_parameters(config: PreTrainedConfig, name: str) -> int:
    """Return the number of parameters that a configuration describes; tied weights count once.

    Args:
        config: the configuration of the model.
        name: value of `llm.model`, for the error message.

    Raises:
        ConfigError: transformers cannot build the model.
    """
    with loading_model(name, "llm.model"), torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(config).num_parameters())
