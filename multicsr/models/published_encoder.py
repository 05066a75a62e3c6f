"""The one loader of encoders as they were published: for training, mask model, scorer and evaluation.

Modules, length, prompts, similarity, width and data type are those of `SentenceTransformer(path)`. Only what
would make `encode` fail is mended: a length limit beyond the last position, and a missing padding token.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from multicsr.errors import ConfigError
from multicsr.messages.terminal import one_line
from multicsr.models.resolve import loading_model, require_on_hub, resolve_model
from multicsr.models.trust import loading_trusted

logger = logging.getLogger(__name__)

_POSITION_TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")
"""Ends of the names of tables with a row per position, in the families of transformers that have one."""
_TRAINING_PROMPT = "training"
"""Name of a prompt that only the configuration knows."""


def load_published_encoder(
    name: str,
    setting: str,
    *,
    device: str | None = None,
    trust_remote_code: bool = False,
    config: Mapping[str, object] | None = None,
) -> SentenceTransformer:
    """Load an encoder with its own modules, in eval mode.

    A directory without modules.json gets sentence-transformers' default: the mean of all tokens, and the last
    token of a causal language model.

    Args:
        name: `all-MiniLM-L6-v2`, a sentence-transformers directory, or a Hugging Face id.
        setting: the setting that the name came from, such as `train.encoder`, for messages.
        device: such as `cpu` or `cuda:0`; None: the first GPU, if there is one.
        trust_remote_code: run code that comes with the model.
        config: settings of the transformer to change, such as `num_hidden_layers`.

    Raises:
        ConfigError: there is no such model, it has no weights, it holds adapters and peft is missing, it
            has a module or needs a package that is not there, it cannot pad, or it needs code of its own
            that may not be run.
    """
    path = resolve_model(name, setting)
    if not Path(path).is_dir():
        require_on_hub(path, setting)
    try:
        with loading_trusted(name, setting, trust_remote_code), loading_model(name, setting):
            model = SentenceTransformer(
                path,
                device=device,
                trust_remote_code=trust_remote_code,
                config_kwargs=None if config is None else dict(config),
            )
    except ImportError as error:
        raise ConfigError(f"{setting}: {_describe_import(name, error)}") from error
    if isinstance(getattr(model[0], "tokenizer", None), PreTrainedTokenizerBase):
        _require_padding(name, setting, model.tokenizer)
    bound_length(model)
    if (kind := _stated_kind(Path(path), model)) is not None:
        logger.warning(
            "%s: %s is a %s, which has no vectors of sentences; the mean of its tokens is taken instead",
            *(setting, name, kind),
        )
    return model.eval()


def _stated_kind(path: Path, model: SentenceTransformer) -> str | None:
    """Return the class of sentence-transformers that a model was saved by, if that is another one."""
    file = path / "config_sentence_transformers.json"
    stated = json.loads(file.read_text(encoding="utf-8")).get("model_type") if file.is_file() else None
    if isinstance(stated, str) and stated != SentenceTransformer.model_type:
        return stated
    # Releases before 6 noted the activation of a CrossEncoder in the configuration of its transformer.
    is_pair_model = hasattr(model.config, "sbert_ce_default_activation_function")
    return "CrossEncoder" if is_pair_model else None


@contextmanager
def encoding_with(name: str, setting: str) -> Iterator[None]:
    """Name the encoder and its setting if it cannot compute a vector in the block.

    Raises:
        ConfigError: its modules do not fit each other, or its tokenizer does not fit them.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise  # a RuntimeError that is not about the files
    except (RuntimeError, ValueError, LookupError, TypeError) as error:
        reason = f"{type(error).__name__}: {one_line(str(error))}"
        raise ConfigError(
            f"{setting}: {name} computes no vector ({reason}); its modules do not fit each other, so take a "
            "complete copy or another encoder"
        ) from error


def _describe_import(name: str, error: ImportError) -> str:
    """Return what is missing to load an encoder: peft, another package, or a module that it names."""
    if "peft" in str(error).lower():
        return f"{name} holds adapters, which need peft: pip install 'multicsr[lora]'"
    return f"cannot load {name}: {one_line(str(error))}"


def with_prompt(model: SentenceTransformer, prompt: str | None) -> SentenceTransformer:
    """Make `encode` put a text before every sentence where no prompt is asked for; None: change nothing.

    `encode_query` and `encode_document` do so too where the model has no prompt for them. The prompt is not
    meant to be saved with the model.
    """
    if prompt is not None:
        own = {name: text or prompt for name, text in model.prompts.items()}
        model.prompts = {**own, _TRAINING_PROMPT: prompt}
        model.default_prompt_name = _TRAINING_PROMPT
    return model


def default_prompt(model: SentenceTransformer) -> str:
    """Return the text that `encode` puts before every sentence where no prompt is asked for."""
    return str(model.prompts.get(model.default_prompt_name or "", ""))


def num_positions(model: PreTrainedModel) -> int:
    """Return the maximum number of tokens of a transformer, or a very large number if it has none."""
    stated = getattr(model.config, "max_position_embeddings", None)
    # XLNet states -1 for no maximum.
    return min(stated if stated and stated > 0 else sys.maxsize, _table_positions(model))


def _table_positions(model: nn.Module) -> int:
    """Return the number of tokens for which tables of positions have rows; very large without a table."""
    tables = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith(_POSITION_TABLES)
    ]
    return min(map(_rows_for_tokens, tables), default=sys.maxsize)


def _rows_for_tokens(table: nn.Embedding) -> int:
    """Return the number of rows that tokens may use.

    RoBERTa's family counts from behind padding_idx: 514 rows, 512 tokens; BART's from a constant offset.
    """
    first = int(getattr(table, "offset", 0)) if table.padding_idx is None else table.padding_idx + 1
    return int(table.num_embeddings) - first


def bound_length(model: SentenceTransformer) -> None:
    """Lower a length limit behind which `encode` would look for positions that the transformer lacks."""
    transformer = model.transformers_model
    if transformer is None or not isinstance(model[0], Transformer):
        return
    positions = _table_positions(transformer)
    if positions < (model.max_seq_length or sys.maxsize):
        model.max_seq_length = positions


def _require_padding(name: str, setting: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Take the end token for padding if there is no other; many decoders have none. Padding is masked."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ConfigError(f"{setting}: the tokenizer of {name} has neither a padding nor an end token")
