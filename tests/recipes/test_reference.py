"""Recipe `reference` against the authors' public code, written anew from its description, on 500 rows."""

import random

import pytest

from multicsr.recipes import load_recipe
from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.rule import decide
from multicsr.stages.score.parse import Unparsable, parse_reference_score
from tests.stages.curate.test_rule import make_rows

FILTER_TYPES = {
    2: (4, 3),
    3: (4, 2),
    4: (5, 3),
    5: (5, 2),
    6: (4, 1),
    7: (4, 0),
    8: (5, 1),
    9: (5, 0),
    10: (3, 0),
    11: (3, 1),
    12: (3, 2),
    13: (4, 4),
    14: (5, 4),
    15: (3, 3),
    16: (2, 0),
    17: (2, 1),
    18: (2, 2),
}
"""Thresholds of the code's filter types; 1 takes them from the command line."""
WITH_GAP = {13, 15, 18}
"""Filter types in which the two scores must differ."""


def code_reads(reply: str) -> float | None:
    """Return the score that the public code reads from a reply, which may be above 5."""
    is_digit = len(reply) == 1 and reply in "012345"
    is_decimal = len(reply) == 3 and "." in reply and reply[0] in "012345" and reply[-1] in "0123456789"
    return float(reply) if is_digit or is_decimal else None


def code_keeps(a: float, b: float, filter_type: int) -> str | None:
    """Return which of the two hypotheses is the positive of a row that the code trains on, or None."""
    if min(a, b) > 4.0:
        return None
    positive, high, low = ("contradiction", b, a) if b > a else ("entailment", a, b)
    least, most = FILTER_TYPES[filter_type]
    kept = low <= most and high >= least and (filter_type not in WITH_GAP or low != high)
    return positive if kept else None


def replies(number: int) -> list[str]:
    draw = random.Random(20)
    forms = ["{}", "{}.{}", "{}.{}0", " {}", "{}.", "{}/5", "{},{}", "Score: {}", "", "{}.{} ", ".{}", "six"]
    return [draw.choice(forms).format(draw.randrange(7), draw.randrange(10)) for _ in range(number)]


def test_replies_are_read_as_the_code_reads_them():
    """But for values above 5, which the code takes for scores."""
    seen = replies(500)
    for reply in seen:
        found, expected = parse_reference_score(reply), code_reads(reply)
        if expected is not None and expected > 5:
            assert found == Unparsable.OUT_OF_RANGE, reply
        else:
            assert (None if isinstance(found, Unparsable) else found) == expected, reply
    assert sum(code_reads(reply) is not None for reply in seen) > 50


@pytest.mark.parametrize("filter_type", FILTER_TYPES)
def test_rows_are_those_of_the_filter_type(filter_type):
    alpha, beta = FILTER_TYPES[filter_type]
    rule = load_recipe("reference").config().curate.model_copy(update={"alpha": alpha, "beta": beta})
    draw = random.Random(filter_type)
    scores = [(draw.randrange(51) / 10, draw.randrange(51) / 10) for _ in range(450)]
    scores += [(number / 10, number / 10) for number in range(50)]  # ties
    curation = Curation(**rule.model_dump(exclude={"score", "gamma"}), score="llm_stated")
    kept = decide(make_rows(scores, "stated"), curation).rows
    ours = {
        row["row_id"]: "entailment" if row["entailment"].startswith("e") else "contradiction"
        for row in kept.to_pylist()
    }
    row_ids = make_rows(scores, "stated")["row_id"].to_pylist()
    theirs = {
        row_id: side
        for row_id, (a, b) in zip(row_ids, scores, strict=True)
        if (side := code_keeps(a, b, filter_type))
    }
    assert ours == theirs


def test_default_is_filter_type_15():
    rule = load_recipe("reference").config().curate
    assert (rule.rule, rule.alpha, rule.beta) == ("reference", *FILTER_TYPES[15])
