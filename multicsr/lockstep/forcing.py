"""One step of the engine: which token every row of ours must get.

R rows of logits, of which N are hypotheses (main or single rows), C of these with a noisy row; V vocabulary.
Forcing a token means to overwrite its row with -inf elsewhere, which works in any sampler.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multicsr.generate.contrast import choose, combine, on_device, rule_out
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


def force_tokens(logits_RV: Tensor, present: Iterable[Seat]) -> None:
    """Overwrite the present seats' rows, in place, so that any sampler takes the token that is due."""
    whole, lone = match(present)
    rows: list[int] = []
    tokens: list[Tensor] = []
    by_rule: dict[Rule, list[Hypothesis]] = {}
    for hypothesis in whole:
        by_rule.setdefault(hypothesis.main.ticket.rule, []).append(hypothesis)
    for rule, group in by_rule.items():
        group.sort(key=lambda hypothesis: hypothesis.noisy is None)  # pairs first, as `_contrast` expects
        seats = [hypothesis.main for hypothesis in group]
        keys = ((seat.ticket.row_id, seat.ticket.direction, seat.position) for seat in seats)
        token_N, certain_N = choose(_contrast(logits_RV, group), rule, keys)
        rows += [seat.row for seat in seats]
        tokens.append(_or_signal(token_N, certain_N, seats))
        noisy = [hypothesis.noisy for hypothesis in group if hypothesis.noisy is not None]
        rows += [seat.row for seat in noisy]
        tokens.append(_or_signal(token_N[: len(noisy)], certain_N[: len(noisy)], noisy))
    if lone:
        rows += [seat.row for seat in lone]
        signals = [seat.ticket.signals.lone(seat.ticket.role) for seat in lone]
        tokens.append(on_device(signals, logits_RV.device, torch.long))
    if rows:
        rows_F = on_device(rows, logits_RV.device, torch.long)
        logits_RV.index_fill_(0, rows_F, -torch.inf)
        logits_RV.index_put_((rows_F, torch.cat(tokens)), logits_RV.new_zeros(()))


def _contrast(logits_RV: Tensor, group: Sequence[Hypothesis]) -> Tensor:
    """[N, V] Eq. 2, with -inf at what must not be written."""
    device = logits_RV.device
    logits_NV = logits_RV.index_select(0, on_device([h.main.row for h in group], device, torch.long))
    pairs = [hypothesis for hypothesis in group if hypothesis.noisy is not None]
    if pairs:
        noisy_C = on_device([h.noisy.row for h in pairs if h.noisy], device, torch.long)
        omega_C = on_device([h.main.ticket.omega for h in pairs], device, logits_RV.dtype)
        contrasted_CV = combine(logits_NV[: len(pairs)], logits_RV.index_select(0, noisy_C), omega_C)
        if len(pairs) == len(group):
            logits_NV = contrasted_CV
        else:
            logits_NV[: len(pairs)] = contrasted_CV
    cells = [(n, token) for n, (main, _) in enumerate(group) for token in _ruled_out(main)]
    rule_out(logits_NV, cells)
    return logits_NV


def _ruled_out(seat: Seat) -> tuple[int, ...]:
    ticket = seat.ticket
    ends = ticket.ends if seat.position < ticket.rule.min_new_tokens else ()
    return ends + ticket.banned if seat.position == ticket.start else ends


def _or_signal(token_N: Tensor, certain_N: Tensor, seats: Sequence[Seat]) -> Tensor:
    signals = [seat.ticket.signals.close(seat.ticket.role) for seat in seats]
    return torch.where(certain_N, token_N, on_device(signals, token_N.device, torch.long))
