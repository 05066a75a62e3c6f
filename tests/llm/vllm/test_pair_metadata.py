"""What a request carries: there and back through what vLLM sends between its processes."""

import json

import pytest

from multicsr.llm.request import SamplingParams
from multicsr.llm.vllm.pair_metadata import PairMetadata, PairRole, Sentinels

RULE = SamplingParams(48, temperature=0.7, top_p=0.9, seed=3, tie_gap=2e-5, min_new_tokens=4)
METADATA = PairMetadata(
    "17",
    PairRole.MAIN,
    0.3,
    RULE,
    Sentinels(901, 902),
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
    "metadata", [METADATA, METADATA.partner(), PairMetadata("", PairRole.SINGLE, 0.0, RULE, Sentinels(0, 1))]
)
def test_a_ticket_arrives_as_it_left(metadata):
    arrived = PairMetadata.unpack(sent(metadata.pack()))
    assert arrived == metadata
    assert arrived.role is metadata.role
    assert hash(arrived.rule) == hash(metadata.rule)
    assert arrived.sentinels.first == metadata.sentinels.first


def test_bad_words_do_not_travel_on_a_ticket():
    rule = RULE._replace(bad_words=((1, 2), (3,)))
    arrived = PairMetadata.unpack(sent(PairMetadata("1", PairRole.MAIN, 0.3, rule, Sentinels(0, 1)).pack()))
    assert arrived.rule == RULE


@pytest.mark.parametrize("extra_args", [None, {}, {"other": 1}, {"multicsr": "x"}])
def test_requests_of_others_have_none(extra_args):
    assert PairMetadata.unpack(extra_args) is None


def test_partners_differ_in_their_role_alone():
    assert METADATA.partner() != METADATA
    assert METADATA.partner().role is PairRole.NOISY
    assert {**METADATA.partner().pack()["multicsr"], "role": PairRole.MAIN} == METADATA.pack()["multicsr"]


def test_members_that_get_a_signal_differ_and_one_that_is_alone_differs_from_a_tie():
    sentinels = METADATA.sentinels
    assert sentinels.lone(PairRole.MAIN) != sentinels.lone(PairRole.NOISY)
    assert sentinels.close(PairRole.MAIN) != sentinels.close(PairRole.NOISY)
    assert all(sentinels.lone(role) != sentinels.close(role) for role in PairRole)
