"""Encoder G: a sentence-transformers model in training, with the head that is used in training only."""

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import WeightedLayerPooling
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from multicsr.config import LoraConfig, TrainConfig
from multicsr.config.training import PoolingMode
from multicsr.errors import ConfigError
from multicsr.models.pooling import replace_pooling
from multicsr.models.published_encoder import default_prompt, encoding_with, load_published_encoder
from multicsr.models.resolve import quiet_loading
from multicsr.models.text_input import TextInput, TokenIds, length_limit, text_input

_BUCKETS = 4
"""Greatest number of passes in which one call embeds its sequences."""
_SMALLEST_BUCKET = 32
"""Least number of sentences in a pass, if there are as many.

A pass over fewer costs more, by its dense gradient of the whole vocabulary, than padding does.
"""
_PER_LAYER = ("layer_types", "mlp_layer_types", "attention_window")
"""Settings of a transformer that have an entry per layer, in the families where they are lists."""


class Encoder(nn.Module):
    """G with SimCSE's head: the module that the optimizer trains. Only `model` is saved.

    The vectors are those of `model.encode`, with two differences that no cosine shows: parameters are float32
    whatever the data type of the model, and modules that only normalise the vector are left out, so that the
    head and the check for zero vectors see it as it is.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        mlp_head: bool,
        prompt: str | None = None,
        max_length: int | None = None,
    ) -> None:
        """Set up the training of `model`, whose parameters become float32.

        Args:
            model: the encoder, from `load_encoder`.
            mlp_head: add dense + tanh on top.
            prompt: text that is put before every sentence; None: the model's default prompt.
            max_length: maximum number of tokens of a sentence in training; None: that of the model.

        Raises:
            ConfigError: the model takes fewer tokens, or prepares its texts in a way that training cannot
                follow.
        """
        super().__init__()
        limit = length_limit(model)
        if max_length is not None and max_length > limit:
            raise ConfigError(
                f"train.max_length: {max_length} asked for, the encoder takes {limit:g} tokens; leave it "
                "unset for all of them"
            )
        self.model = model.float()
        self.head = _mlp_head(model) if mlp_head else nn.Identity()
        self._input = _require_input(model, default_prompt(model) if prompt is None else prompt, max_length)
        self._modules_trained = _without_normalization(model)
        taken = len(self._input.tokenize([""])[0])
        if max_length is not None and taken >= max_length:
            raise ConfigError(
                f"train.max_length: prompt and special tokens alone are {taken} tokens; set it above"
            )

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids of each text, with the prompt, truncated at the maximum length."""
        return self._input.tokenize(texts)

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
        features = batch_to_device(self._input.collate(sequences), self.model.device)
        for module in self._modules_trained:
            features = module(features)
        embedding_BD: Tensor = features["sentence_embedding"]
        return embedding_BD[:, : self.model.truncate_dim]


def load_encoder(
    name: str,
    *,
    pooling: PoolingMode | None = None,
    layers: int | None = None,
    lora: LoraConfig | None = None,
    trust_remote_code: bool = False,
) -> SentenceTransformer:
    """Load the encoder to train, in its state before training: on the CPU, in eval mode.

    It is the published encoder with all its modules and in its data type, but for what the arguments change.

    Args:
        name: `all-MiniLM-L6-v2`, a directory, or a Hugging Face id.
        pooling: see `replace_pooling`; None: the encoder's own modules.
        layers: number of transformer layers to keep, the first ones; None keeps all.
        lora: train adapters and freeze the transformer; None trains all of it.
        trust_remote_code: run code that comes with the model.

    Raises:
        ConfigError: there is no such model, it has no weights, or fewer layers than asked for, it is of a
            kind that cannot be trained or pooled in this way, peft is missing, or adapters are asked for on
            layers that do not exist.
    """
    setting = "train.encoder"
    model = load_published_encoder(name, setting, device="cpu", trust_remote_code=trust_remote_code)
    _check_kind(name, model)
    if layers is not None:
        settings = _first_layers(name, model, layers)
        model = load_published_encoder(
            name, setting, device="cpu", trust_remote_code=trust_remote_code, config=settings
        )
    if pooling is not None:
        model = replace_pooling(name, model, pooling)
    if layers is not None and any(
        isinstance(module, WeightedLayerPooling) and module.num_hidden_layers != layers for module in model
    ):
        raise ConfigError(f"train.layers: {name} blends all its layers; set train.pooling too")
    transformer = model.transformers_model
    if transformer is not None:
        _merge_loaded_adapters(transformer)
    if lora is not None:
        if not isinstance(model[0], Transformer):
            raise ConfigError(f"train.lora: {name} has no transformer; set train.lora to null")
        model[0].model = _with_adapters(model[0].model, lora)
    vector_2D = _probe(name, model)
    if pooling == "cls" and torch.allclose(*vector_2D):
        raise ConfigError(f"train.pooling: the first token of {name} sees no other; take mean, not cls")
    _freeze_unused(model, vector_2D)
    return model


def load_for_training(
    config: TrainConfig, *, name: str | None = None, adapters: bool = True
) -> SentenceTransformer:
    """Load the encoder of a configuration with `load_encoder`.

    Args:
        config: the settings of the training.
        name: name or directory to load instead of `config.encoder`; None: that one.
        adapters: add the adapters of `config.lora`.
    """
    return load_encoder(
        name or config.encoder,
        pooling=config.pooling,
        layers=config.layers,
        lora=config.lora if adapters else None,
        trust_remote_code=config.trust_remote_code,
    )


def enable_gradient_checkpointing(model: SentenceTransformer) -> None:
    """Keep only the input of each layer and compute the layer again in the backward pass.

    Dropout repeats its draws, so gradients are the same.

    Raises:
        ConfigError: the transformer does not support it, or there is none.
    """
    transformer = model.transformers_model
    if transformer is None or not getattr(transformer, "supports_gradient_checkpointing", False):
        kind = type(model[0]).__name__ if transformer is None else transformer.config.model_type
        raise ConfigError(
            f"train.gradient_checkpointing: not possible with this encoder ({kind}); set it to false, and if "
            "memory is short use train.grad_cache with a small train.micro_batch"
        )
    transformer.gradient_checkpointing_enable({"use_reentrant": False})


def merged(model: SentenceTransformer) -> SentenceTransformer:
    """Return a copy of a model with its adapters merged into its parameters; itself if it has none."""
    if not hasattr(getattr(model[0], "model", None), "merge_and_unload"):
        return model
    whole = copy.deepcopy(model)
    whole[0].model = whole[0].model.merge_and_unload()
    return whole


def save_modules(model: SentenceTransformer, path: Path) -> None:
    """Write an ordinary sentence-transformers directory without a card, with its modules' own code."""
    with quiet_loading():
        model.save(str(path), create_model_card=False)
    for file in path.glob("*/*.py"):
        # A module's own code: modules.json names it without the folder that it was written to.
        shutil.copy(file, path / file.name)


def save_encoder(model: SentenceTransformer, path: Path, card: str) -> None:
    """Write an ordinary sentence-transformers directory, with `card` as its README.md.

    Adapters are merged in a copy: `model` itself can be trained further.
    """
    save_modules(merged(model), path)
    (path / "README.md").write_text(card, encoding="utf-8")


def _first_layers(name: str, model: SentenceTransformer, layers: int) -> dict[str, object]:
    """Return the settings that differ from the model's own if only the first `layers` are kept."""
    config: PretrainedConfig | None = model.config
    if config is None:
        raise ConfigError(f"train.layers: {name} has no transformer; leave train.layers unset")
    if layers > config.num_hidden_layers:
        raise ConfigError(f"train.layers: {layers} asked for, {name} has {config.num_hidden_layers}")
    lists = {key: value for key in _PER_LAYER if isinstance(value := getattr(config, key, None), list)}
    return {"num_hidden_layers": layers, **{key: value[:layers] for key, value in lists.items()}}


def _check_kind(name: str, model: SentenceTransformer) -> None:
    first = model[0]
    if isinstance(first, Transformer) and hasattr(first.model, "decoder"):
        raise ConfigError(f"train.encoder: {name} ({first.config.model_type}) is not a text encoder")
    _require_input(model, "", None, name)


def _require_input(
    model: SentenceTransformer, prompt: str, max_length: int | None, name: str = "the encoder"
) -> TextInput:
    prepared = text_input(model, prompt, max_length)
    if prepared is None:
        raise ConfigError(
            f"train.encoder: {name} prepares its texts in a way of its own ({type(model[0]).__name__}: other "
            "token types, or no token ids), which training cannot follow; take another encoder"
        )
    return prepared


def _without_normalization(model: SentenceTransformer) -> list[nn.Module]:
    """Return the modules up to the last one that does more than to normalise the vector."""
    modules = list(model)
    while isinstance(modules[-1], Normalize) and modules[-1].module_output_name == "sentence_embedding":
        modules.pop()
    return modules


def _merge_loaded_adapters(transformer: PreTrainedModel) -> None:
    """Merge the adapters of an encoder that was published as adapters, in place."""
    if not getattr(transformer, "_hf_peft_config_loaded", False):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [
        (name, layer) for name, layer in transformer.named_modules() if isinstance(layer, BaseTunerLayer)
    ]
    for name, layer in layers:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(transformer.get_submodule(parent), child, layer.get_base_layer())
    transformer._hf_peft_config_loaded = False
    del transformer.peft_config
    transformer.requires_grad_(True)


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
    nn.init.normal_(dense.weight, std=getattr(model.config, "initializer_range", 0.02))
    nn.init.zeros_(dense.bias)
    return nn.Sequential(dense, nn.Tanh())


def _probe(name: str, model: SentenceTransformer) -> Tensor:
    """Return vectors [2, D], with their graph, of two sequences that differ in their second token only."""
    features = _require_input(model, "", None, name).collate([[0, 1], [0, 2]])
    with torch.enable_grad(), encoding_with(name, "train.encoder"):
        vector_2D: Tensor = model(features)["sentence_embedding"]
    return vector_2D


def _freeze_unused(model: SentenceTransformer, vector_2D: Tensor) -> None:
    """Freeze parameters without a gradient, such as BERT's pooler: they would break DDP's reduction."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(vector_2D.sum(), trained, allow_unused=True)
    for parameter, gradient in zip(trained, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
