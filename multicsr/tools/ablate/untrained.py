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


def input_embeddings(config: TrainConfig) -> "SentenceTransformer":
    """Return the mean of the published encoder's own input embeddings of a text's tokens.

    Raises:
        ConfigError: the encoder has no input embeddings of tokens, or no fast tokenizer.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from transformers import PreTrainedTokenizerFast

    model = published(config).load()
    transformer = model.transformers_model
    if transformer is None or not isinstance(model.tokenizer, PreTrainedTokenizerFast):
        raise ConfigError(
            f"--baselines: {config.encoder} has no transformer with a fast tokenizer, whose input embeddings "
            "are a baseline"
        )
    weight_VD = transformer.get_input_embeddings().weight.detach().float().cpu()
    return SentenceTransformer(modules=[StaticEmbedding(model.tokenizer, embedding_weights=weight_VD)])


def whitened(config: TrainConfig, premises: "Sequence[str]") -> "SentenceTransformer":
    """Return the untrained encoder followed by a whitening of its vectors (Su et al. 2021).

    Args:
        config: settings of the training, for the encoder.
        premises: sentences on which mean and covariance are computed.
    """
    import torch
    from sentence_transformers.base.modules import Dense

    model = untrained(config).load()
    distinct = sorted(set(premises))
    vectors_ND = model.encode(distinct, show_progress_bar=False, convert_to_numpy=True)
    weight_KD, bias_K = whitening(vectors_ND)
    width, out = weight_KD.shape[1], weight_KD.shape[0]
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
