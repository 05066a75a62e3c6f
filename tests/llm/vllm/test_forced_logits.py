"""The rows of one step against a slow version that looks at one row after the other."""

import random
from collections import Counter

import numpy as np
import pytest
import torch

from multicsr.llm.contrast import choose_drawn, uniform
from multicsr.llm.request import SamplingParams
from multicsr.llm.vllm.forced_logits import Seat, force_tokens, match
from multicsr.llm.vllm.pair_metadata import PairMetadata, PairRole, Sentinels
from tests.support.decoding import draw

INF = float("inf")
VOCAB = 24
SENTINELS = Sentinels(VOCAB - 2, VOCAB - 1)
GREEDY = SamplingParams(8, temperature=0.0, top_p=1.0, seed=5, tie_gap=0.3)
RULES = [
    GREEDY,
    GREEDY._replace(tie_gap=0.0, min_new_tokens=3),
    SamplingParams(8, temperature=0.8, top_p=0.9, seed=5, tie_gap=0.01),
    SamplingParams(8, temperature=1.3, top_p=1.0, seed=6, tie_gap=0.0, min_new_tokens=5),
]


def metadata(name, role, omega=0.3, rule=GREEDY, **fields):
    return PairMetadata(name, role, omega, rule, SENTINELS, row_id=name, direction="entailment", **fields)


def combined(logits, main, noisy):
    """[V] Eq. 2 in float64, -inf at what must not be written."""
    mixed = logits[main.row].double().numpy()
    if noisy is not None:
        weight = logits[noisy.row].double().numpy()
        weight = np.where(weight == -INF, 0.0, weight)
        mixed = mixed - main.metadata.omega * weight
    banned = main.metadata.banned if main.position == main.metadata.start else ()
    early = main.metadata.ends if main.position < main.metadata.rule.min_new_tokens else ()
    mixed[[*banned, *early]] = -INF
    return mixed


def choice(mixed, seat):
    """The token; None where it is too close to call."""
    rule = seat.metadata.rule
    if np.isnan(mixed).any() or not np.isfinite(mixed).any():
        return None
    if rule.temperature == 0:
        second, first = np.sort(mixed)[-2:]
        return int(mixed.argmax()) if first - second >= rule.tie_gap else None
    number = uniform(rule.seed, seat.metadata.row_id, "entailment", seat.position)
    row, number_1 = torch.tensor(mixed)[None], torch.tensor([number], dtype=torch.float64)
    _, certain = choose_drawn(row, number_1, rule.temperature, rule.top_p, rule.tie_gap)
    return draw(mixed, number, rule.temperature, rule.top_p) if certain else None


def expected_tokens(logits, seats):
    """({row: token}, what happened to how many rows)."""
    tokens, kinds = {}, Counter()
    for seat in seats:
        role = seat.metadata.role
        main, noisy, kind = seat, None, "single"
        if role is not PairRole.SINGLE:
            [other] = [s for s in seats if s.metadata.pair == seat.metadata.pair and s is not seat] or [None]
            if other is None or other.position != seat.position or other.metadata.role is role:
                tokens[seat.row] = SENTINELS.lone(role)
                kinds["lone"] += 1
                continue
            main, noisy, kind = (seat, other, "main") if role is PairRole.MAIN else (other, seat, "noisy")
        token = choice(combined(logits, main, noisy), main)
        tokens[seat.row] = SENTINELS.close(role) if token is None else token
        kinds[kind if token is not None else "close"] += 1
    return tokens, kinds


def random_seats(rng, rows):
    """Whole pairs, singles, and everything that can go wrong with a pair, on these rows."""
    seats = []
    while len(rows) >= 2:
        rule = rng.choice(RULES)
        fields = {
            "omega": rng.choice([0.1, 0.3, 0.9]),
            "rule": rule,
            "ends": tuple(rng.sample(range(VOCAB), 3)) if rule.min_new_tokens else (),
            "banned": tuple(rng.sample(range(VOCAB), rng.choice([0, 0, 2]))),
            "start": rng.randrange(4),
        }
        position = fields["start"] + rng.randrange(3)
        kind = rng.choice(["pair", "pair", "pair", "single", "half", "apart", "twice"])
        main = metadata(f"p{len(seats)}", PairRole.MAIN, **fields)
        if kind == "single":
            main = metadata("", PairRole.SINGLE, **fields)
        first = main.partner() if kind != "single" and rng.random() < 0.5 else main
        seats.append(Seat(rows.pop(), first, position))
        if kind in ("pair", "apart", "twice"):
            second = main if first.role is PairRole.NOISY else main.partner()
            second = first if kind == "twice" else second
            seats.append(Seat(rows.pop(), second, position + (kind == "apart")))
    rng.shuffle(seats)
    return seats


def random_logits(rng, num_rows):
    logits = torch.tensor([[rng.gauss(0, 2) for _ in range(VOCAB)] for _ in range(num_rows)])
    for row in logits:
        accident = rng.random()
        if accident < 0.4:
            row[rng.sample(range(VOCAB), rng.randrange(1, 12))] = -INF
        elif accident < 0.45:
            row[:] = -INF
        elif accident < 0.5:
            row[rng.randrange(VOCAB)] = float("nan")
    return logits


def forced(logits):
    """The one token of every row that is finite in one cell alone; 0 is its logit."""
    tokens = {}
    for i, row in enumerate(logits):
        finite = row.isfinite().nonzero().flatten().tolist()
        if len(finite) == 1 and (row == -INF).sum() == VOCAB - 1 and row[finite[0]] == 0:
            tokens[i] = finite[0]
    return tokens


@pytest.mark.parametrize("seed", range(60))
def test_every_row_gets_the_token_of_the_slow_version_and_foreign_rows_stay(seed):
    rng = random.Random(seed)
    num_rows = rng.randrange(1, 40)
    rows = rng.sample(range(num_rows), rng.randrange(num_rows + 1))
    logits = random_logits(rng, num_rows)
    seats = random_seats(rng, rows)
    expected, _ = expected_tokens(logits, seats)
    found = logits.clone()
    force_tokens(found, iter(seats))
    tokens = forced(found)
    assert {seat.row: tokens.get(seat.row) for seat in seats} == expected
    foreign = [row for row in range(num_rows) if row not in expected]
    assert torch.equal(found[foreign].view(torch.int32), logits[foreign].view(torch.int32))


def test_the_random_batches_hold_everything_that_can_happen():
    total = Counter()
    for seed in range(60):
        rng = random.Random(seed)
        total += expected_tokens(random_logits(rng, 40), random_seats(rng, list(range(40))))[1]
    assert min(total[kind] for kind in ("main", "noisy", "single", "lone", "close")) > 100


def test_what_a_pair_gets_does_not_depend_on_rows_order_or_neighbours():
    rng = random.Random(1)
    logits = random_logits(rng, 40)
    seats = random_seats(rng, list(range(40)))
    together = logits.clone()
    force_tokens(together, seats)
    for hypothesis in match(seats)[0]:
        members = [seat for seat in hypothesis if seat is not None]
        alone = logits[[seat.row for seat in reversed(members)]]
        force_tokens(alone, [seat._replace(row=i) for i, seat in enumerate(reversed(members))])
        assert torch.equal(alone, together[[seat.row for seat in reversed(members)]])


def test_a_step_without_rows_of_ours_changes_nothing():
    logits = torch.randn(3, VOCAB)
    before = logits.clone()
    force_tokens(logits, [])
    assert torch.equal(logits, before)


def test_a_missing_partner_one_elsewhere_and_one_in_the_same_role_are_lone():
    lost, apart, twin = (metadata(name, PairRole.MAIN) for name in "abc")
    seats = [
        Seat(4, lost.partner(), 0),
        Seat(0, apart, 2),
        Seat(3, apart.partner(), 3),
        Seat(1, twin, 1),
        Seat(2, twin, 1),
    ]
    logits = torch.randn(5, VOCAB)
    force_tokens(logits, seats)
    first, second = SENTINELS
    assert forced(logits) == {0: first, 1: first, 2: first, 3: second, 4: second}


@pytest.mark.parametrize("rule", RULES)
def test_logits_that_are_no_numbers_are_too_close_to_call(rule):
    main = metadata("a", PairRole.MAIN, rule=rule)
    for broken in (0, 1):
        logits = torch.randn(3, VOCAB)
        logits[broken, 3] = float("nan")
        force_tokens(logits, [Seat(0, main, 0), Seat(1, main.partner(), 0)])
        assert [forced(logits)[row] for row in (0, 1)] == [SENTINELS.second, SENTINELS.first]
    logits = torch.full((1, VOCAB), float("nan"))
    force_tokens(logits, [Seat(0, metadata("", PairRole.SINGLE, rule=rule), 0)])
    assert forced(logits) == {0: SENTINELS.second}


def test_ends_are_ruled_out_until_the_least_length_and_banned_tokens_at_the_start_alone():
    logits = torch.zeros(1, VOCAB)
    logits[0, :4] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    single = metadata(
        "", PairRole.SINGLE, rule=GREEDY._replace(min_new_tokens=3), start=1, ends=(0,), banned=(1, 2)
    )
    found = {}
    for position in range(1, 5):
        step = logits.clone()
        force_tokens(step, [Seat(0, single, position)])
        found[position] = forced(step)[0]
    assert found == {1: 3, 2: 1, 3: 0, 4: 0}
