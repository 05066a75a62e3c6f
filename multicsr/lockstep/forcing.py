"""One step of the engine: which token every row of ours must get.

R rows of logits, of which N are hypotheses (main or single rows), C of these with a noisy row; V vocabulary.
Forcing a token means to overwrite its row with -inf elsewhere, which works in any sampler.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multicsr.generate.contrast import choose_drawn, choose_greedy, combine, uniform
from multicsr.generate.hypothesis import Rule
from multicsr.lockstep.ticket import Role, Ticket


class Seat(NamedTuple):
    """A row of the step whose token counts."""

    row: int
    ticket: Ticket
    position: int
    """In the hypothesis, of the token to be chosen."""


class Hypothesis(NamedTuple):
    """Rows that get one common token."""

    main: Seat
    noisy: Seat | None


def match(seats: Iterable[Seat]) -> tuple[list[Hypothesis], list[Seat]]:
    """(Hypotheses that are complete in this step, seats whose partner is missing or elsewhere)."""
    whole: list[Hypothesis] = []
    lone: list[Seat] = []
    waiting: dict[str, Seat] = {}
    for seat in seats:
        if seat.ticket.role is Role.SINGLE:
            whole.append(Hypothesis(seat, None))
            continue
        partner = waiting.pop(seat.ticket.pair, None)
        if partner is None:
            waiting[seat.ticket.pair] = seat
        elif partner.position == seat.position and partner.ticket.role is not seat.ticket.role:
            is_main = seat.ticket.role is Role.MAIN
            whole.append(Hypothesis(seat, partner) if is_main else Hypothesis(partner, seat))
        else:
            lone += [partner, seat]
    return whole, [*lone, *waiting.values()]


def force_tokens(logits_RV: Tensor, seats: Iterable[Seat]) -> None:
    """Overwrite the rows of these seats, in place, so that any sampler takes the token that is due."""
    whole, lone = match(seats)
    rows: list[int] = []
    tokens: list[Tensor] = []
    by_rule: dict[Rule, list[Hypothesis]] = {}
    for hypothesis in whole:
        by_rule.setdefault(hypothesis.main.ticket.rule, []).append(hypothesis)
    for rule, group in by_rule.items():
        group.sort(key=lambda hypothesis: hypothesis.noisy is None)  # pairs first, as `_contrast` expects
        token_N, certain_N = _choose(_contrast(logits_RV, group), group, rule)
        rows += [hypothesis.main.row for hypothesis in group]
        tokens.append(_or_signal(token_N, certain_N, [hypothesis.main for hypothesis in group]))
        noisy = [hypothesis.noisy for hypothesis in group if hypothesis.noisy is not None]
        rows += [seat.row for seat in noisy]
        tokens.append(_or_signal(token_N[: len(noisy)], certain_N[: len(noisy)], noisy))
    if lone:
        rows += [seat.row for seat in lone]
        signals = [seat.ticket.signals.lone(seat.ticket.role) for seat in lone]
        tokens.append(_on(signals, logits_RV.device))
    if rows:
        rows_F = _on(rows, logits_RV.device)
        logits_RV.index_fill_(0, rows_F, -torch.inf)
        logits_RV.index_put_((rows_F, torch.cat(tokens)), logits_RV.new_zeros(()))


def _contrast(logits_RV: Tensor, group: Sequence[Hypothesis]) -> Tensor:
    """[N, V] Eq. 2, with -inf at what must not be written."""
    device = logits_RV.device
    logits_NV = logits_RV.index_select(0, _on([hypothesis.main.row for hypothesis in group], device))
    pairs = [hypothesis for hypothesis in group if hypothesis.noisy is not None]
    if pairs:
        noisy_C = _on([hypothesis.noisy.row for hypothesis in pairs if hypothesis.noisy], device)
        omega_C = _on([hypothesis.main.ticket.omega for hypothesis in pairs], device, logits_RV.dtype)
        contrasted_CV = combine(logits_NV[: len(pairs)], logits_RV.index_select(0, noisy_C), omega_C)
        if len(pairs) == len(group):
            logits_NV = contrasted_CV
        else:
            logits_NV[: len(pairs)] = contrasted_CV
    cells = [(n, token) for n, (main, _) in enumerate(group) for token in _ruled_out(main)]
    if cells:
        n_E, token_E = _on([n for n, _ in cells], device), _on([token for _, token in cells], device)
        logits_NV.index_put_((n_E, token_E), logits_NV.new_tensor(-torch.inf))
    return logits_NV


def _ruled_out(seat: Seat) -> tuple[int, ...]:
    ticket = seat.ticket
    ends = ticket.ends if seat.position < ticket.rule.min_new_tokens else ()
    return ends + ticket.banned if seat.position == ticket.start else ends


def _choose(logits_NV: Tensor, group: Sequence[Hypothesis], rule: Rule) -> tuple[Tensor, Tensor]:
    """([N] tokens, [N] certain); logits that are not numbers are never certain."""
    if rule.temperature == 0:
        return choose_greedy(logits_NV, rule.tie_gap)
    seats = [hypothesis.main for hypothesis in group]
    draws = [uniform(rule.seed, s.ticket.row_id, s.ticket.direction, s.position) for s in seats]
    draws_N = _on(draws, logits_NV.device, torch.float64)
    return choose_drawn(logits_NV, draws_N, rule.temperature, rule.top_p, rule.tie_gap)


def _or_signal(token_N: Tensor, certain_N: Tensor, seats: Sequence[Seat]) -> Tensor:
    signals = [seat.ticket.signals.close(seat.ticket.role) for seat in seats]
    return torch.where(certain_N, token_N, _on(signals, token_N.device))


def _on(values: Sequence[float], device: torch.device, dtype: torch.dtype = torch.long) -> Tensor:
    """A tensor on the device; to a GPU without waiting for it."""
    tensor = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
    return tensor.to(device, non_blocking=True)
