"""Contrastive choice of the next token, MultiCSR Eq. 2: draw y_t from softmax(l_t - omega * l_hat_t).

l_t are the logits of the instruction, l_hat_t those of the opposite ("noisy") instruction after the same
prefix. Shapes: N rows, V vocabulary. The inputs are raw logits, as in the paper; log-softmax on either side
would add a constant per row and change nothing.

The result of a row must not depend on the rest of the batch, but floating point sums depend on the shape of
the batch. So every choice has a flag: it is certain if no shift of the logits by less than half a `tie_gap`
could change it. The decoder repeats uncertain rows alone (`multicsr.llm.transformers.decode`).
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from multicsr.hashing import hash_64
from multicsr.llm.request import SamplingParams


def combine(main_NV: Tensor, noisy_NV: Tensor, omega_N: Tensor) -> Tensor:
    """Compute the logits main - omega * noisy of MultiCSR Eq. 2.

    A token that either branch rules out (-inf) never gives NaN or +inf. A token that the main branch rules
    out stays ruled out. A token that only the noisy branch rules out keeps its main logit; Eq. 2 taken
    literally would give it probability 1. Rows with omega = 0 equal `main_NV` exactly.

    Returns:
        [N, V] logits.
    """
    finite_NV = torch.nan_to_num(noisy_NV, nan=torch.nan, posinf=torch.inf, neginf=0.0)
    return torch.addcmul(main_NV, omega_N[:, None], finite_NV, value=-1.0)


def rule_out(logits_NV: Tensor, cells: Sequence[tuple[int, int]]) -> None:
    """Set the logits of these (row, token) cells to -inf, in place."""
    if cells:
        rows_E, tokens_E = on_device(cells, logits_NV.device, torch.long).unbind(1)
        logits_NV.index_put_((rows_E, tokens_E), logits_NV.new_tensor(-torch.inf))


def choose(
    logits_NV: Tensor, rule: SamplingParams, keys: Iterable[tuple[str, str, int]]
) -> tuple[Tensor, Tensor]:
    """Choose the next token of each row by the rule; a row with NaN logits is never certain.

    Args:
        keys: (row id, direction, position) of each row, for its draw.

    Returns:
        [N] tokens and [N] flags: True if the choice is certain.
    """
    if rule.temperature == 0:
        return choose_greedy(logits_NV, rule.tie_gap)
    draws = [uniform(rule.seed, *key) for key in keys]
    draws_N = on_device(draws, logits_NV.device, torch.float64)
    return choose_drawn(logits_NV, draws_N, rule.temperature, rule.top_p, rule.tie_gap)


def choose_greedy(logits_NV: Tensor, tie_gap: float) -> tuple[Tensor, Tensor]:
    """Choose the most likely token of each row.

    Returns:
        [N] tokens and [N] flags: True if the second most likely token is `tie_gap` or more behind.
    """
    top_N2 = logits_NV.topk(2, dim=-1)
    gap_N = top_N2.values[:, 0] - top_N2.values[:, 1]
    return top_N2.indices[:, 0], gap_N >= tie_gap


def choose_drawn(
    logits_NV: Tensor, uniform_N: Tensor, temperature: float, top_p: float, tie_gap: float
) -> tuple[Tensor, Tensor]:
    """Draw a token of each row from softmax(logits / temperature), restricted to the nucleus of `top_p`.

    The draw inverts the cumulative distribution in the order of token ids, in float64.

    A shift of the logits below tie_gap / 2 changes every probability by a factor within exp(+-d),
    d = tie_gap / temperature. Hence the nucleus stays between a smallest and a largest one, and their masses
    bound the edges of the drawn token's interval.

    Args:
        uniform_N: [N] numbers in [0, 1), one for each draw.

    Returns:
        [N] tokens and [N] flags: True if the choice is certain.
    """
    d = tie_gap / temperature
    p_NV = torch.softmax(logits_NV.double() / temperature, dim=-1)
    nucleus_NV, inner_NV, outer_NV = _nuclei(p_NV, top_p, d)
    drawn_N = _invert(nucleus_NV, uniform_N)
    before_NV = torch.arange(p_NV.shape[1], device=p_NV.device) < drawn_N[:, None]
    at_NV = torch.zeros_like(before_NV).scatter_(1, drawn_N[:, None], True)

    def share_N(part_NV: Tensor, least: bool) -> Tensor:
        """Return the least or the greatest share of the nucleus that `part_NV` can have, [N]."""
        inside_NV, outside_NV = (inner_NV, outer_NV) if least else (outer_NV, inner_NV)
        part_N = (inside_NV * part_NV).sum(-1)
        rest_N = (outside_NV * ~part_NV).sum(-1) * math.exp(2 * d if least else -2 * d)
        return part_N / (part_N + rest_N)

    lower_N, upper_N = share_N(before_NV, least=False), share_N(before_NV | at_NV, least=True)
    return drawn_N, (lower_N <= uniform_N) & (uniform_N < upper_N)


def uniform(seed: int, row_id: str, direction: str, position: int) -> float:
    """Return the number in [0, 1) that draws the token at `position` of a hypothesis.

    It is a function of the arguments alone.
    """
    return (hash_64(f"{seed}:{row_id}:{direction}:{position}") >> 11) / 2**53


def on_device(values: Sequence[object], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a tensor of the values on the device; the copy to a GPU is asynchronous."""
    tensor = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
    return tensor.to(device, non_blocking=True)


def _nuclei(p_NV: Tensor, top_p: float, d: float) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `p_NV` with all tokens outside the nucleus set to 0, for three nuclei.

    A token is in the nucleus iff the probabilities of the likelier tokens sum to less than `top_p`.

    Args:
        d: every probability may change by a factor within exp(+-d).

    Returns:
        Three [N, V] tensors: the nucleus of `p_NV` itself, the smallest one and the largest one within `d`.
    """
    if top_p == 1:
        return p_NV, p_NV, p_NV
    falling_NV = p_NV.sort(dim=-1, descending=True).values
    sum_NV = torch.nn.functional.pad(falling_NV.cumsum(-1), (1, 0))

    def mass_above(least_NV: Tensor) -> Tensor:
        """Compute the sum of all probabilities of the row that are greater than `least_NV`, [N, V]."""
        return sum_NV.gather(1, torch.searchsorted(-falling_NV, -least_NV))

    is_in_NV = mass_above(p_NV) < top_p
    if d == 0:
        return (p_NV * is_in_NV,) * 3
    # Two probabilities can swap their order when they are within a factor exp(2 d).
    likelier_NV = mass_above(p_NV * math.exp(-2 * d)) - p_NV
    surely_in_NV = likelier_NV * math.exp(d) < top_p
    maybe_in_NV = mass_above(p_NV * math.exp(2 * d)) * math.exp(-d) < top_p
    return p_NV * is_in_NV, p_NV * surely_in_NV, p_NV * maybe_in_NV


def _invert(mass_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """Return the first token at which the cumulative sum exceeds `uniform_N` times the total, [N]."""
    sum_NV = mass_NV.cumsum(-1)
    target_N1 = uniform_N[:, None] * sum_NV[:, -1:]
    return torch.searchsorted(sum_NV, target_N1, right=True).squeeze(1).clamp(max=mass_NV.shape[1] - 1)
