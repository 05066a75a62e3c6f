"""Label probabilities from the likeliest tokens, against language models whose every text is enumerated."""

import itertools
import math
import random

import numpy as np
import pytest

from multicsr.llm.openai.answers import read
from multicsr.llm.openai.labels import read_labels
from multicsr.rows import Reason
from tests.support.chat_server import engine_at, said, serving

DIGITS = ("0", "1", "2", "3", "4", "5")
END = "<end>"


class Model:
    """A language model as a table: tokens so far -> {next token: probability}."""

    def __init__(self, table):
        self.table = table

    def after(self, tokens):
        return self.table.get(tokens, {END: 1.0})

    def logprobs(self, num_tokens):
        """(Positions of the greedy text as an endpoint reports them, whether it ended by itself)."""
        tokens, positions = (), []
        while len(positions) < num_tokens:
            spread = self.after(tokens)
            best = max(spread, key=spread.get)
            top = [{"token": t, "logprob": math.log(p)} for t, p in spread.items()]
            positions.append({"token": best, "top_logprobs": top})
            if best == END:
                return positions, True
            tokens += (best,)
        return positions, False

    def answer(self, num_tokens):
        positions, is_finished = self.logprobs(num_tokens)
        content = {"content": positions}
        return said("".join(p["token"] for p in positions), "stop" if is_finished else "length", content)

    def exact(self, labels, depth=4):
        """Probability of each label as the text before the first character that is none of it."""
        mass = dict.fromkeys(labels, 0.0)
        for tokens in itertools.chain.from_iterable(self._texts(depth, (), 1.0)):
            text = "".join(t for t in tokens[0] if t != END).strip()
            if text in mass:
                mass[text] += tokens[1]
        return np.array([mass[label] for label in labels])

    def _texts(self, depth, tokens, p):
        spread = self.after(tokens)
        yield [((*tokens, t), p * q) for t, q in spread.items() if depth == 1 or t == END]
        if depth > 1:
            for t, q in spread.items():
                if t != END:
                    yield from self._texts(depth - 1, (*tokens, t), p * q)


def parse(response):
    import json

    status, headers, tree = response
    return read(status, headers, json.dumps(tree).encode())


def ask(model, labels, num_tokens):
    return read_labels(parse(model.answer(num_tokens)), labels)


def test_labels_of_one_token_need_one_position():
    model = Model({(): {" 4": 0.5, "4": 0.2, "3": 0.1, "Four": 0.2}})
    mass, is_cut = ask(model, DIGITS, 1)
    assert not is_cut
    assert mass == pytest.approx([0, 0, 0, 0.1, 0.7, 0])


@pytest.mark.parametrize("blank", [" ", "\n", "\u2581".replace("\u2581", " ")])
def test_blank_that_is_a_token_is_read_past(blank):
    """As Qwen3's and Llama 2's tokenizers write a digit after a blank."""
    after = {"4": 0.6, "5": 0.3, "x": 0.1}
    model = Model({(): {blank: 0.9, "3": 0.1}, (blank,): after})
    assert ask(model, DIGITS, 1) == (pytest.approx([0, 0, 0, 0.1, 0, 0]), True)
    mass, is_cut = ask(model, DIGITS, 2)
    assert not is_cut
    assert mass == pytest.approx([0, 0, 0, 0.1, 0.54, 0.27])
    assert mass == pytest.approx(model.exact(DIGITS))


def test_label_that_begins_another_is_the_texts_that_do_not_go_on():
    labels = ("1", "10", "2")
    model = Model({(): {"1": 0.6, "2": 0.4}, ("1",): {"0": 0.3, END: 0.5, ".": 0.2}})
    assert ask(model, labels, 1).is_cut
    mass, is_cut = ask(model, labels, 2)
    assert not is_cut
    assert mass == pytest.approx([0.42, 0.18, 0.4])


def test_first_token_that_only_one_label_has_decides():
    labels = ("zero", "one", "two", "three")
    model = Model({(): {"t": 0.5, "o": 0.3, "ze": 0.2}, ("t",): {"hr": 0.8, "wo": 0.2}})
    assert ask(model, labels, 1).is_cut
    assert ask(model, labels, 2)[0] == pytest.approx([0.2, 0.3, 0.1, 0.4])


def test_mass_of_a_text_that_was_not_written_is_not_known():
    """The blank has 0.4, but the endpoint wrote 3: what follows the blank is told by nobody."""
    model = Model({(): {"3": 0.6, " ": 0.4}, (" ",): {"4": 1.0}})
    assert ask(model, DIGITS, 2) == (pytest.approx([0, 0, 0, 0.6, 0, 0]), False)


@pytest.mark.parametrize("token", ["4.", "4/5", "45", "<think>", "Score", "-4"])
def test_text_that_is_no_label_counts_for_none(token):
    model = Model({(): {token: 0.9, "3": 0.1}})
    assert ask(model, DIGITS, 1) == (pytest.approx([0, 0, 0, 0.1, 0, 0]), False)


@pytest.mark.parametrize("seed", range(40))
def test_random_models_agree_with_the_enumeration(seed):
    """A text of blank and digit tokens, where the blank is written or impossible: everything is known."""
    draw = random.Random(seed)
    tokens = [*DIGITS, *(f" {digit}" for digit in DIGITS), "a", "The"]

    def spread(blank):
        weights = {token: draw.random() for token in draw.sample(tokens, 9)}
        total = sum(weights.values()) + blank
        return {**{t: w / total for t, w in weights.items()}, **({" ": blank / total} if blank else {})}

    blank = draw.choice([0, 6.0])
    model = Model({(): spread(blank), (" ",): spread(0)})
    assert ask(model, DIGITS, 3)[0] == pytest.approx(model.exact(DIGITS))


def test_engine_asks_for_more_tokens_once_and_goes_on_with_them():
    model = Model({(): {" ": 1.0}, (" ",): {"4": 0.75, "5": 0.25}})
    with serving(lambda body: model.answer(body["max_tokens"])) as server:
        engine = engine_at(server.url)
        found = engine.label_probabilities(["Score:"] * 3, [f" {digit}" for digit in DIGITS])
    assert all(each.tolist() == pytest.approx([0, 0, 0, 0, 0.75, 0.25]) for each in found)
    assert [body["max_tokens"] for body in server.bodies] == [1, 2, 2, 2]


def test_result_of_a_row_does_not_depend_on_the_rows_before():
    plain = Model({(): {"4": 0.75, "5": 0.15, " ": 0.1}, ("4",): {".": 1.0}})
    spaced = Model({(): {" ": 1.0}, (" ",): {"4": 0.75, "5": 0.25}})

    def answer(body):
        is_spaced = "spaced" in body["messages"][0]["content"]
        return (spaced if is_spaced else plain).answer(body["max_tokens"])

    with serving(answer) as server:
        alone = engine_at(server.url).label_probabilities(["plain"], DIGITS)[0]
        after = engine_at(server.url).label_probabilities(["spaced", "plain"], DIGITS)[1]
    assert alone.tolist() == after.tolist()


def test_blanks_without_end_are_no_score():
    model = Model({(" ",) * i: {" ": 1.0} for i in range(9)})
    with serving(lambda body: model.answer(body["max_tokens"])) as server:
        [found] = engine_at(server.url).label_probabilities(["Score:"], DIGITS)
    assert found.reason is Reason.SCORE_UNPARSABLE
    assert len(server.bodies) == 3
