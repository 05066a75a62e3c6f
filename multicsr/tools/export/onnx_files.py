"""An encoder's transformer as an ONNX file, in the layout that sentence-transformers' ONNX backend loads.

The file is made by torch's own exporter and run by ONNX Runtime. sentence-transformers would call
optimum-onnx for both, whose releases up to 0.1.0 exclude the transformers 5 that this project needs.
"""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from sentence_transformers.sentence_transformer.modules import Transformer, WeightedLayerPooling
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from multicsr.errors import ConfigError, RunError
from multicsr.messages.terminal import one_line
from multicsr.tools.export.quiet import without_warnings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ONNX_FILE = "onnx/model.onnx"
"""Path in the exported directory; sentence-transformers looks for it there."""
_INPUTS, _OUTPUT = ("input_ids", "attention_mask", "token_type_ids"), "last_hidden_state"
_EXAMPLES = ["A short one.", "A sentence that is longer than the other one."]
"""Sentences with which the transformer is traced; batch size and length are free in the result."""


class _Traced(nn.Module):
    """A transformer whose only output are the vectors of the tokens."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.transformer(
            input_ids=input_ids, attention_mask=attention_mask, **types, return_dict=True
        )
        token_BLD: Tensor = output[_OUTPUT]
        return token_BLD


class OnnxTransformer(nn.Module):
    """A transformer that ONNX Runtime computes on the CPU, in place of one of torch."""

    def __init__(self, path: Path, config: object) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.config = config
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]

    def forward(self, **features_BL: Tensor) -> BaseModelOutput:
        """Return the vectors of the tokens [B, L, D]."""
        fed = {name: features_BL[name].cpu().numpy() for name in self._inputs}
        (token_BLD,) = self._session.run([_OUTPUT], fed)
        return BaseModelOutput(last_hidden_state=torch.from_numpy(token_BLD))


def check_is_transformer(model: "SentenceTransformer", name: str) -> Transformer:
    """Return the first module of an encoder.

    Raises:
        ConfigError: it is no transformer with text as input and tokens as output, or its layers below the
            last one are needed too.
    """
    first = model[0]
    if not isinstance(first, Transformer) or first.module_output_name != "token_embeddings":
        raise ConfigError(
            f"{name} begins with {type(first).__name__}, not with a transformer over text; only that can be "
            "exported to ONNX; take safetensors-fp16"
        )
    if any(isinstance(module, WeightedLayerPooling) for module in model):
        raise ConfigError(
            f"{name} takes its vectors from several layers (train.pooling: first_last); ONNX files hold the "
            "last layer only; take safetensors-fp16"
        )
    return first


def write_onnx(model: "SentenceTransformer", name: str, path: Path) -> None:
    """Write the transformer of an encoder in float32 as an ONNX file.

    Args:
        model: encoder in float32, on the CPU.
        name: name of the encoder, for messages.
        path: file to write, in a directory that exists.

    Raises:
        ConfigError: see `check_is_transformer`.
        RunError: the transformer does what ONNX or torch's exporter cannot express.
    """
    first = check_is_transformer(model, name)
    accepted = inspect.signature(first.model.forward).parameters
    tokens = first.preprocess(_EXAMPLES)
    features = {key: tokens[key] for key in _INPUTS if key in tokens and key in accepted}
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    with without_warnings(), torch.no_grad():
        try:
            torch.onnx.export(
                _Traced(first.model).eval(),
                kwargs=features,
                f=path,
                input_names=[*features],
                output_names=[_OUTPUT],
                dynamic_shapes={key: {0: batch, 1: length} for key in features},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = one_line(f"{type(error.__cause__).__name__}: {error.__cause__}")
            raise RunError(
                f"{name} cannot be exported to ONNX ({reason:.200}); take safetensors-fp16"
            ) from error


def quantize_onnx(source: Path, target: Path) -> None:
    """Write an ONNX file with its matrices as 8-bit integers; activations are quantized as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with without_warnings():
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
