"""Baselines without a training: the mean of input embeddings, and whitening."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.stages.evaluate.run import published, untrained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentence_transformers import SentenceTransformer

_SMALLEST_SHARE = 1e-6
"""Variance of a direction, as a share of the largest one, below which it is noise and is left out."""
_LEAST_PREMISES = 2
"""Number of different sentences without which there is no variance."""


def input_embeddings(config: TrainConfig) -> "SentenceTransformer":
    """Return the mean of the published encoder's own input embeddings of a text's tokens.

    Of static embeddings it is the encoder without the modules that follow.

    Raises:
        ConfigError: the encoder has no input embeddings of tokens, or no fast tokenizer.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from transformers import PreTrainedTokenizerFast

    model = published(config).load()
    if isinstance(model[0], StaticEmbedding):
        return SentenceTransformer(modules=[model[0]])
    transformer = model.transformers_model
    if transformer is None or not isinstance(model.tokenizer, PreTrainedTokenizerFast):
        raise ConfigError(
            f"--baselines: {config.encoder} has no transformer with a fast tokenizer, whose input embeddings "
            "are a baseline"
        )
    weight_VD = transformer.get_input_embeddings().weight.detach().float().cpu()
    return SentenceTransformer(modules=[StaticEmbedding(model.tokenizer, embedding_weights=weight_VD)])


def whitened(config: TrainConfig, premises: "Sequence[str]") -> "SentenceTransformer":
    """Return the untrained encoder, in float32, followed by a whitening of its vectors (Su et al. 2021).

    Args:
        config: settings of the training, for the encoder.
        premises: sentences on which mean and covariance are computed.

    Raises:
        ConfigError: the vectors of the premises do not vary.
    """
    import torch
    from sentence_transformers.base.modules import Dense

    model = untrained(config).load().float()
    distinct = sorted(set(premises))
    if len(distinct) < _LEAST_PREMISES:
        raise ConfigError(f"whitening needs two different premises, there is {len(distinct)}")
    kept, model.truncate_dim = model.truncate_dim, None
    vectors_ND = model.encode(distinct, show_progress_bar=False, convert_to_numpy=True)
    weight_KC, bias_K = whitening(vectors_ND[:, :kept])
    out, width = len(weight_KC), vectors_ND.shape[1]
    if out == 0:
        raise ConfigError(f"whitening: the vectors of all premises are equal with {config.encoder}")
    # Of an encoder that shortens its vectors, what is cut off has the weight 0.
    weight_KD = np.pad(weight_KC, [(0, 0), (0, width - weight_KC.shape[1])])
    dense = Dense(
        width,
        out,
        activation_function=None,
        init_weight=torch.from_numpy(weight_KD).float(),
        init_bias=torch.from_numpy(bias_K).float(),
    )
    model.append(dense.to(model.device))
    return model


def whitening(vectors_ND: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the linear map after which vectors have mean 0 and covariance 1.

    Args:
        vectors_ND: N vectors of width D.

    Returns:
        Weight [K, D] and bias [K]; K is the number of directions in which the vectors vary.
    """
    values_ND = np.asarray(vectors_ND, dtype=np.float64)
    mean_D = values_ND.mean(axis=0)
    variance_D, direction_DD = np.linalg.eigh(np.cov(values_ND, rowvar=False))
    kept_D = variance_D > _SMALLEST_SHARE * variance_D[-1]
    weight_KD = direction_DD[:, kept_D].T / np.sqrt(variance_D[kept_D])[:, None]
    return weight_KD, -weight_KD @ mean_D
