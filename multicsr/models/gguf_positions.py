"""Scaling of rotary positions in a GGUF model, which transformers does not read."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multicsr.models.gguf_metadata import GgufMetadata

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""Parameters of Llama 3.1 to 3.3, which differ in `factor` alone."""


def restore_scaling(config: "PreTrainedConfig", metadata: GgufMetadata) -> None:
    """Set the scaling that the file states in the configuration.

    Raises:
        ValueError: it is none of those that are known here: linear, and that of Llama 3.
    """
    kind = metadata.value("{arch}.rope.scaling.type") or "none"
    factors_F = metadata.tensor("rope_freqs.weight")
    if metadata.tensor("rope_factors_long.weight") is not None:
        kind = "longrope"
    positions = getattr(config, "rope_parameters", None) or {}
    # Gemma 3 scales the positions of its global layers alone.
    positions = positions.get("full_attention", positions)
    if positions and factors_F is not None:
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        positions.update(_llama3_scaling(factors_F, positions["rope_theta"], width))
    elif positions and kind == "linear":
        positions.update(rope_type="linear", factor=metadata.value("{arch}.rope.scaling.factor"))
    elif kind not in ("none", positions.get("rope_type")):
        raise ValueError(f"its positions are scaled by {kind}, which is not read from GGUF")


def _llama3_scaling(factors_F: NDArray[np.float32], theta: float, width: int) -> dict[str, object]:
    """Return the parameters of Llama 3 that give these factors.

    Args:
        factors_F: numbers by which the frequencies are divided, [width / 2].
        theta: base of the frequencies.
        width: of a head.

    Raises:
        ValueError: they are none of Llama 3.
    """
    factor = float(factors_F.max())
    if not np.allclose(factors_F, llama3_factors(factor, theta, width), rtol=1e-3):
        raise ValueError("its positions are scaled by other factors than those of Llama 3")
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}


def llama3_factors(factor: float, theta: float, width: int) -> NDArray[np.float64]:
    """Compute the numbers by which Llama 3 divides the frequencies, [width / 2].

    As llama.cpp does when it writes them (`LlamaModel.generate_extra_tensors` of convert_hf_to_gguf.py).
    """
    low, high, context = _LLAMA3.values()
    turns_F = context * theta ** (-np.arange(0, width, 2) / width) / (2 * math.pi)
    smooth_F = np.clip((turns_F - low) / (high - low), 0.0, 1.0)
    scaled: NDArray[np.float64] = 1 / ((1 - smooth_F) / factor + smooth_F)
    return scaled
