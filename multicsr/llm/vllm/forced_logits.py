"""Choice of the token of every row in one step of the engine, forced by overwriting the logits.

Shapes: R rows of logits, of which N are hypotheses (main or single rows), C of these with a noisy row;
V vocabulary. To force a token, its row is overwritten with -inf at all other tokens, which works with any
sampler.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multicsr.llm.contrast import choose, combine, on_device, rule_out
from multicsr.llm.request import SamplingParams
from multicsr.llm.vllm.pair_metadata import PairMetadata, PairRole


class Seat(NamedTuple):
    """Row of the step whose token is used."""

    row: int
    metadata: PairMetadata
    position: int
    """Position in the hypothesis of the token to be chosen."""


class Hypothesis(NamedTuple):
    """Rows that get one common token."""

    main: Seat
    noisy: Seat | None


def match(seats: Iterable[Seat]) -> tuple[list[Hypothesis], list[Seat]]:
    """Match the members of each pair.

    Returns:
        The hypotheses that are complete in this step, and the seats whose partner is missing or at another
        position.
    """
    whole: list[Hypothesis] = []
    lone: list[Seat] = []
    waiting: dict[str, Seat] = {}
    for seat in seats:
        if seat.metadata.role is PairRole.SINGLE:
            whole.append(Hypothesis(seat, None))
            continue
        partner = waiting.pop(seat.metadata.pair, None)
        if partner is None:
            waiting[seat.metadata.pair] = seat
        elif partner.position == seat.position and partner.metadata.role is not seat.metadata.role:
            is_main = seat.metadata.role is PairRole.MAIN
            whole.append(Hypothesis(seat, partner) if is_main else Hypothesis(partner, seat))
        else:
            lone += [partner, seat]
    return whole, [*lone, *waiting.values()]


def force_tokens(logits_RV: Tensor, present: Iterable[Seat]) -> None:
    """Overwrite the rows of the seats in place, so that any sampler takes the forced token.

    A complete hypothesis gets the token of MultiCSR Eq. 2. A seat without its partner, or with a choice
    closer than the tie gap, gets a sentinel token.
    """
    whole, lone = match(present)
    rows: list[int] = []
    tokens: list[Tensor] = []
    by_rule: dict[SamplingParams, list[Hypothesis]] = {}
    for hypothesis in whole:
        by_rule.setdefault(hypothesis.main.metadata.rule, []).append(hypothesis)
    for rule, group in by_rule.items():
        group.sort(key=lambda hypothesis: hypothesis.noisy is None)  # pairs first, as `_contrast` expects
        seats = [hypothesis.main for hypothesis in group]
        keys = ((seat.metadata.row_id, seat.metadata.direction, seat.position) for seat in seats)
        token_N, certain_N = choose(_contrast(logits_RV, group), rule, keys)
        rows += [seat.row for seat in seats]
        tokens.append(_or_signal(token_N, certain_N, seats))
        noisy = [hypothesis.noisy for hypothesis in group if hypothesis.noisy is not None]
        rows += [seat.row for seat in noisy]
        tokens.append(_or_signal(token_N[: len(noisy)], certain_N[: len(noisy)], noisy))
    if lone:
        rows += [seat.row for seat in lone]
        sentinels = [seat.metadata.sentinels.lone(seat.metadata.role) for seat in lone]
        tokens.append(on_device(sentinels, logits_RV.device, torch.long))
    if rows:
        rows_F = on_device(rows, logits_RV.device, torch.long)
        logits_RV.index_fill_(0, rows_F, -torch.inf)
        logits_RV.index_put_((rows_F, torch.cat(tokens)), logits_RV.new_zeros(()))


def _contrast(logits_RV: Tensor, group: Sequence[Hypothesis]) -> Tensor:
    """Compute the logits of MultiCSR Eq. 2, [N, V], with -inf at tokens that must not be written."""
    device = logits_RV.device
    logits_NV = logits_RV.index_select(0, on_device([h.main.row for h in group], device, torch.long))
    pairs = [hypothesis for hypothesis in group if hypothesis.noisy is not None]
    if pairs:
        noisy_C = on_device([h.noisy.row for h in pairs if h.noisy], device, torch.long)
        omega_C = on_device([h.main.metadata.omega for h in pairs], device, logits_RV.dtype)
        contrasted_CV = combine(logits_NV[: len(pairs)], logits_RV.index_select(0, noisy_C), omega_C)
        if len(pairs) == len(group):
            logits_NV = contrasted_CV
        else:
            logits_NV[: len(pairs)] = contrasted_CV
    cells = [(n, token) for n, (main, _) in enumerate(group) for token in _ruled_out(main)]
    rule_out(logits_NV, cells)
    return logits_NV


def _ruled_out(seat: Seat) -> tuple[int, ...]:
    """Return the tokens that must not be written at this position."""
    metadata = seat.metadata
    ends = metadata.ends if seat.position < metadata.rule.min_new_tokens else ()
    return ends + metadata.banned if seat.position == metadata.start else ends


def _or_signal(token_N: Tensor, certain_N: Tensor, seats: Sequence[Seat]) -> Tensor:
    """Return the chosen tokens, with a sentinel token where the choice is not certain, [N]."""
    sentinels = [seat.metadata.sentinels.close(seat.metadata.role) for seat in seats]
    return torch.where(certain_N, token_N, on_device(sentinels, token_N.device, torch.long))
