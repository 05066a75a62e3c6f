"""Replacement of an encoder's pooling by the one that the configuration names."""

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, WeightedLayerPooling
from torch import nn

from multicsr.config.training import PoolingMode
from multicsr.errors import ConfigError

_MODES = {"cls": "cls", "mean": "mean", "first_last": "mean", "last_token": "lasttoken"}
"""Modes of sentence-transformers' Pooling, by the names in the configuration."""


def replace_pooling(
    name: str, model: SentenceTransformer, pooling: PoolingMode, setting: str = "train.pooling"
) -> SentenceTransformer:
    """Return the model with another pooling; its other modules, prompts and settings stay.

    Args:
        name: name of the encoder, for messages.
        model: the encoder. It must not be used afterwards.
        pooling: the first token's vector, the mean of all, SimCSE's avg_first_last, or the last token's.
        setting: the setting that names the pooling, for messages.

    Raises:
        ConfigError: the encoder pools no tokens, or a dense layer behind the pooling has another width.
    """
    transformer, modules = model[0], list(model)
    own = next((module for module in modules if isinstance(module, Pooling)), None)
    if own is None or not isinstance(transformer, Transformer):
        raise ConfigError(
            f"{setting}: {name} has no pooling to replace ({_names(modules)}); leave {setting} unset"
        )
    width = transformer.get_embedding_dimension()
    if own.get_embedding_dimension() != width and any(isinstance(module, Dense) for module in modules):
        raise ConfigError(
            f"{setting}: {name} has a dense layer behind its pooling ({own.pooling_mode}), which has "
            f"another width than {pooling}; leave {setting} unset"
        )
    transformer.config.output_hidden_states = pooling == "first_last"
    place = modules.index(own)
    before = [module for module in modules[:place] if not isinstance(module, WeightedLayerPooling)]
    if pooling == "first_last":
        before.append(_first_and_last(width, transformer.config.num_hidden_layers))
    pooled = Pooling(width, pooling_mode=_MODES[pooling], include_prompt=own.include_prompt)
    return SentenceTransformer(
        modules=[*before, pooled, *modules[place + 1 :]],
        device="cpu",
        prompts=model.prompts,
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
        truncate_dim=model.truncate_dim,
    ).eval()


def _first_and_last(width: int, layers: int) -> WeightedLayerPooling:
    # hidden_states[0] are the embeddings below the first layer, which SimCSE does not take either.
    weight_L = torch.zeros(layers)
    weight_L[[0, -1]] = 1.0
    fixed = nn.Parameter(weight_L, requires_grad=False)
    return WeightedLayerPooling(width, num_hidden_layers=layers, layer_start=1, layer_weights=fixed)


def _names(modules: list[nn.Module]) -> str:
    return ", ".join(type(module).__name__ for module in modules)
