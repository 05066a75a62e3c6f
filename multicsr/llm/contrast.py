"""Contrastive choice of the next token, MultiCSR Eq. 2: draw y_t from softmax(l_t - omega * l_hat_t).

l_t are the logits of the instruction, l_hat_t those of the opposite ("noisy") instruction after the same
prefix. Shapes: N rows, V vocabulary. The inputs are raw logits, as in the paper; log-softmax on either side
would add a constant per row and change nothing.

The result of a row must not depend on the rest of the batch, but floating point sums depend on the shape of
the batch. So every choice has a flag: it is certain if no shift of the logits by less than half a `tie_gap`
could change it. The decoder repeats uncertain rows alone (`multicsr.llm.transformers.decode`).
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
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

    Logits may move by less than tie_gap / 2 each. So the ratio of two probabilities changes by a factor
    within exp(+-d), d = tie_gap / temperature, the nucleus stays between a smallest and a largest one, and
    their masses bound the edges of the drawn token's interval. Only these decide whether the draw is certain.

    Args:
        uniform_N: [N] numbers in [0, 1), one for each draw.

    Returns:
        [N] tokens and [N] flags: True if the choice is certain.
    """
    d = tie_gap / temperature
    p_NV = torch.softmax(logits_NV.double() / temperature, dim=-1)
    nucleus_NV, inner_NV, outer_NV = _nuclei(p_NV, top_p, d)
    sum_NV = nucleus_NV.cumsum(-1)
    drawn_N1 = _invert(sum_NV, uniform_N[:, None])
    if d == 0:
        return drawn_N1.squeeze(1), ~sum_NV[:, -1].isnan()
    least_NV, most_NV = (sum_NV, sum_NV) if top_p == 1 else (inner_NV.cumsum(-1), outer_NV.cumsum(-1))
    lower_N = _edge(most_NV, least_NV, drawn_N1 - 1, -d)
    upper_N = _edge(least_NV, most_NV, drawn_N1, d)
    return drawn_N1.squeeze(1), (lower_N <= uniform_N) & (uniform_N < upper_N)


def uniform(seed: int, row_id: str, direction: str, position: int) -> float:
    """Return the number in [0, 1) that draws the token at `position` of a hypothesis.

    It is a function of the arguments alone.
    """
    return (hash_64(f"{seed}:{row_id}:{direction}:{position}") >> 11) / 2**53


def on_device(values: Sequence[object], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a tensor of the values on the device; the copy to a GPU is asynchronous."""
    tensor = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
    return tensor.to(device, non_blocking=True)


def _edge(below_NV: Tensor, above_NV: Tensor, last_N1: Tensor, log_factor: float) -> Tensor:
    """Return the share of the mass up to and including a token, [N], if all other mass grows by a factor.

    Args:
        below_NV: cumulative masses of the nucleus from which those up to the token are taken.
        above_NV: cumulative masses of the nucleus from which those after the token are taken.
        last_N1: the token; -1 stands for none.
        log_factor: logarithm of the factor.
    """
    is_none_N1, last_N1 = last_N1 < 0, last_N1.clamp(min=0)
    part_N1 = below_NV.gather(1, last_N1).masked_fill(is_none_N1, 0.0)
    rest_N1 = above_NV[:, -1:] - above_NV.gather(1, last_N1).masked_fill(is_none_N1, 0.0)
    return (part_N1 / (part_N1 + rest_N1 * math.exp(log_factor))).squeeze(1)


def _nuclei(p_NV: Tensor, top_p: float, d: float) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `p_NV` with all tokens outside the nucleus set to 0, for three nuclei.

    A token is in the nucleus iff the probabilities of the likelier tokens sum to less than `top_p`. So a
    nucleus is all tokens from some probability on.

    Args:
        p_NV: [N, V] probabilities.
        top_p: mass of the nucleus.
        d: the ratio of two probabilities may change by a factor within exp(+-d).

    Returns:
        Three [N, V] tensors: the nucleus of `p_NV` itself, the smallest one and the largest one within `d`.
    """
    if top_p == 1:
        return p_NV, p_NV, p_NV
    rising_NV = _sorted(p_NV)
    falling_NV = rising_NV.flip(-1)
    above_NV = torch.nn.functional.pad(falling_NV.cumsum(-1), (1, 0))  # mass of the k likeliest tokens

    def members(factor: float, bound: float, counts_itself: bool) -> Tensor:
        """Return the tokens for which the mass of the tokens above factor * p is less than `bound`."""

        def is_in(k_N1: Tensor) -> Tensor:
            p_N1 = falling_NV.gather(1, k_N1)
            num_below_N1 = torch.searchsorted(rising_NV, p_N1 * factor, right=True)
            likelier_N1 = above_NV.gather(1, p_NV.shape[1] - num_below_N1)
            return (likelier_N1 - p_N1 if counts_itself else likelier_N1) < bound

        count_N1 = _count_leading(is_in, p_NV.shape[1], p_NV.new_zeros(len(p_NV), 1, dtype=torch.long))
        least_N1 = falling_NV.gather(1, (count_N1 - 1).clamp(min=0))
        return p_NV * (p_NV >= least_N1.masked_fill(count_N1 == 0, torch.inf))

    nucleus_NV = members(1.0, top_p, counts_itself=False)
    if d == 0:
        return (nucleus_NV,) * 3
    # Two probabilities can swap their order when they are within a factor exp(d), and a mass m becomes at
    # most m / (m + (1 - m) exp(-d)), which is top_p where m is this:
    shrunk, grown = (top_p / (top_p + (1 - top_p) * math.exp(shift)) for shift in (d, -d))
    inner_NV = members(math.exp(-d), shrunk, counts_itself=True)
    return nucleus_NV, inner_NV, members(math.exp(d), grown, counts_itself=False)


def _count_leading(is_in: Callable[[Tensor], Tensor], size: int, zeros_N1: Tensor) -> Tensor:
    """Return by bisection how many of the first indices fulfil a condition, which no later index fulfils.

    Args:
        is_in: function from [N, 1] indices to [N, 1] flags.
        size: number of indices.
        zeros_N1: zeros in the type and on the device of the indices.
    """
    low_N1, high_N1 = zeros_N1, zeros_N1 + size
    for _ in range(size.bit_length()):
        middle_N1 = (low_N1 + high_N1) // 2
        is_in_N1 = is_in(middle_N1.clamp(max=size - 1)) & (low_N1 < high_N1)
        low_N1, high_N1 = (
            torch.where(is_in_N1, middle_N1 + 1, low_N1),
            torch.where(is_in_N1, high_N1, middle_N1),
        )
    return low_N1


def _sorted(values_NV: Tensor) -> Tensor:
    """Return the rows in ascending order; NumPy sorts several times as fast as torch on a CPU."""
    if values_NV.device.type == "cpu":
        return torch.from_numpy(np.sort(values_NV.numpy(), axis=-1))
    return values_NV.sort(dim=-1).values


def _invert(sum_NV: Tensor, uniform_N1: Tensor) -> Tensor:
    """Return the first token at which the cumulative sum exceeds `uniform_N1` times the total, [N, 1]."""
    return torch.searchsorted(sum_NV, uniform_N1 * sum_NV[:, -1:], right=True).clamp(max=sum_NV.shape[1] - 1)
