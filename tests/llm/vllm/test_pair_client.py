"""Hypotheses from pairs of requests, over an engine without a model that meets with every accident."""

import asyncio
import random
from types import SimpleNamespace

import pytest

from multicsr.errors import WorkerLost
from multicsr.llm.request import HypothesisRequest, SamplingParams
from multicsr.llm.stopping import StopCriteria
from multicsr.llm.vllm.launch import EngineAnswer, RowFailed
from multicsr.llm.vllm.pair_client import PairClient, first_of
from multicsr.llm.vllm.pair_metadata import PairRole, Sentinels

VOCAB = 14
EOS = 0
SENTINELS = Sentinels(VOCAB - 2, VOCAB - 1)
RULE = SamplingParams(20, temperature=0.0, top_p=1.0, seed=0, tie_gap=0.1)
NAN = float("nan")


class Letters:
    """A tokenizer to which every token is a letter."""

    eos_token_id = EOS

    def __len__(self):
        return VOCAB

    def decode(self, tokens, **_):
        return "".join(chr(ord("a") + token) for token in tokens)

    def batch_decode(self, rows):
        return [self.decode(row) for row in rows]


class Toy:
    """A model: the tokens in order of preference, and whether the first two are close, after any text."""

    def __init__(self, ties=0.15, favoured=(), nan_at=None):
        self._ties = ties
        self._favoured = list(favoured)
        self._nan_at = nan_at

    def after(self, request, text):
        """(Tokens, the likeliest first; True where it is close, None where logits are not numbers)."""
        noisy = request.noisy if request.omega > 0 else ()
        rng = random.Random(repr((request.main, noisy, request.omega, list(text))))
        tokens = rng.sample(range(VOCAB), VOCAB)
        if tokens[0] in (EOS, *SENTINELS) and rng.random() < 0.6:
            tokens = [*tokens[1:], tokens[0]]
        if self._favoured and rng.random() < 0.5:
            tokens.insert(0, rng.choice(self._favoured))
        return tokens, None if self._nan_at == len(text) else rng.random() < self._ties

    def write(self, request, rule, stop=()):
        """(What this model writes by itself, at how many positions that needs a step of its own)."""
        text, ties = [], 0
        while len(text) < rule.max_new_tokens:
            tokens, is_close = self.after(request, text)
            out = rule.ruled_out(text, [EOS])
            text.append(next(token for token in tokens if token not in out))
            ties += is_close or text[-1] in SENTINELS
            if text[-1] == EOS or any(string in Letters().decode(text) for string in stop):
                break
        return text, ties


class Accidents:
    """How often what goes wrong with a pair."""

    def __init__(self, seed=0, lone=0.0, aborted=0.0, apart=0.0, spares_alone=True):
        self._rng = random.Random(seed)
        self._lone, self._aborted, self._apart, self.spares_alone = lone, aborted, apart, spares_alone

    def befall(self, answers, sentinels_of):
        """Cut the answers of a pair or single, and end them as an engine would."""
        rng = self._rng
        longest = max(len(answer.tokens) for answer in answers.values())
        if len(answers) == 2 and rng.random() < self._lone:
            cut = rng.randrange(longest)
            return {
                role: EngineAnswer([*a.tokens[:cut], sentinels_of(role)], True) for role, a in answers.items()
            }
        if len(answers) == 2 and rng.random() < self._apart:
            return {
                role: EngineAnswer([*a.tokens[: rng.randrange(longest)], sentinels_of(role)], True)
                for role, a in answers.items()
            }
        if rng.random() < self._aborted:
            lost = rng.choice(list(answers))
            cut = rng.randrange(longest)
            kept = {
                role: EngineAnswer([*a.tokens[:cut], sentinels_of(role)], True)
                for role, a in answers.items()
                if role is not lost
            }
            return kept | {lost: EngineAnswer(answers[lost].tokens[: rng.randrange(cut + 1)], ended=False)}
        return answers


class FakeVllm:
    """Answers both members of a pair when both have come, as the pair processor would."""

    def __init__(self, toy, omega, rule, accidents=None):
        self.asked = []
        self._toy, self._omega, self._rule = toy, omega, rule
        self._accidents = accidents or Accidents()
        self._waiting = {}

    async def complete(self, prompt, asked):
        metadata = asked.metadata
        self.asked.append(asked)
        if metadata.role is PairRole.SINGLE:
            return self._answer(asked, {PairRole.SINGLE: prompt})[PairRole.SINGLE]
        known, future = self._waiting.setdefault(
            metadata.pair, ({}, asyncio.get_running_loop().create_future())
        )
        known[metadata.role] = prompt
        if len(known) == 2:
            future.set_result(self._answer(asked, known))
        return (await future)[metadata.role]

    def _answer(self, asked, prompts):
        metadata = asked.metadata
        main = prompts.get(PairRole.MAIN, prompts.get(PairRole.SINGLE))
        split = len(main) - metadata.start
        noisy = prompts.get(PairRole.NOISY, main)
        text, request = (
            list(main[split:]),
            HypothesisRequest(main[:split], noisy[: -metadata.start or None], self._omega, "", ""),
        )
        answers = {role: EngineAnswer([], False) for role in prompts}
        written = []
        while len(written) < asked.max_tokens:
            tokens, is_close = self._toy.after(request, [*text, *written])
            if is_close is None or (is_close and metadata.rule.tie_gap > 0):
                for role in answers:
                    token = metadata.sentinels.close(role)
                    logprobs = {token: NAN if is_close is None else -1.0}
                    answers[role] = EngineAnswer([*written, token], True, logprobs)
                break
            written.append(next(token for token in tokens if token not in self._out(asked, written)))
            ended = written[-1] in (*asked.stop_tokens, *metadata.sentinels) or any(
                string in Letters().decode(written) for string in asked.stop
            )
            answers = {role: EngineAnswer(list(written), ended) for role in answers}
            if ended:
                break
        if metadata.alone and self._accidents.spares_alone:
            return answers
        return self._accidents.befall(answers, metadata.sentinels.lone)

    def _out(self, asked, written):
        metadata = asked.metadata
        ends = metadata.ends if metadata.start + len(written) < metadata.rule.min_new_tokens else ()
        banned = () if written else metadata.banned
        words = self._rule.bad_words if asked.bad_words else ()
        return {*ends, *banned, *SamplingParams(1, 0, 1, 0, 0, bad_words=words).ruled_out(written, ())}


def write(toy, request, rule=RULE, accidents=None, stop=(), again=1):
    """(What the client made of it, its counts, the engine)."""
    engine = FakeVllm(toy, request.omega, rule, accidents)
    bad_words = [Letters().decode(word) for word in rule.bad_words]
    client = PairClient(engine, StopCriteria(Letters(), EOS, VOCAB, stop), SENTINELS, bad_words)

    async def all_of_them():
        return await asyncio.gather(*(client.write(request, rule) for _ in range(again)))

    [written, *others] = asyncio.run(all_of_them())
    assert all(other == written for other in others)
    assert client.counts.in_flight == 0
    return SimpleNamespace(written=written, counts=client.counts, engine=engine)


def requests(count, omega=0.3):
    rng = random.Random(count)
    for i in range(count):
        prompts = [[rng.randrange(VOCAB) for _ in range(rng.randrange(1, 6))] for _ in range(2)]
        yield HypothesisRequest(*prompts, omega, str(i), "entailment")


@pytest.mark.parametrize("omega", [0.3, 0.0])
def test_without_accidents_a_hypothesis_is_what_the_model_writes(omega):
    num_ties = num_sentinels = 0
    for request in requests(200, omega):
        found = write(toy := Toy(), request)
        expected, ties = toy.write(request, RULE)
        assert found.written.tokens == expected
        assert found.written.finished == (expected[-1] == EOS)
        assert found.written.certain
        assert (found.counts.ties, found.counts.out_of_step) == (ties, 0)
        num_ties += ties
        num_sentinels += any(token in SENTINELS for token in expected)
    assert num_ties > 100
    assert num_sentinels > 50


def test_a_text_without_ties_takes_one_submission():
    for request in requests(50):
        toy = Toy(ties=0.0, favoured=[3, 4, 5])
        found = write(toy, request)
        expected, ties = toy.write(request, RULE)
        if not ties:
            assert found.written.tokens == expected
            assert len(found.engine.asked) == 2


@pytest.mark.parametrize("accident", ["lone", "apart", "aborted", "all", "alone too"])
def test_no_accident_changes_what_is_written(accident):
    out_of_step = 0
    for seed, request in enumerate(requests(150)):
        rates = {
            "all": {"lone": 0.4, "apart": 0.4, "aborted": 0.4},
            "alone too": {"lone": 0.4, "apart": 0.3, "aborted": 0.3, "spares_alone": False},
        }.get(accident, {accident: 0.7})
        found = write(toy := Toy(), request, accidents=Accidents(seed, **rates))
        expected, ties = toy.write(request, RULE)
        assert found.written.tokens == expected
        assert found.written.certain
        assert found.counts.ties >= ties if accident == "alone too" else found.counts.ties == ties
        out_of_step += found.counts.out_of_step
    assert out_of_step > 150


def test_a_single_that_is_aborted_goes_on_where_it_was():
    for seed, request in enumerate(requests(50, omega=0.0)):
        found = write(toy := Toy(), request, accidents=Accidents(seed, aborted=0.7))
        assert found.written.tokens == toy.write(request, RULE)[0]


def test_hypotheses_that_are_written_together_do_not_meet():
    for seed, request in enumerate(requests(20)):
        found = write(toy := Toy(), request, accidents=Accidents(seed, lone=0.5), again=5)
        assert found.written.tokens == toy.write(request, RULE)[0]


def test_a_stop_string_across_two_submissions_ends_the_text():
    across = 0
    for seed, request in enumerate(requests(200)):
        toy = Toy(favoured=[3, 4])
        found = write(toy, request, accidents=Accidents(seed, lone=0.5), stop=["ded", "ee"])
        expected, _ = toy.write(request, RULE, ["ded", "ee"])
        assert found.written.tokens == expected
        text = Letters().decode(expected)
        assert found.written.finished == (text.endswith(("ded", "ee")) or expected[-1] == EOS)
        starts = {asked.metadata.start for asked in found.engine.asked}
        across += text.endswith("ded") and bool(starts & {len(text) - 1, len(text) - 2})
    assert across > 10


def test_a_bad_word_across_two_submissions_is_not_written():
    rule = RULE._replace(bad_words=((3, 4), (4, 3, 3), (5,), (4, 4, 4)))
    changed = banned = 0
    for seed, request in enumerate(requests(200)):
        toy = Toy(favoured=[3, 4])
        found = write(toy, request, rule, Accidents(seed, lone=0.4, aborted=0.3))
        expected, ties = toy.write(request, rule)
        assert found.written.tokens == expected
        assert found.counts.ties == ties
        changed += expected != toy.write(request, RULE)[0]
        banned += any(asked.metadata.banned for asked in found.engine.asked)
    assert changed > 100
    assert banned > 100


def test_a_least_length_holds_over_all_submissions():
    rule = RULE._replace(min_new_tokens=7)
    changed = 0
    for seed, request in enumerate(requests(100)):
        toy = Toy(favoured=[EOS])
        found = write(toy, request, rule, Accidents(seed, lone=0.4))
        expected, _ = toy.write(request, rule)
        assert found.written.tokens == expected
        assert len(expected) >= 8
        changed += expected != toy.write(request, RULE)[0]
    assert changed > 50


def test_what_a_request_asks_for_goes_on_from_what_is_settled():
    for seed, request in enumerate(requests(30)):
        found = write(Toy(), request, RULE._replace(min_new_tokens=5), Accidents(seed, lone=0.5))
        for asked in found.engine.asked:
            assert asked.max_tokens == (1 if asked.metadata.alone else 20 - asked.metadata.start)
            assert asked.metadata.ends == ((EOS,) if asked.metadata.start < 5 else ())
            assert asked.metadata.rule.tie_gap == (0.0 if asked.metadata.alone else RULE.tie_gap)
        pairs = [asked.metadata.pair for asked in found.engine.asked]
        assert all(pairs.count(pair) == 2 for pair in pairs)


@pytest.mark.parametrize("omega", [0.3, 0.0])
def test_logits_that_are_no_numbers_even_alone_end_a_hypothesis_without_certainty(omega):
    seen = 0
    for request in requests(30, omega):
        toy = Toy(nan_at=4)
        found = write(toy, request)
        expected, _ = Toy().write(request, RULE)
        if len(expected) > 4:
            seen += 1
            assert not found.written.certain
            assert found.written.tokens == expected[:4]
    assert seen > 5


def test_a_pair_that_no_engine_keeps_in_step_is_given_up():
    class Never(FakeVllm):
        def _answer(self, asked, prompts):
            return {role: EngineAnswer([asked.metadata.sentinels.lone(role)], True) for role in prompts}

    engine = Never(Toy(), 0.3, RULE)
    client = PairClient(engine, StopCriteria(Letters(), EOS, VOCAB, ()), SENTINELS)
    with pytest.raises(RowFailed, match="out of step 200 times"):
        asyncio.run(client.write(next(requests(1)), RULE))
    assert client.counts.in_flight == 0
    assert client.counts.out_of_step == 200


@pytest.mark.parametrize("omega", [0.3, 0.0])
def test_a_rejection_of_one_member_is_a_rejection_of_the_row(omega):
    class Refusing(FakeVllm):
        async def complete(self, prompt, asked):
            if asked.metadata.role is not PairRole.NOISY:
                raise RowFailed("too long")
            return await super().complete(prompt, asked)

    client = PairClient(Refusing(Toy(), omega, RULE), StopCriteria(Letters(), EOS, VOCAB, ()), SENTINELS)
    with pytest.raises(RowFailed, match="too long"):
        asyncio.run(client.write(next(requests(1, omega)), RULE))
    assert client.counts.in_flight == 0


def test_the_first_error_of_a_group_is_found_however_deep_it_lies():
    failed, lost = RowFailed("row"), WorkerLost("gone")
    group = ExceptionGroup("all", [failed, ExceptionGroup("some", [lost])])
    assert first_of(group, WorkerLost, RowFailed) is lost
    assert first_of(group, RowFailed) is failed
    other = ExceptionGroup("other", [KeyError("bug")])
    assert first_of(other, WorkerLost) is other
