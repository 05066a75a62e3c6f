"""Encoder P, which finds false negatives: frozen, outside the trained module, all its own."""

from collections.abc import Sequence

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from multicsr.errors import RunError
from multicsr.models import loading_model, resolve_model


def load_mask_model(name: str, device: str) -> SentenceTransformer:
    """P, in eval mode and without gradients.

    Raises:
        ConfigError: no such model, or no weights.
    """
    path = resolve_model(name, "train.mask.model")
    with loading_model(name, "train.mask.model"):
        model = SentenceTransformer(path, device=device)
    return model.eval().requires_grad_(False)


def mask_embeddings(model: SentenceTransformer, texts: Sequence[str], batch_size: int = 64) -> Tensor:
    """P's vectors of length 1, float32 [T, D], on the CPU.

    Raises:
        RunError: a vector is not finite.
    """
    vector_TD: Tensor = model.encode(
        list(texts),
        batch_size=batch_size,
        show_progress_bar=False,
        convert_to_numpy=False,
        convert_to_tensor=True,
        normalize_embeddings=True,
    )
    vector_TD = vector_TD.float().cpu()
    if not torch.isfinite(vector_TD).all():
        raise RunError("train.mask.model gives vectors that are not finite; its weights are broken")
    return vector_TD
