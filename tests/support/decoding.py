"""Contrastive decoding as MultiCSR Eq. 2 reads: one hypothesis, two whole forward passes a step, no cache."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from multicsr.llm.contrast import uniform


def next_logits(model: PreTrainedModel, prompt: list[int], written: list[int]) -> torch.Tensor:
    """[V] logits after a prompt and what was written so far."""
    if model.config.is_encoder_decoder:
        decoder = [model.generation_config.decoder_start_token_id, *written]
        return model(
            input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([decoder]), use_cache=False
        ).logits[0, -1]
    return model(input_ids=torch.tensor([prompt + written]), use_cache=False).logits[0, -1]


def write(
    model: PreTrainedModel,
    main: list[int],
    noisy: list[int],
    omega: float,
    max_new_tokens: int,
    choose: Callable[[np.ndarray, int], int] | None = None,
    *,
    min_new_tokens: int = 0,
    bad_words: Sequence[Sequence[int]] = (),
) -> tuple[list[int], float]:
    """(Tokens with the end token, smallest distance between the two best tokens at any step)."""
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else ends
    written: list[int] = []
    smallest_gap = np.inf
    while len(written) < max_new_tokens:
        with torch.no_grad():
            logits = next_logits(model, main, written) - omega * next_logits(model, noisy, written)
        logits = logits.double().numpy()
        for token in range(len(logits)):
            is_early = token in ends and len(written) < min_new_tokens
            if is_early or any([*written, token][-len(word) :] == list(word) for word in bad_words):
                logits[token] = -np.inf
        second, first = np.sort(logits)[-2:]
        smallest_gap = min(smallest_gap, first - second)
        token = int(logits.argmax()) if choose is None else choose(logits, len(written))
        written.append(token)
        if token in ends:
            break
    return written, float(smallest_gap)


def draw(logits: np.ndarray, number: float, temperature: float, top_p: float) -> int:
    """Inverse cumulative distribution over token ids within the nucleus."""
    p = np.exp((logits - logits.max()) / temperature)
    p /= p.sum()
    likeliest_first = np.argsort(-p)
    size = 1 + int(np.searchsorted(np.cumsum(p[likeliest_first]), top_p))
    inside = np.zeros_like(p)
    inside[likeliest_first[:size]] = p[likeliest_first[:size]]
    running = np.cumsum(inside)
    return int(np.argmax(running > number * running[-1]))


def drawer(seed: int, row_id: str, direction: str, temperature: float, top_p: float):
    """A `choose` for `write` that takes the same numbers as the library."""
    return lambda logits, position: draw(
        logits, uniform(seed, row_id, direction, position), temperature, top_p
    )
