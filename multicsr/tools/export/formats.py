"""The formats of `multicsr export`: how close each must come to the original, and how it is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from multicsr.errors import ConfigError


class ExportFormat(StrEnum):
    """Format of the weights of an exported encoder."""

    ONNX = "onnx"
    """ONNX in float32."""
    ONNX_INT8 = "onnx-int8"
    """ONNX whose matrices are 8-bit integers; activations are quantized as they come."""
    FLOAT16 = "safetensors-fp16"
    BFLOAT16 = "safetensors-bf16"

    @property
    def is_onnx(self) -> bool:
        """Return True if ONNX Runtime computes the encoder, not torch."""
        return self in (ExportFormat.ONNX, ExportFormat.ONNX_INT8)


def format_named(name: str) -> ExportFormat:
    """Return a format by its name.

    Raises:
        ConfigError: there is no such format.
    """
    if name not in [*ExportFormat]:
        raise ConfigError(f"--format: no format {name!r}; there are {', '.join(ExportFormat)}")
    return ExportFormat(name)


MIN_COSINE: Mapping[ExportFormat, float] = MappingProxyType(
    {
        ExportFormat.ONNX: 0.9999,
        ExportFormat.FLOAT16: 0.999,
        ExportFormat.BFLOAT16: 0.99,
        ExportFormat.ONNX_INT8: 0.95,
    }
)
"""Smallest cosine with the original that the vector of a sentence may have."""


@dataclass(frozen=True)
class Agreement:
    """Comparison of an export with the original on some sentences, by the cosines of their vectors."""

    num_sentences: int
    smallest: float
    mean: float
    worst: str
    """Sentence with the smallest cosine."""

    def __str__(self) -> str:
        """Return the comparison in one line."""
        return (
            f"cosine with the original on {self.num_sentences} sentences: smallest {self.smallest:.6f}, "
            f"mean {self.mean:.6f}"
        )
