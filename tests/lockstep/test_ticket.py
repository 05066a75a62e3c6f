"""What a request carries: there and back through what vLLM sends between its processes."""

import json

import pytest

from multicsr.generate.hypothesis import Rule
from multicsr.lockstep.ticket import Role, Signals, Ticket

RULE = Rule(48, temperature=0.7, top_p=0.9, seed=3, tie_gap=2e-5, min_new_tokens=4)
TICKET = Ticket(
    "17",
    Role.MAIN,
    0.3,
    RULE,
    Signals(901, 902),
    row_id="ab12",
    direction="entailment",
    start=5,
    ends=(1, 21),
    banned=(7,),
    alone=True,
)


def sent(extra_args):
    """As another process gets it: tuples are lists, enums are strings."""
    return json.loads(json.dumps(extra_args))


@pytest.mark.parametrize(
    "ticket", [TICKET, TICKET.partner(), Ticket("", Role.SINGLE, 0.0, RULE, Signals(0, 1))]
)
def test_a_ticket_arrives_as_it_left(ticket):
    arrived = Ticket.unpack(sent(ticket.pack()))
    assert arrived == ticket
    assert arrived.role is ticket.role
    assert hash(arrived.rule) == hash(ticket.rule)
    assert arrived.signals.first == ticket.signals.first


def test_bad_words_do_not_travel_on_a_ticket():
    rule = RULE._replace(bad_words=((1, 2), (3,)))
    arrived = Ticket.unpack(sent(Ticket("1", Role.MAIN, 0.3, rule, Signals(0, 1)).pack()))
    assert arrived.rule == RULE


@pytest.mark.parametrize("extra_args", [None, {}, {"other": 1}, {"multicsr": "x"}])
def test_requests_of_others_have_none(extra_args):
    assert Ticket.unpack(extra_args) is None


def test_partners_differ_in_their_role_alone():
    assert TICKET.partner() != TICKET
    assert TICKET.partner().role is Role.NOISY
    assert {**TICKET.partner().pack()["multicsr"], "role": Role.MAIN} == TICKET.pack()["multicsr"]


def test_members_that_get_a_signal_differ_and_one_that_is_alone_differs_from_a_tie():
    signals = TICKET.signals
    assert signals.lone(Role.MAIN) != signals.lone(Role.NOISY)
    assert signals.close(Role.MAIN) != signals.close(Role.NOISY)
    assert all(signals.lone(role) != signals.close(role) for role in Role)
