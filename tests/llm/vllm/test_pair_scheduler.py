"""Who is read when: the rules of `gangs`, each by itself, and all of them in an engine under random load."""

import random

import pytest

from multicsr.llm.vllm.pair_metadata import PairRole
from tests.llm.vllm.simulated import BLOCK, Engine, Member, blocks_of, metadata


class Load:
    """Random requests, and when they come and are aborted."""

    def __init__(self, seed, kind):
        """`short` prompts fit into a step; `long` ones do not, nor are they all but cached; or `any`."""
        self.rng = rng = random.Random(seed)
        seats = rng.choice([2, 3, 4, 5, 7, 16])
        tokens_per_step = max(seats, rng.choice([0, seats + 1, 8, 20, 64]))
        if kind == "short":
            tokens_per_step += 2 * seats + 24
        lengths = {"short": [3, 12], "long": [2 * tokens_per_step + 3]}
        self.longest = rng.choice(lengths.get(kind, [3, 12, 2 * tokens_per_step + 3]))
        self.uncached = 2 if kind == "long" else 1
        largest = 2 * -(-(self.longest + 8) // BLOCK)
        blocks = rng.choice([largest, largest + 3, 100 * largest])
        growing = rng.random() < 0.5
        self.engine = Engine(
            seats,
            tokens_per_step,
            blocks,
            is_async=rng.random() < 0.5,
            grows=lambda member: rng.choice([0, 0, 1, 5]) if growing and kind != "long" else 0,
        )
        self.members, self.arrivals, self.aborts = [], [], []
        self.pairs = {}
        for i in range(rng.randrange(1, 25)):
            self._invent(str(i), rng.choice(["pair", "pair", "pair", "single", "foreign"]))
        self.broken = set()
        if rng.random() < 0.6:
            self._break_some()

    def _invent(self, name, kind):
        rng = self.rng
        alone = kind != "foreign" and rng.random() < 0.2
        limit = 1 if alone and rng.random() < 0.7 else rng.randrange(1, 9)
        wanted = rng.randrange(1, limit + 1)
        roles = {"pair": [PairRole.MAIN, PairRole.NOISY], "single": [PairRole.SINGLE], "foreign": [None]}[
            kind
        ]
        start = rng.randrange(40)
        rng.shuffle(roles)
        gang = []
        for role in roles:
            prompt = rng.randrange(self.uncached, self.longest + 1)
            hits = rng.choice([0, 0, rng.randrange(prompt - self.uncached + 1)])
            card = metadata(name, role, alone=alone) if role else None
            gang.append(Member(f"{name}-{role or kind}", prompt, wanted, limit, card, hits))
            self.arrivals.append((start + rng.choice([0, 0, rng.randrange(15)]), gang[-1]))
        self.members += gang
        if kind == "pair":
            self.pairs[name] = gang

    def _break_some(self):
        rng = self.rng
        for arrival in list(self.arrivals):
            when, member = arrival
            if arrival not in self.arrivals or rng.random() < 0.75:
                continue
            self.aborts.append((when + rng.choice([0, 1, 2, rng.randrange(30)]), member))
            self.broken.add(member.pair)
            if rng.random() < 0.2:  # it gave up because its partner never came
                self.arrivals = [
                    arrival
                    for arrival in self.arrivals
                    if arrival[1] is member or arrival[1].pair is None or arrival[1].pair != member.pair
                ]
        coming = [member for _, member in self.arrivals]
        self.aborts = [abort for abort in self.aborts if abort[1] in coming]

    def play(self):
        """Step by step until everybody is gone, with `check` after each."""
        came = sorted(self.arrivals, key=lambda arrival: arrival[0])
        tokens = sum(member.prompt + member.limit for member in self.members)
        bound = 100 + 2 * tokens + 4 * len(self.members)
        while came or self.aborts or not self.engine.is_idle:
            now = self.engine.steps
            assert now < bound, "somebody waits without end"
            while came and came[0][0] <= now:
                self.engine.add(came.pop(0)[1])
            for abort in [abort for abort in self.aborts if abort[0] <= now]:
                self.aborts.remove(abort)
                if abort[1].state not in ("done", "aborted"):
                    self.engine.abort(abort[1])
            self.engine.step()
            self.check()
        for _, member in self.arrivals:
            is_whole = member.pair is None or member.pair not in self.broken
            assert member.state in (("done", "aborted") if member.pair is None or not is_whole else ("done",))

    def check(self):
        engine = self.engine
        assert sum(engine.computed.values()) <= engine.tokens_per_step
        assert len(engine.running) <= engine.seats
        assert sum(blocks_of(member) for member in engine.running) <= engine.blocks
        assert sum(-(-member.num_tokens // BLOCK) for member in engine.running) <= engine.blocks
        for name, (one, other) in self.pairs.items():
            if name not in self.broken:
                assert one.sampled == other.sampled
        alone = [member for member in engine.computed if member.is_alone]
        if alone:
            assert len({member.pair or member.request_id for member in engine.computed}) == 1


@pytest.mark.parametrize("block", range(10))
@pytest.mark.parametrize("kind", ["short", "long", "any"])
def test_pairs_stay_in_step_within_all_limits_and_everybody_ends(block, kind):
    for seed in range(block * 60, block * 60 + 60):
        Load(seed, kind).play()


class Short:
    """Requests of one pair, and of others, by a few words."""

    def __init__(self, seats=8, tokens_per_step=100, blocks=1000):
        self.engine = Engine(seats, tokens_per_step, blocks)

    def pair(self, name, main, noisy, wanted=2, *, alone=False, hits=(0, 0)):
        roles = zip((PairRole.MAIN, PairRole.NOISY), (main, noisy), hits, strict=True)
        return [
            Member(f"{name}-{role}", prompt, wanted, wanted, metadata(name, role, alone=alone), cached)
            for role, prompt, cached in roles
        ]

    def other(self, name, prompt, wanted=2):
        return Member(name, prompt, wanted, wanted)

    def add(self, *members):
        for member in members:
            self.engine.add(member)

    def step(self):
        """{name: tokens computed in the next step}."""
        self.engine.step()
        return {member.request_id: count for member, count in self.engine.computed.items()}


def test_a_member_queues_when_its_partner_has_come():
    short = Short()
    main, noisy = short.pair("a", 3, 4)
    short.add(noisy, short.other("b", 5))
    assert short.engine.gangs.incomplete() == ["a-noisy"]
    assert short.step() == {"b": 5}
    short.add(main)
    assert short.engine.gangs.incomplete() == []
    assert short.step() == {"b": 1, "a-noisy": 4, "a-main": 3}


def test_a_member_whose_partner_was_gone_before_it_came_queues_by_itself():
    short = Short()
    main, noisy = short.pair("a", 3, 4)
    short.add(main)
    short.engine.abort(main)
    short.add(noisy)
    assert short.step() == {"a-noisy": 4}
    assert short.step() == {"a-noisy": 1}
    assert short.engine.is_idle
    short.add(short.pair("a", 5, 6)[0])
    assert short.engine.gangs.incomplete() == ["a-main"]


def test_a_pair_is_seated_whole_or_not_at_all():
    short = Short(seats=3)
    short.add(short.other("x", 1, wanted=1), short.other("y", 1, wanted=3), *short.pair("a", 2, 2))
    assert short.step() == {"x": 1, "y": 1}
    assert short.step() == {"y": 1, "a-main": 2, "a-noisy": 2}


def test_nobody_overtakes_a_pair_that_waits_for_seats():
    short = Short(seats=3)
    short.add(short.other("x", 1), short.other("y", 1), *short.pair("a", 2, 2), short.other("z", 1))
    assert short.step() == {"x": 1, "y": 1}
    assert short.step() == {"x": 1, "y": 1}
    assert short.step() == {"a-main": 2, "a-noisy": 2, "z": 1}


def test_a_pair_waits_for_all_the_blocks_it_may_ever_need():
    needed = sum(map(blocks_of, Short().pair("a", 6, 6, wanted=8)))
    for blocks, expected in ((needed + 1, {"a-main": 6, "a-noisy": 6, "x": 1}), (needed, {"x": 1})):
        short = Short(blocks=blocks)
        short.add(short.other("x", 1, wanted=3))
        assert short.step() == {"x": 1}
        short.add(*short.pair("a", 6, 6, wanted=8))
        assert short.step() == expected


def test_a_pair_that_fits_into_a_later_step_is_not_read_in_pieces():
    short = Short(tokens_per_step=20)
    short.add(short.other("x", 11), *short.pair("a", 5, 6))
    assert short.step() == {"x": 11}
    assert short.step() == {"x": 1, "a-main": 5, "a-noisy": 6}


def test_a_long_pair_is_read_in_pieces_and_both_last_tokens_in_one_step():
    short = Short(tokens_per_step=10)
    short.add(*short.pair("a", 12, 25), short.other("x", 3))
    assert short.step() == {"a-main": 10}
    assert short.step() == {"a-main": 1, "a-noisy": 9}
    assert short.step() == {"a-noisy": 10}
    assert short.step() == {"a-main": 1, "a-noisy": 6, "x": 3}
    assert short.step() == {"a-main": 1, "a-noisy": 1, "x": 1}


def test_a_long_pair_is_read_beside_those_that_decode():
    short = Short(tokens_per_step=10)
    short.add(*short.pair("a", 2, 3, wanted=9))
    short.step()
    short.add(*short.pair("b", 12, 2), *short.pair("c", 1, 1))
    assert short.step() == {"a-main": 1, "a-noisy": 1, "b-main": 8}
    assert short.step() == {"a-main": 1, "a-noisy": 1, "b-main": 4, "b-noisy": 2, "c-main": 1, "c-noisy": 1}


def test_cached_prefixes_need_no_free_tokens():
    short = Short(tokens_per_step=10)
    short.add(*short.pair("a", 12, 15, hits=(8, 12)))
    assert short.step() == {"a-main": 3}
    assert short.step() == {"a-main": 1, "a-noisy": 3}


def test_the_rest_of_a_long_pair_goes_on_when_one_member_is_aborted():
    short = Short(tokens_per_step=10)
    main, noisy = short.pair("a", 12, 15)
    short.add(main, noisy)
    assert short.step() == {"a-main": 10}
    short.engine.abort(main)
    assert [short.step() for _ in range(3)] == [{"a-noisy": 10}, {"a-noisy": 5}, {"a-noisy": 1}]


def test_a_pair_that_asks_to_be_alone_is_first_and_the_others_wait_in_their_seats():
    short = Short()
    short.add(*short.pair("a", 2, 3, wanted=3), short.other("x", 4))
    short.step()
    short.add(short.other("y", 5), *short.pair("b", 6, 7, wanted=1, alone=True))
    assert short.step() == {"b-main": 6, "b-noisy": 7}
    assert short.step() == {"a-main": 1, "a-noisy": 1, "x": 1, "y": 5}


def test_one_after_the_other_is_alone():
    short = Short()
    for name in "abc":
        short.add(*short.pair(name, 2, 3, wanted=1, alone=True))
    steps = [short.step() for _ in range(3)]
    assert sorted(steps, key=str) == [{f"{name}-main": 2, f"{name}-noisy": 3} for name in "abc"]


def test_nobody_is_admitted_before_one_that_waits_to_be_alone():
    short = Short(seats=3)
    short.add(short.other("x", 1), short.other("y", 1))
    short.step()
    short.add(short.other("z", 1), *short.pair("a", 2, 3, wanted=1, alone=True))
    assert short.step() == {"x": 1, "y": 1}
    assert short.step() == {"a-main": 2, "a-noisy": 3}
    assert short.step() == {"z": 1}


def test_a_long_pair_that_asks_to_be_alone_is_read_in_pieces():
    short = Short(tokens_per_step=10)
    short.add(short.other("x", 1, wanted=3))
    short.step()
    short.add(*short.pair("a", 12, 15, wanted=1, alone=True))
    steps = [short.step() for _ in range(5)]
    assert sum(step.get("a-main", 0) for step in steps) == 12
    assert sum(step.get("a-noisy", 0) for step in steps) == 15
    assert [step for step in steps if "x" in step] == [{"x": 1}]


def test_a_head_with_one_unread_token_does_not_block_its_long_partner():
    short = Short(tokens_per_step=8)
    short.add(*short.pair("a", 4, 8, hits=(3, 0)))
    steps = [short.step() for _ in range(4)]
    assert {"a-main": 1, "a-noisy": 1} in steps
