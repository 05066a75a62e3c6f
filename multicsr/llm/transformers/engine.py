"""Engine for any causal or encoder-decoder model of the transformers library: the exact reference.

The result of a row depends on the row alone, on one machine, with one thread count and in float32: see
`multicsr.llm.transformers.decode` for hypotheses and `TokenEngine` for scores.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from multicsr.config import Config, LLMConfig
from multicsr.llm.label_tree import LabelTree
from multicsr.llm.load_tokenizer import load_tokenizer
from multicsr.llm.request import DecodedTokens, HypothesisRequest, SamplingParams, Watch
from multicsr.llm.stopping import StopCriteria
from multicsr.llm.token_engine import ModelShape, TokenEngine
from multicsr.llm.transformers.decode import Reader, decode
from multicsr.llm.transformers.grouped_attention import group_attention
from multicsr.llm.transformers.kv_cache import Branches, CausalBranches, EncoderDecoderBranches
from multicsr.llm.transformers.read_labels import read_labels, read_top
from multicsr.llm.transformers.trial import can_share_prefixes, check_architecture
from multicsr.models.device import choose_device
from multicsr.models.llm_weights import resolve_llm
from multicsr.models.resolve import loading_model


class TransformersEngine(TokenEngine):
    """Engine that loads a model once and decodes in batches.

    Raises:
        ConfigError: the model or its weights do not exist, its architecture cannot be decoded in batches, or
            `llm.chat_template` is true, but the tokenizer has no chat template.
    """

    def __init__(self, config: Config) -> None:
        torch.set_num_threads(max(1, int(config.generate.cpus_per_actor)))
        tokenizer, model = _load(config.llm)
        super().__init__(config, tokenizer, _shape(model))
        branches = EncoderDecoderBranches if model.config.is_encoder_decoder else CausalBranches
        self._read: Reader = partial(branches, model)
        check_architecture(self._read, model, config.llm.model)
        if branches is CausalBranches:
            shared = partial(CausalBranches, model, shares_prefixes=True)
            if can_share_prefixes(shared, self._read, model):
                self._read = shared

    def close(self) -> None:
        """Do nothing: the memory is released with the object."""

    def write(
        self,
        requests: Sequence[HypothesisRequest],
        rule: SamplingParams,
        ends: StopCriteria,
        watch: Watch | None = None,
    ) -> Sequence[DecodedTokens]:
        """Implement `TokenEngine.write`."""
        return decode(self._read_counted, requests, rule, ends, watch, self.usage)

    def top_log_probabilities(
        self, prompt: list[int], tokens: Sequence[int], count: int
    ) -> list[dict[int, float]]:
        """Implement `TokenEngine.top_log_probabilities`."""
        return read_top(self._read, prompt, tokens, count)

    def _log_probabilities(
        self, prompts: Sequence[list[int]], tree: LabelTree, *, alone: bool
    ) -> list[NDArray[np.float64]]:
        """Implement `TokenEngine._log_probabilities`."""
        batches = [[prompt] for prompt in prompts] if alone else [list(prompts)] if prompts else []
        return [row for batch in batches for row in read_labels(self._read_counted, batch, tree)]

    def _read_counted(self, prompts: Sequence[Sequence[int]]) -> Branches:
        """Read prompts, and add the tokens that need not be read to the usage."""
        branches = self._read(prompts)
        self.usage.add(prefix_queries=sum(map(len, prompts)), prefix_hits=branches.num_shared)
        return branches


def _load(config: LLMConfig) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load the tokenizer, and the model in evaluation mode on its device.

    Raises:
        ConfigError: the model cannot be loaded, or `llm.device` is cuda and there is no GPU.
    """
    device = choose_device(config)
    tokenizer, shape = load_tokenizer(config)
    with loading_model(config.model, "llm.model"):
        kind = AutoModelForSeq2SeqLM if shape.is_encoder_decoder else AutoModelForCausalLM
        dtype = getattr(torch, config.dtype)
        model = kind.from_pretrained(resolve_llm(config), revision=config.revision, dtype=dtype)
    group_attention(model)
    return tokenizer, model.to(device).eval()


def _shape(model: PreTrainedModel) -> ModelShape:
    """Return the properties of a model that decide how requests are made."""
    text = model.config.get_text_config()
    context = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    eos = model.generation_config.eos_token_id
    return ModelShape(text.vocab_size, eos, context, bool(model.config.is_encoder_decoder))
