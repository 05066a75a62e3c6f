"""Encoder G: a plain sentence-transformers model, and the head that is used in training only."""

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer, WeightedLayerPooling
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from multicsr.config import LoraConfig
from multicsr.errors import ConfigError
from multicsr.models.resolve import loading_model, quiet_loading, resolve_model

TokenIds = list[int]
PoolingMode = Literal["cls", "mean", "first_last"]
_BUCKETS = 4
"""Greatest number of passes in which one call embeds its sequences."""
_SMALLEST_BUCKET = 32
"""Least number of sentences in a pass, if there are as many.

A pass over fewer costs more, by its dense gradient of the whole vocabulary, than padding does.
"""
_PER_LAYER = ("layer_types", "mlp_layer_types", "attention_window")
"""Settings of a transformer that have an entry per layer, in the families where they are lists."""


def token_ids(model: SentenceTransformer, texts: Sequence[str]) -> list[TokenIds]:
    """Return the token ids of each text, truncated at the model's maximum length."""
    # Masks and types follow from the lengths; the tokenizer would take as long for them as for the ids.
    ids: list[TokenIds] = model.tokenizer(
        list(texts),
        truncation=True,
        max_length=model.max_seq_length,
        return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]
    return ids


class Encoder(nn.Module):
    """G with SimCSE's head: the module that the optimizer trains. Only `model` is saved."""

    def __init__(self, model: SentenceTransformer, *, mlp_head: bool) -> None:
        super().__init__()
        self.model = model
        self.head = _mlp_head(model) if mlp_head else nn.Identity()
        self._pad = model.tokenizer.pad_token_id
        self._has_types = "token_type_ids" in model.tokenizer("")

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids of each text, truncated at the model's maximum length."""
        return token_ids(self.model, texts)

    def forward(self, sequences: Sequence[TokenIds]) -> Tensor:
        """Return training embeddings [len(sequences), D], in the order given, float32 or float64.

        Sequences of similar length are embedded together: this needs less padding and changes no result.
        """
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        size = max(_SMALLEST_BUCKET, -(-len(order) // _BUCKETS))
        chunks = [order[start : start + size] for start in range(0, len(order), size)]
        sorted_BD = torch.cat([self._embed([sequences[index] for index in chunk]) for chunk in chunks])
        place_B = torch.tensor(order, device=sorted_BD.device).argsort()
        embedding_BD: Tensor = self.head(sorted_BD[place_B])
        # In half precision the loss could not distinguish sentences that are close to each other.
        return embedding_BD.to(torch.promote_types(embedding_BD.dtype, torch.float32))

    def _embed(self, sequences: Sequence[TokenIds]) -> Tensor:
        longest = max(len(sequence) for sequence in sequences)
        padded = [[*sequence, *[self._pad] * (longest - len(sequence))] for sequence in sequences]
        ids_BL = torch.from_numpy(np.array(padded, dtype=np.int64))
        length_B1 = torch.tensor([[len(sequence)] for sequence in sequences])
        keep_BL = torch.arange(longest) < length_B1
        features = {"input_ids": ids_BL, "attention_mask": keep_BL.long()}
        if self._has_types:
            features["token_type_ids"] = torch.zeros_like(ids_BL)
        device = self.model.device
        output = self.model({name: tensor.to(device) for name, tensor in features.items()})
        embedding: Tensor = output["sentence_embedding"]
        return embedding


def load_encoder(
    name: str,
    *,
    pooling: PoolingMode,
    layers: int | None = None,
    max_length: int = 32,
    lora: LoraConfig | None = None,
) -> SentenceTransformer:
    """Load the encoder to train, in its state before training: float32, on the CPU, in eval mode.

    Only the transformer's weights are taken from a sentence-transformers directory: pooling follows the
    configuration, and vectors are not normalised (every use here is a cosine).

    Args:
        name: `all-MiniLM-L6-v2`, a directory, or a Hugging Face id.
        pooling: the first token's vector, the mean of all, or SimCSE's avg_first_last.
        layers: number of transformer layers to keep, the first ones; None keeps all.
        max_length: greatest number of tokens of a sentence.
        lora: train adapters and freeze the transformer; None trains all of it.

    Raises:
        ConfigError: there is no such model, it has no weights, or fewer layers or positions than asked for,
            it is of a kind that cannot be pooled in this way, peft is missing, or adapters are asked for on
            layers that do not exist.
    """
    path = resolve_model(name, "train.encoder")
    with loading_model(name, "train.encoder"):
        settings = _settings(name, AutoConfig.from_pretrained(path), layers)
        settings["output_hidden_states"] = pooling == "first_last"
        transformer = Transformer(
            path,
            model_kwargs={"dtype": torch.float32},  # without it, the checkpoint's dtype would be used
            config_kwargs=settings,
            max_seq_length=max_length,
        )
    _check_kind(name, transformer)
    _prepare_tokenizer(name, transformer.tokenizer)
    _check_positions(name, transformer, max_length)
    if lora is not None:
        transformer.model = _with_adapters(transformer.model, lora)
    model = SentenceTransformer(modules=[transformer, *_pooling(transformer, pooling)], device="cpu").eval()
    vector_2D = _probe(model)
    if pooling == "cls" and torch.allclose(*vector_2D):
        raise ConfigError(f"train.pooling: the first token of {name} sees no other; take mean, not cls")
    _freeze_unused(model, vector_2D)
    return model


def save_encoder(model: SentenceTransformer, path: Path, card: str) -> None:
    """Write an ordinary sentence-transformers directory, with `card` as its README.md.

    Adapters are merged in a copy: `model` itself can be trained further.
    """
    if hasattr(model[0].model, "merge_and_unload"):
        model = copy.deepcopy(model)
        model[0].model = model[0].model.merge_and_unload()
    with quiet_loading():
        model.save(str(path), create_model_card=False)
    (path / "README.md").write_text(card, encoding="utf-8")


def _settings(name: str, config: PretrainedConfig, layers: int | None) -> dict[str, object]:
    """Return the settings that differ from the model's own if only the first `layers` are kept."""
    if layers is None:
        return {}
    if layers > config.num_hidden_layers:
        raise ConfigError(f"train.layers: {layers} asked for, {name} has {config.num_hidden_layers}")
    lists = {key: value for key in _PER_LAYER if isinstance(value := getattr(config, key, None), list)}
    return {"num_hidden_layers": layers, **{key: value[:layers] for key, value in lists.items()}}


def _check_kind(name: str, transformer: Transformer) -> None:
    config = transformer.config
    if config.is_encoder_decoder or transformer.module_output_name != "token_embeddings":
        raise ConfigError(f"train.encoder: {name} ({config.model_type}) is not a text encoder")


def num_positions(model: PreTrainedModel) -> int:
    """Return the maximum number of tokens of a transformer, or a very large number if it has none."""
    positions = int(getattr(model.config, "max_position_embeddings", sys.maxsize))
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            positions -= (
                padding + 1
            )  # RoBERTa's family counts from behind padding_idx: 514 positions, 512 tokens
    return positions


def _check_positions(name: str, transformer: Transformer, max_length: int) -> None:
    positions = num_positions(transformer.model)
    if max_length > positions:
        raise ConfigError(f"train.max_length: {max_length} asked for, {name} has {positions} positions")


def _prepare_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Pad the saved model's sentences as `Encoder` pads those it trains on."""
    tokenizer.padding_side = "right"
    # Many decoders have no padding token. Padding is masked, so any token will do.
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ConfigError(f"train.encoder: the tokenizer of {name} has neither a padding nor an end token")
    if any(tokenizer("").get("token_type_ids", [])):
        raise ConfigError(f"train.encoder: {name} gives tokens of one sentence different types")


def _pooling(transformer: Transformer, pooling: PoolingMode) -> list[nn.Module]:
    """Return the modules after the transformer."""
    width = transformer.get_embedding_dimension()
    if pooling != "first_last":
        return [Pooling(width, pooling_mode=pooling)]
    layers = transformer.config.num_hidden_layers
    # hidden_states[0] are the embeddings below the first layer, which SimCSE does not take either.
    weight_L = torch.zeros(layers)
    weight_L[[0, -1]] = 1.0
    fixed = nn.Parameter(weight_L, requires_grad=False)
    blend = WeightedLayerPooling(width, num_hidden_layers=layers, layer_start=1, layer_weights=fixed)
    return [blend, Pooling(width, pooling_mode="mean")]


def _with_adapters(transformer: PreTrainedModel, lora: LoraConfig) -> nn.Module:
    """Freeze `transformer` and add adapters that change nothing yet (LoRA, Hu et al. 2021).

    Raises:
        ConfigError: peft is missing, or a target is no layer of the transformer.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError("train.lora needs peft: pip install 'multicsr[lora]'") from error
    _check_targets(transformer, lora.targets or [])
    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets or "all-linear",
    )
    adapted: nn.Module = peft.get_peft_model(transformer, settings)
    return adapted


def _check_targets(transformer: PreTrainedModel, targets: Sequence[str]) -> None:
    linear = [name for name, module in transformer.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise ConfigError(
                f"train.lora.targets: no layer is called {target}; there are {', '.join(known)}"
            )


def _mlp_head(model: SentenceTransformer) -> nn.Module:
    """Return dense + tanh of the encoder's width, initialised as BERT initialises a new layer."""
    width = model.get_embedding_dimension()
    dense = nn.Linear(width, width)
    nn.init.normal_(dense.weight, std=getattr(model[0].config, "initializer_range", 0.02))
    nn.init.zeros_(dense.bias)
    return nn.Sequential(dense, nn.Tanh())


def _probe(model: SentenceTransformer) -> Tensor:
    """Return vectors [2, D], with their graph, of two sequences that differ in their second token only."""
    ids_22 = torch.tensor([[0, 1], [0, 2]])
    features = {"input_ids": ids_22, "attention_mask": torch.ones_like(ids_22)}
    with torch.enable_grad():
        vector_2D: Tensor = model(features)["sentence_embedding"]
    return vector_2D


def _freeze_unused(model: SentenceTransformer, vector_2D: Tensor) -> None:
    """Freeze parameters without a gradient, such as BERT's pooler: they would break DDP's reduction."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(vector_2D.sum(), trained, allow_unused=True)
    for parameter, gradient in zip(trained, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
