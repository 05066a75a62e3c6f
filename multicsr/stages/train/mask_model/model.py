"""The mask model P, an encoder that finds false negatives. It is frozen and no part of the trained module.

Its vectors are stored as they are computed, in fp16.
"""

from collections.abc import Sequence
from typing import Protocol

from multicsr.config import MaskConfig
from multicsr.models.frozen_encoder import FrozenEncoder, Vectors, vector_settings
from multicsr.storage.manifest import fingerprint


class Embedder(Protocol):
    """A service that embeds sentences by P, in this process or in another one."""

    width: int
    """Width D of the vectors."""

    def ask(self, texts: Sequence[str]) -> "PendingVectors":
        """Request the vectors of some sentences, without waiting for them."""


class PendingVectors(Protocol):
    """The vectors of one request."""

    def take(self) -> Vectors:
        """Wait for the vectors and return them, [len(texts), D].

        Raises:
            RunError: P failed, or it gives a vector that is zero or not finite.
        """


class MaskModel(FrozenEncoder):
    """The mask model P."""

    def __init__(self, config: MaskConfig, device: str) -> None:
        """Load P on a device.

        Raises:
            ConfigError: there is no such model, or it has no weights.
        """
        super().__init__(
            config.model,
            "train.mask.model",
            device,
            config.prompt,
            pooling=config.pooling,
            trust_remote_code=config.trust_remote_code,
        )


class InsideEmbedder:
    """An `Embedder` whose P is in the worker: vectors are computed by `take`, within the step."""

    def __init__(self, model: MaskModel) -> None:
        """Set up the embedder for a loaded P."""
        self._model = model
        self.width = model.width

    def ask(self, texts: Sequence[str]) -> "InsideAnswer":
        """Implement `Embedder.ask`."""
        return InsideAnswer(self._model, texts)


class InsideAnswer:
    """A `PendingVectors` that is computed in the worker when it is taken."""

    def __init__(self, model: MaskModel, texts: Sequence[str]) -> None:
        """Keep the sentences for `take`."""
        self._model, self._texts = model, texts

    def take(self) -> Vectors:
        """Implement `PendingVectors.take`: compute the vectors."""
        return self._model.embed(self._texts)


def mask_model_fingerprint(config: MaskConfig, device: str = "cpu") -> str:
    """Return a hash of everything that decides P's vectors.

    These are the weights, the tokenizer, the pooling, the prompt and the kind of device.
    """
    return fingerprint(
        vector_settings(config.model, "train.mask.model", config.prompt, config.pooling, device)
    )
