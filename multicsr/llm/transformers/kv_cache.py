"""State of many continuations in a transformers model: prompts are read once, then one token per step.

A prompt is read (prefilled or encoded) once and forked into all rows that continue it: the prompt that asks
for an entailment is the main branch of one hypothesis and the noisy branch of the other (MultiCSR Eq. 1-2).
Shapes: P prompts, R rows, T cached positions, S encoder positions, H heads, D width, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
)
from transformers.modeling_outputs import BaseModelOutput

from multicsr.llm.transformers.shared_prefix import (
    PromptGroup,
    close_gaps,
    group_prompts,
    is_plain,
    repeat_prefix,
    shortest_window,
)

_PROMPTS_AT_ONCE = 64
"""Maximum number of prompts that are read together."""
_SPARE_POSITIONS = 16
"""Number of positions by which the cache grows; most hypotheses have about this length."""


class Branches(Protocol):
    """Protocol of prompts that have been read, and of the rows that continue them."""

    first_PV: Tensor
    """Logits of the first token after each prompt, [P, V]."""
    num_shared: int
    """Number of tokens of prompts that were not read, because another prompt begins with them, too."""

    def fork(self, prompts: Sequence[int]) -> None:
        """Create one row for each item: row r continues prompt number `prompts[r]`. Call it once."""

    def step(self, tokens_R: Tensor) -> Tensor:
        """Append one token to each row.

        Args:
            tokens_R: [R] token ids.

        Returns:
            [R, V] logits of the next token.
        """

    def keep(self, rows_K: Tensor) -> None:
        """Keep these rows only, in this order; `rows_K` holds K row numbers."""


class _Layer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in buffers with spare positions.

    The parent class copies all keys and values in every step.
    """

    def __init__(self, keys_RHTD: Tensor, values_RHTD: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys_RHTD, values_RHTD)
        self._hold(keys_RHTD, values_RHTD)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values; return all of them."""
        start, end = self._length, self._length + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            self._hold(self.keys, self.values)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self._show(end)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep these rows only, in this order."""
        self._hold(self.keys.index_select(0, beam_idx), self.values.index_select(0, beam_idx))

    def _hold(self, keys_RHTD: Tensor, values_RHTD: Tensor) -> None:
        """Copy keys and values into new buffers with spare positions."""
        self._buffers = (_with_spare_positions(keys_RHTD), _with_spare_positions(values_RHTD))
        self._show(keys_RHTD.shape[-2])

    def _show(self, length: int) -> None:
        """Set `keys` and `values` to the first `length` positions of the buffers."""
        self._length = length
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


def _with_spare_positions(states_RHTD: Tensor) -> Tensor:
    """Copy keys or values into a buffer with `_SPARE_POSITIONS` spare positions."""
    num_rows, num_heads, length, width = states_RHTD.shape
    buffer = states_RHTD.new_empty(num_rows, num_heads, length + _SPARE_POSITIONS, width)
    buffer[:, :, :length] = states_RHTD
    return buffer


class _Chunk(NamedTuple):
    """Prompts of similar length that were read together."""

    members: list[int]
    cache: DynamicCache | EncoderDecoderCache
    hidden_BSD: Tensor | None


class CausalBranches:
    """Branches of a decoder-only model.

    Prompts are padded on the left; positions count from the first token of each prompt.
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, shares_prefixes: bool = False
    ) -> None:
        """Read the prompts, given as token ids.

        Args:
            model: the model.
            prompts: token ids of each prompt.
            shares_prefixes: read what prompts begin with in common once. The model must allow it: see
                `multicsr.llm.transformers.trial.can_share_prefixes`.
        """
        self._model = model
        self._lengths = [len(prompt) for prompt in prompts]
        self._chunks: list[_Chunk] = []
        self.num_shared = 0
        first: list[Tensor] = []
        whole = [PromptGroup(0, [*range(len(prompts))])]
        for group in group_prompts(prompts) if shares_prefixes else whole:
            first += self._read_group(prompts, group)
        self.first_PV = _in_order(first, self._chunks)

    def _read_group(self, prompts: Sequence[Sequence[int]], group: PromptGroup) -> Iterator[Tensor]:
        """Read prompts that begin alike; yield the logits of each chunk, [B, V]."""
        prefix = self._read_prefix(prompts, group) if group.prefix else None
        start = group.prefix if prefix is not None else 0
        self.num_shared += start * (len(group.members) - 1)
        rests = {i: prompts[i][start:] for i in group.members}
        for members in _by_length({i: len(rest) for i, rest in rests.items()}):
            ids_BT, mask_BT = _pad([rests[i] for i in members], self._model.device, left=True)
            result = self._model(
                input_ids=ids_BT,
                attention_mask=torch.nn.functional.pad(mask_BT, (start, 0), value=1),
                position_ids=(start + mask_BT.cumsum(-1) - 1).clamp(min=0),
                past_key_values=None if prefix is None else repeat_prefix(prefix, len(members)),
                use_cache=True,
                logits_to_keep=1,
            )
            if prefix is not None:
                close_gaps(result.past_key_values, prefix, (1 - mask_BT).sum(dim=1).tolist())
            self._chunks.append(_Chunk(members, result.past_key_values, None))
            yield result.logits[:, -1].float()

    def _read_prefix(self, prompts: Sequence[Sequence[int]], group: PromptGroup) -> DynamicCache | None:
        """Return the cache of the tokens that a group begins with; None if padding behind them would matter.

        It would matter to linear attention, which has no mask, and to a window of attention that the prompts
        exceed.
        """
        window = shortest_window(self._model.config)
        if window and max(self._lengths[i] for i in group.members) >= window:
            return None
        ids_1T = torch.tensor([prompts[group.members[0]][: group.prefix]], device=self._model.device)
        cache = self._model(input_ids=ids_1T, use_cache=True, logits_to_keep=1).past_key_values
        return cache if is_plain(cache, group.prefix) else None

    def fork(self, prompts: Sequence[int]) -> None:
        """Implement `Branches.fork`."""
        longest = max(self._lengths[i] for i in prompts)
        device = self._model.device
        lengths_R = torch.tensor([self._lengths[i] for i in prompts], device=device)
        self._positions_R1 = lengths_R[:, None]
        self._mask_RT = (torch.arange(longest, device=device) >= longest - self._positions_R1).long()
        rows_R = _places(self._chunks, prompts, device)
        self._cache = _stack([chunk.cache for chunk in self._chunks], rows_R, longest, left=True)
        self._chunks = []

    def step(self, tokens_R: Tensor) -> Tensor:
        """Implement `Branches.step`."""
        self._mask_RT = torch.nn.functional.pad(self._mask_RT, (0, 1), value=1)
        result = self._model(
            input_ids=tokens_R[:, None],
            attention_mask=self._mask_RT,
            position_ids=self._positions_R1,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._positions_R1 = self._positions_R1 + 1
        logits_RV: Tensor = result.logits[:, -1].float()
        return logits_RV

    def keep(self, rows_K: Tensor) -> None:
        """Implement `Branches.keep`."""
        self._mask_RT, self._positions_R1 = self._mask_RT[rows_K], self._positions_R1[rows_K]
        self._cache.reorder_cache(rows_K)


class EncoderDecoderBranches:
    """Branches of an encoder-decoder model.

    Prompts are padded on the right; rows begin with the start token.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        """Read the prompts, given as token ids."""
        self._model = model
        self._lengths = [len(prompt) for prompt in prompts]
        self._chunks: list[_Chunk] = []
        self.num_shared = 0
        first: list[Tensor] = []
        for members in _by_length(dict(enumerate(self._lengths))):
            ids_BS, mask_BS = _pad([prompts[i] for i in members], model.device, left=False)
            hidden_BSD = model.get_encoder()(input_ids=ids_BS, attention_mask=mask_BS).last_hidden_state
            start = first_token(model)
            result = model(
                encoder_outputs=BaseModelOutput(last_hidden_state=hidden_BSD),
                attention_mask=mask_BS,
                decoder_input_ids=ids_BS.new_full((len(members), 1), start),
                use_cache=True,
            )
            first.append(result.logits[:, -1].float())
            self._chunks.append(_Chunk(members, result.past_key_values, hidden_BSD))
        self.first_PV = _in_order(first, self._chunks)

    def fork(self, prompts: Sequence[int]) -> None:
        """Implement `Branches.fork`."""
        longest = max(self._lengths[i] for i in prompts)
        device = self._model.device
        rows_R = _places(self._chunks, prompts, device)
        hidden = [chunk.hidden_BSD for chunk in self._chunks if chunk.hidden_BSD is not None]
        self._hidden_RSD = _gather(hidden, rows_R, longest, dim=1, left=False)
        lengths_R = torch.tensor([self._lengths[i] for i in prompts], device=device)
        self._mask_RS = (torch.arange(longest, device=device) < lengths_R[:, None]).long()
        caches = [chunk.cache for chunk in self._chunks]
        self._cache = EncoderDecoderCache(
            _stack([cache.self_attention_cache for cache in caches], rows_R, 1, left=True),
            _stack([cache.cross_attention_cache for cache in caches], rows_R, longest, left=False),
        )
        self._chunks = []

    def step(self, tokens_R: Tensor) -> Tensor:
        """Implement `Branches.step`."""
        result = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._hidden_RSD),
            attention_mask=self._mask_RS,
            decoder_input_ids=tokens_R[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        logits_RV: Tensor = result.logits[:, -1].float()
        return logits_RV

    def keep(self, rows_K: Tensor) -> None:
        """Implement `Branches.keep`."""
        self._hidden_RSD, self._mask_RS = self._hidden_RSD[rows_K], self._mask_RS[rows_K]
        self._cache.reorder_cache(rows_K)


def first_token(model: PreTrainedModel) -> int:
    """Return the token that the texts of an encoder-decoder model begin with, as transformers chooses it.

    Raises:
        ValueError: the model has none.
    """
    generation = model.generation_config
    start = generation.decoder_start_token_id
    if start is None:
        start = generation.bos_token_id  # T5Gemma
    if start is None:
        raise ValueError("the model names no token that its texts begin with")
    return int(start[0] if isinstance(start, list) else start)


def _by_length(lengths: Mapping[int, int]) -> list[list[int]]:
    """Return the keys in chunks of similar length, so that there is little padding."""
    order = sorted(lengths, key=lengths.__getitem__)
    return [order[start : start + _PROMPTS_AT_ONCE] for start in range(0, len(order), _PROMPTS_AT_ONCE)]


def _in_order(logits: Sequence[Tensor], chunks: Sequence[_Chunk]) -> Tensor:
    """Return the logits of all chunks in the order of the prompts, [P, V]."""
    device = logits[0].device
    num_prompts = sum(len(chunk.members) for chunk in chunks)
    return torch.cat(list(logits))[_places(chunks, range(num_prompts), device)]


def _places(chunks: Sequence[_Chunk], prompts: Sequence[int], device: torch.device) -> Tensor:
    """Return the positions of these prompts in the concatenation of the chunks, [R]."""
    members = [member for chunk in chunks for member in chunk.members]
    place = {member: position for position, member in enumerate(members)}
    return torch.tensor([place[prompt] for prompt in prompts], device=device)


def _pad(prompts: Sequence[Sequence[int]], device: torch.device, *, left: bool) -> tuple[Tensor, Tensor]:
    """Pad prompts to the length of the longest one.

    Returns:
        [B, T] token ids with 0 in the padding, and the [B, T] mask with 1 for each token.
    """
    longest = max(len(prompt) for prompt in prompts)
    ids, mask = [], []
    for prompt in prompts:
        padding = [0] * (longest - len(prompt))
        present = [1] * len(prompt)
        ids.append([*padding, *prompt] if left else [*prompt, *padding])
        mask.append([*padding, *present] if left else [*present, *padding])
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _gather(parts: Sequence[Tensor], rows_R: Tensor, length: int, *, dim: int, left: bool) -> Tensor:
    """Concatenate the chunks and select rows; pad or cut `dim` to `length` on one side."""
    return _concatenate(parts, length, dim=dim, left=left).index_select(0, rows_R)


def _concatenate(parts: Sequence[Tensor], length: int, *, dim: int, left: bool) -> Tensor:
    """Concatenate the rows of all chunks; pad or cut `dim` to `length` on one side."""
    fitted = []
    for part in parts:
        missing = length - part.shape[dim]
        padding = [0, 0] * (part.dim() - 1 - dim) + ([missing, 0] if left else [0, missing])
        fitted.append(torch.nn.functional.pad(part, padding))
    return torch.cat(fitted)


def _stack(caches: Sequence[DynamicCache], rows_R: Tensor, length: int, *, left: bool) -> DynamicCache:
    """Return one cache of R rows and `length` positions; the chunks are aligned on one side."""
    stacked = DynamicCache()
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        if isinstance(layers[0], LinearAttentionCacheLayerMixin):
            stacked.layers.append(_stack_states(layers, rows_R, length, left=left))
            continue
        keys = _gather([layer.keys for layer in layers], rows_R, length, dim=2, left=left)
        values = _gather([layer.values for layer in layers], rows_R, length, dim=2, left=left)
        stacked.layers.append(_Layer(keys, values))
    return stacked


def _stack_states(
    layers: Sequence[LinearAttentionCacheLayerMixin], rows_R: Tensor, length: int, *, left: bool
) -> LinearAttentionCacheLayerMixin:
    """Return one layer of R rows with the states of linear attention, and with keys and values if it has any.

    The states hold no positions, so there is nothing to pad. The first chunk's layer becomes the result.
    """
    stacked = layers[0]
    for kind in ("conv_states", "recurrent_states"):
        states = [getattr(layer, kind) for layer in layers]
        for number, state in states[0].items():
            if state is not None:
                states[0][number] = torch.cat([each[number] for each in states])
    if isinstance(stacked, DynamicLayer):
        num_kept = length
        if isinstance(stacked, DynamicSlidingWindowLayer):
            num_kept = min(length, stacked.sliding_window - 1)
            stacked.cumulative_length = length
        stacked.keys = _concatenate([layer.keys for layer in layers], num_kept, dim=2, left=left)
        stacked.values = _concatenate([layer.values for layer in layers], num_kept, dim=2, left=left)
    stacked.reorder_cache(rows_R)
    return stacked
