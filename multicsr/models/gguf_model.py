"""Model of a GGUF file: what transformers reads, and what it leaves out."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multicsr.models.gguf_metadata import GgufMetadata
from multicsr.models.gguf_positions import restore_scaling

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def read_model(folder: Path, file: str, metadata: GgufMetadata, dtype: "torch.dtype") -> "PreTrainedModel":
    """Read a model with its weights as plain tensors, so that it can be saved.

    The configuration holds what the file states. The model itself was built before that: save it and load it
    before it computes anything.

    Raises:
        ValueError: transformers does not read the architecture, or positions are scaled in a way that it
            does not read.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    shape = AutoConfig.from_pretrained(folder, gguf_file=file)
    kind = AutoModelForSeq2SeqLM if shape.is_encoder_decoder else AutoModelForCausalLM
    with _no_bar():
        model = kind.from_pretrained(folder, gguf_file=file, dtype=dtype, **_unpacked())
    # A model with a quantizer cannot be saved, though its weights are plain tensors now.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    restore_scaling(model.config, metadata)
    _set_special_tokens(model, metadata)
    return model


@contextmanager
def _no_bar() -> Iterator[None]:
    """Keep transformers from drawing a progress bar, which no setting of it turns off."""
    from transformers import modeling_gguf_pytorch_utils as reader

    bar = reader.tqdm
    reader.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        reader.tqdm = bar


def _unpacked() -> dict[str, Any]:
    """Return the arguments for plain tensors: with the package `kernels`, some stay in blocks otherwise."""
    import transformers

    # Older releases than 5.19 have no such class, and always unpack.
    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


def _set_special_tokens(model: "PreTrainedModel", metadata: GgufMetadata) -> None:
    """Set the special tokens of configuration and generation, which are those of the architecture."""
    stated = model.config.eos_token_id
    ends = list(dict.fromkeys([*metadata.ends(), *(stated if isinstance(stated, list) else [])]))
    start = metadata.value("{arch}.decoder_start_token_id")
    for settings in (model.config, model.generation_config):
        settings.bos_token_id = metadata.token_id("bos")
        settings.pad_token_id = metadata.token_id("padding")
        settings.eos_token_id = ends or None
        if model.config.is_encoder_decoder:
            settings.decoder_start_token_id = start
