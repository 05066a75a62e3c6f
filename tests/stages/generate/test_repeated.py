"""One hypothesis on many rows: found per file, whatever the order of its rows."""

import random

import pyarrow as pa
import pytest

from multicsr.rows import WRITTEN, Reason
from multicsr.stages.generate import repeated
from multicsr.stages.generate.comparison import comparable
from multicsr.stages.generate.repeated import LEAST_ROWS, LEAST_SHARE, reject_repeated


def rows(pairs, reasons=None):
    """(WRITTEN rows of these pairs of hypotheses, their premises)."""
    table = [
        {"row_id": f"{i:032x}", "entailment": e, "contradiction": c, "reason": (reasons or {}).get(i)}
        for i, (e, c) in enumerate(pairs)
    ]
    premises = pa.chunked_array([[f"Premise number {i}." for i in range(len(pairs))]], pa.string())
    return pa.Table.from_pylist(table, schema=WRITTEN), premises


def own(i):
    return f"Yes, number {i} it is.", f"No, number {i} it is not."


def rejected(table, premises):
    found = reject_repeated(table, premises)
    assert found.schema == table.schema
    assert found["row_id"].equals(table["row_id"])
    return [i for i, reason in enumerate(found["reason"].to_pylist()) if reason == Reason.REPEATED_HYPOTHESIS]


def plainly(pairs):
    """The same rule, slowly."""
    forms = [{comparable(text) for text in pair} for pair in pairs]
    counts = {form: sum(form in each for each in forms) for each in forms for form in each}
    least = max(LEAST_ROWS, int(LEAST_SHARE * len(pairs)) + 1)
    return [i for i, each in enumerate(forms) if any(counts[form] >= least for form in each)]


def test_a_sentence_on_many_rows_rejects_them_all_on_either_side():
    pairs = [own(i) for i in range(20)]
    for i, text in zip((3, 5, 8, 13, 17), ("Same.", '"same"', "SAME!", "same", "Same."), strict=True):
        pairs[i] = (text, pairs[i][1]) if i % 2 else (pairs[i][0], text)
    table, premises = rows(pairs)
    assert rejected(table, premises) == [3, 5, 8, 13, 17]
    found = reject_repeated(table, premises).to_pylist()
    assert (found[3]["detail"], found[8]["detail"]) == ("entailment: on 5 rows", "contradiction: on 5 rows")


@pytest.mark.parametrize(
    ("number", "of", "is_repeated"),
    [(4, 20, False), (5, 20, True), (5, 249, True), (5, 250, False), (6, 250, True)],
)
def test_few_rows_or_a_small_share_are_no_repetition(number, of, is_repeated):
    table, premises = rows([("Same.", own(i)[1]) if i < number else own(i) for i in range(of)])
    assert rejected(table, premises) == (list(range(number)) if is_repeated else [])


def test_equal_premises_count_once():
    table, _ = rows([("Same.", own(i)[1]) for i in range(10)])
    premises = pa.chunked_array(
        [["It rains.", "it rains", "IT RAINS", "Snow falls."] * 2 + ["It hails."] * 2]
    )
    assert rejected(table, premises) == []


def test_rows_that_are_rejected_keep_their_reason_and_do_not_count():
    reasons = {0: Reason.COPIED_HYPOTHESIS.value, 1: Reason.ENGINE_ERROR.value}
    pairs = [("Same.", own(i)[1]) for i in range(6)] + [own(i) for i in range(6, 9)]
    table, premises = rows(pairs, reasons)
    assert rejected(table, premises) == []
    table, premises = rows([*pairs, ("same", "Something.")], reasons)
    assert rejected(table, premises) == [2, 3, 4, 5, 9]
    assert reject_repeated(table, premises)["reason"].to_pylist()[:2] == list(reasons.values())


def test_missing_texts_and_texts_of_punctuation_are_no_common_hypothesis():
    pairs = [(None, None)] * 10 + [(sign, own(i)[1]) for i, sign in enumerate("?!.,;:")]
    assert rejected(*rows(pairs)) == []
    assert rejected(*rows([])) == []


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_plain_rule_in_any_order(seed):
    draw = random.Random(seed)
    texts = [f"Sentence {i}." for i in range(60)] + ["Often this."] * 8
    pairs = [(draw.choice(texts), draw.choice(texts).upper()) for _ in range(draw.choice([30, 200]))]
    table, premises = rows(pairs)
    expected = plainly(pairs)
    assert expected
    assert rejected(table, premises) == expected
    order = draw.sample(range(len(pairs)), len(pairs))
    shuffled = rejected(table.take(order), premises.take(pa.array(order)))
    assert sorted(order[i] for i in shuffled) == expected


@pytest.mark.parametrize("number", [1, 4, 5, 20])
def test_the_quick_answer_misses_no_repeated_form(monkeypatch, number):
    """Equal forms have equal numbers, so that what cannot be repeated by them is not."""
    monkeypatch.setattr(repeated, "_BATCH_ROWS", 3)
    draw = random.Random(number)
    same = [
        "Same caf\u00e9.",
        "SAME CAF\u00c9",
        "same cafe\u0301!",
        "\uff33ame caf\u00e9",
        "s a m e caf\u00e9",
    ]
    for of in (number, 30, 400):
        pairs = [(draw.choice(same), own(i)[1]) if i < number else own(i) for i in range(of)]
        table, premises = rows(pairs)
        found = rejected(table, premises)
        monkeypatch.setattr(repeated, "_may_be_repeated", lambda *_: True)
        assert rejected(table, premises) == found
        monkeypatch.undo()


def test_signs_and_rare_forms_need_no_exact_count():
    table, _ = rows([own(i) for i in range(300)])
    assert not repeated._may_be_repeated(table, 300)
    table, _ = rows([("Same.", own(i)[1]) if i < 7 else own(i) for i in range(300)])
    assert repeated._may_be_repeated(table, 300)
    assert not repeated._may_be_repeated(table.slice(0, 0), 0)
