"""Small GGUF files, written with the package `gguf` from a Llama and a byte-level tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Change = Callable[["object"], None]


def write_gguf(
    path: Path,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    *,
    architecture: str = "llama",
    pre: str = "default",
    quantization: str = "F32",
    add: Change = lambda writer: None,
) -> Path:
    """Write a Llama as llama.cpp's converter does.

    Args:
        path: the file.
        model: a Llama.
        tokenizer: byte-level BPE.
        architecture: name that the file states.
        pre: name of the pre-tokenizer.
        quantization: of the matrices, a name of `gguf.GGMLQuantizationType`.
        add: adds more to the `gguf.GGUFWriter`, such as special tokens.
    """
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer, pre)
    add(writer)
    kind = gguf.GGMLQuantizationType[quantization]
    for name, array in llama_tensors(model).items():
        if quantization != "F32" and array.ndim == 2:
            writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama_tensors(model: "PreTrainedModel") -> dict[str, np.ndarray]:
    """Return the tensors of a Llama by their names in GGUF."""
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    tensors = {}
    for key, tensor in model.state_dict().items():
        array = tensor.float().numpy()
        for part, count in heads.items():
            if part in key:  # llama.cpp rotates neighbours, transformers the two halves of a head
                array = array.reshape(count, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        tensors[names.get_name(key, try_suffixes=(".weight",))] = np.ascontiguousarray(array)
    return tensors


def _add_tokenizer(writer: "object", tokenizer: "PreTrainedTokenizerBase", pre: str) -> None:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
