"""Comparison of an exported encoder with the original."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from multicsr.errors import RunError
from multicsr.tools.export.formats import Agreement

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH = 8
"""Sentences in a pass: few, so that batches of many lengths occur."""


def vectors_of(model: "SentenceTransformer", sentences: Sequence[str]) -> NDArray[np.float64]:
    """Return the vectors [S, D] of sentences."""
    with torch.inference_mode():
        vector_SD = model.encode(
            list(sentences), batch_size=_BATCH, show_progress_bar=False, convert_to_tensor=True
        )
    result: NDArray[np.float64] = vector_SD.double().cpu().numpy()
    return result


def compare(
    original_SD: NDArray[np.float64], exported_SD: NDArray[np.float64], sentences: Sequence[str]
) -> Agreement:
    """Compare the vectors of two encoders by their cosines; two zero vectors have the cosine 1.

    Raises:
        RunError: the vectors have different widths.
    """
    if original_SD.shape != exported_SD.shape:
        raise RunError(
            f"the export gives vectors of width {exported_SD.shape[1]}, the original {original_SD.shape[1]}"
        )
    norms_S = np.linalg.norm(original_SD, axis=1) * np.linalg.norm(exported_SD, axis=1)
    both_zero_S = ~original_SD.any(axis=1) & ~exported_SD.any(axis=1)
    dots_S = np.einsum("sd,sd->s", original_SD, exported_SD)
    with np.errstate(invalid="ignore"):  # a vector that is not finite agrees with nothing
        cosine_S = np.nan_to_num(dots_S / np.where(norms_S == 0, 1.0, norms_S), nan=-1.0)
    cosine_S[both_zero_S] = 1.0
    worst = int(cosine_S.argmin())
    return Agreement(len(sentences), float(cosine_S[worst]), float(cosine_S.mean()), sentences[worst])
