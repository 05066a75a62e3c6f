"""Methods that make another encoder out of one, by name. This module imports no model library."""

from enum import StrEnum


class Method(StrEnum):
    """The way from an encoder and triplets to another encoder."""

    PUBLISHED = "published"
    """None: the encoder through its own modules."""
    UNTRAINED = "untrained"
    """None: the encoder with the layers, pooling and prompt of the training."""
    INPUT_EMBEDDINGS = "input embeddings"
    """The mean of the encoder's own input embeddings of a text's tokens."""
    WHITENING = "whitening"
    """A linear map after the encoder, fitted on the premises (Su et al. 2021)."""
    RANKING_LOSS = "MultipleNegativesRankingLoss"
    """Training by sentence-transformers with its standard loss."""
    GIST_LOSS = "GISTEmbedLoss"
    """Training by sentence-transformers with a loss that P guides (Solatorio 2024)."""
    MULTICSR = "multicsr"
    """Training by this package."""


SEEDED = {Method.RANKING_LOSS, Method.GIST_LOSS, Method.MULTICSR}
"""Methods whose result depends on the seed."""
