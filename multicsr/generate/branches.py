"""The state of many continuations in a transformers model: prompts read once, then one token a step.

A prompt is read (prefilled, encoded) once and forked into as many rows as continue it: the prompt that asks
for an entailment is the main branch of one hypothesis and the noisy branch of the other (MultiCSR Eq. 1-2).
Shapes: P prompts, R rows, T cached positions, S encoder positions, H heads, D width, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

_PROMPTS_AT_ONCE = 64
_ROOM = 16  # positions by which the cache grows; most hypotheses are about as long


class Branches(Protocol):
    """Prompts that have been read."""

    first_PV: Tensor
    """Logits of the first token after each prompt."""

    def fork(self, prompts: Sequence[int]) -> None:
        """Row r continues prompt number `prompts[r]`. Call once."""

    def step(self, tokens_R: Tensor) -> Tensor:
        """Append one token to each row: [R, V] logits of the next."""

    def keep(self, rows_K: Tensor) -> None:
        """Go on with these rows only, in this order."""


class _Layer(DynamicLayer):  # type: ignore[misc]
    """Keys and values in buffers with room for some more; the parent class copies everything every step."""

    def __init__(self, keys_RHTD: Tensor, values_RHTD: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys_RHTD, values_RHTD)
        self._hold(keys_RHTD, values_RHTD)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        start, end = self._length, self._length + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            self._hold(self.keys, self.values)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        self._hold(self.keys.index_select(0, indices), self.values.index_select(0, indices))

    def _hold(self, keys_RHTD: Tensor, values_RHTD: Tensor) -> None:
        self._buffers = (_with_room(keys_RHTD), _with_room(values_RHTD))
        self._show(keys_RHTD.shape[-2])

    def _show(self, length: int) -> None:
        self._length = length
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


def _with_room(states_RHTD: Tensor) -> Tensor:
    num_rows, num_heads, length, width = states_RHTD.shape
    buffer = states_RHTD.new_empty(num_rows, num_heads, length + _ROOM, width)
    buffer[:, :, :length] = states_RHTD
    return buffer


class _Chunk(NamedTuple):
    """Prompts of like length that were read together."""

    members: list[int]
    cache: DynamicCache | EncoderDecoderCache
    hidden_BSD: Tensor | None


class CausalBranches:
    """Decoder-only models: prompts are padded on the left, positions count from each prompt's first token."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._lengths = [len(prompt) for prompt in prompts]
        self._chunks: list[_Chunk] = []
        first: list[Tensor] = []
        for members in _by_length(self._lengths):
            ids_BT, mask_BT = _pad([prompts[i] for i in members], model.device, left=True)
            result = model(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                position_ids=(mask_BT.cumsum(-1) - 1).clamp(min=0),
                use_cache=True,
                logits_to_keep=1,
            )
            first.append(result.logits[:, -1].float())
            self._chunks.append(_Chunk(members, result.past_key_values, None))
        self.first_PV = _in_order(first, self._chunks)

    def fork(self, prompts: Sequence[int]) -> None:
        longest = max(self._lengths[i] for i in prompts)
        device = self._model.device
        lengths_R = torch.tensor([self._lengths[i] for i in prompts], device=device)
        self._positions_R1 = lengths_R[:, None]
        self._mask_RT = (torch.arange(longest, device=device) >= longest - self._positions_R1).long()
        rows_R = _places(self._chunks, prompts, device)
        self._cache = _stack([chunk.cache for chunk in self._chunks], rows_R, longest, left=True)
        self._chunks = []

    def step(self, tokens_R: Tensor) -> Tensor:
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
        self._mask_RT, self._positions_R1 = self._mask_RT[rows_K], self._positions_R1[rows_K]
        self._cache.batch_select_indices(rows_K)


class EncoderDecoderBranches:
    """Encoder-decoder models: prompts are padded on the right; rows begin with the start token."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._lengths = [len(prompt) for prompt in prompts]
        self._chunks: list[_Chunk] = []
        first: list[Tensor] = []
        for members in _by_length(self._lengths):
            ids_BS, mask_BS = _pad([prompts[i] for i in members], model.device, left=False)
            hidden_BSD = model.get_encoder()(input_ids=ids_BS, attention_mask=mask_BS).last_hidden_state
            start = model.generation_config.decoder_start_token_id
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
        self._hidden_RSD, self._mask_RS = self._hidden_RSD[rows_K], self._mask_RS[rows_K]
        self._cache.batch_select_indices(rows_K)


def _by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Indices in chunks of like length, so that little is padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + _PROMPTS_AT_ONCE] for start in range(0, len(order), _PROMPTS_AT_ONCE)]


def _in_order(logits: Sequence[Tensor], chunks: Sequence[_Chunk]) -> Tensor:
    """[P, V] the chunks' logits, row p for prompt p."""
    device = logits[0].device
    num_prompts = sum(len(chunk.members) for chunk in chunks)
    return torch.cat(list(logits))[_places(chunks, range(num_prompts), device)]


def _places(chunks: Sequence[_Chunk], prompts: Sequence[int], device: torch.device) -> Tensor:
    """[R] where these prompts are when the chunks lie one under the other."""
    members = [member for chunk in chunks for member in chunk.members]
    place = {member: position for position, member in enumerate(members)}
    return torch.tensor([place[prompt] for prompt in prompts], device=device)


def _pad(prompts: Sequence[Sequence[int]], device: torch.device, *, left: bool) -> tuple[Tensor, Tensor]:
    """([B, T] ids with 0 in the padding, [B, T] mask: 1 where a token is)."""
    longest = max(len(prompt) for prompt in prompts)
    ids, mask = [], []
    for prompt in prompts:
        padding = [0] * (longest - len(prompt))
        present = [1] * len(prompt)
        ids.append([*padding, *prompt] if left else [*prompt, *padding])
        mask.append([*padding, *present] if left else [*present, *padding])
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _gather(parts: Sequence[Tensor], rows_R: Tensor, length: int, *, dim: int, left: bool) -> Tensor:
    """Rows of the chunks laid one under the other, `dim` padded or cut to `length` at one side."""
    fitted = []
    for part in parts:
        missing = length - part.shape[dim]
        padding = [0, 0] * (part.dim() - 1 - dim) + ([missing, 0] if left else [0, missing])
        fitted.append(torch.nn.functional.pad(part, padding))
    return torch.cat(fitted).index_select(0, rows_R)


def _stack(caches: Sequence[DynamicCache], rows_R: Tensor, length: int, *, left: bool) -> DynamicCache:
    """One cache of R rows and `length` positions; the chunks are aligned at one side."""
    stacked = DynamicCache()
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        keys = _gather([layer.keys for layer in layers], rows_R, length, dim=2, left=left)
        values = _gather([layer.values for layer in layers], rows_R, length, dim=2, left=left)
        stacked.layers.append(_Layer(keys, values))
    return stacked
