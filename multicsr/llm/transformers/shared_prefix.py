"""Prompts that begin alike: the tokens that they share are read once.

The prompts of a batch are a few instructions with many premises. With demonstrations in them, most of their
tokens are the same.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

MIN_PREFIX = 32
"""Smallest number of tokens that prompts must share, so that reading them apart is worth a pass."""
_MIN_SAVED = 128
"""Smallest number of tokens that a group must save, for the same reason."""

_WINDOWS = (
    "sliding_window",
    "sliding_window_size",
    "window_size",  # GPT-Neo
    "attention_window",
    "attention_window_size",
    "attention_chunk_size",  # Llama 4
)
"""Names under which configurations have the number of tokens that local attention sees."""


class PromptGroup(NamedTuple):
    """Prompts that begin with the same tokens."""

    prefix: int
    """Number of these tokens; 0: the prompts are read whole."""
    members: list[int]
    """Indices of the prompts."""


def group_prompts(prompts: Sequence[Sequence[int]]) -> list[PromptGroup]:
    """Return the prompts in groups that begin alike, each with the longest common prefix that is worth it.

    At least one token of every prompt lies behind the prefix. Prompts that share too little with others are
    one group with the prefix 0.
    """
    groups: list[PromptGroup] = []
    for i in sorted(range(len(prompts)), key=lambda i: list(prompts[i])):
        length = len(prompts[i]) - 1
        if groups:
            group = groups[-1]
            shared = min(length, _common(prompts[group.members[-1]], prompts[i]), group.prefix)
            # A much shorter prefix would cost the prompts that share more.
            if shared >= max(MIN_PREFIX, group.prefix / 2):
                groups[-1] = PromptGroup(shared, [*group.members, i])
                continue
        groups.append(PromptGroup(length, [i]))
    shared_by = [group for group in groups if group.prefix * (len(group.members) - 1) >= _MIN_SAVED]
    whole = sorted({*range(len(prompts))} - {i for group in shared_by for i in group.members})
    return [*shared_by, PromptGroup(0, whole)] if whole else shared_by


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of tokens with which both prompts begin."""
    pairs: Iterable[tuple[int, int]] = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def shortest_window(config: PreTrainedConfig) -> int | None:
    """Return the number of tokens that the most local attention of a model sees; None: it sees all."""
    text = config.get_text_config()
    windows = (getattr(text, name, None) for name in _WINDOWS)
    return min((window for window in windows if isinstance(window, int) and window > 0), default=None)


def is_plain(cache: DynamicCache, length: int) -> bool:
    """Return True if every layer of a cache holds the keys and values of `length` positions."""
    return all(
        isinstance(layer, DynamicLayer)
        and not isinstance(layer, LinearAttentionCacheLayerMixin)
        and layer.keys.shape[-2] == length
        for layer in cache.layers
    )


def repeat_prefix(cache: DynamicCache, count: int) -> DynamicCache:
    """Return a cache of `count` rows that begin with the only row of another; nothing is copied."""
    repeated = DynamicCache()
    for layer in cache.layers:
        held = DynamicLayer()
        held.lazy_initialization(layer.keys, layer.values)
        held.keys, held.values = (states.expand(count, -1, -1, -1) for states in (layer.keys, layer.values))
        repeated.layers.append(held)
    return repeated


def close_gaps(cache: DynamicCache, prefix: DynamicCache, padding_B: Sequence[int]) -> None:
    """Move the padding of each row from behind the prefix to before it, where that of other prompts is."""
    for layer, shared in zip(cache.layers, prefix.layers, strict=True):
        for states, of_prefix in ((layer.keys, shared.keys), (layer.values, shared.values)):
            _move(states, of_prefix[0], padding_B)


def _move(states_BHTD: Tensor, prefix_HTD: Tensor, padding_B: Sequence[int]) -> None:
    length = prefix_HTD.shape[1]
    for row, padding in enumerate(padding_B):
        if padding:
            states_BHTD[row, :, padding : padding + length] = prefix_HTD
