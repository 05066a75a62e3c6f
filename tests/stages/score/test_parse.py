"""Parsing of stated scores, against a table that is read by eye: reply, tab, score or reason."""

import random
from pathlib import Path

import pytest

from multicsr.stages.score.parse import Unparsable, parse_score

GOLDEN = [
    line.split("\t")
    for line in (Path(__file__).parent / "golden_scores.tsv").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize(("reply", "expected"), GOLDEN)
def test_a_reply_means_what_the_table_states(reply: str, expected: str) -> None:
    found = parse_score(reply)
    assert str(found) == expected


def test_every_reason_and_every_whole_score_is_in_the_table() -> None:
    expected = {expected for _, expected in GOLDEN}
    assert expected >= set(Unparsable)
    assert expected >= {f"{score}.0" for score in range(6)}


@pytest.mark.parametrize("reply", ["4\n\nExplanation: 2 of 3 words differ", "\n4.0\n"])
def test_lines_after_the_number_are_explanation(reply: str) -> None:
    assert parse_score(reply) == 4.0


@pytest.mark.parametrize("reply", ["1\n2\n3", "1.\nThe first sentence", "Score: 4\nScore: 2", "3\nScore: 4"])
def test_several_lines_that_do_not_agree_state_no_score(reply: str) -> None:
    assert isinstance(parse_score(reply), Unparsable)


DECOYS = [
    "{n}. The first sentence says so",
    "{n}) They are alike",
    "{n} sentences are compared",
    "There are {n} dogs in both",
    "Sentence {n} is longer",
    "Both mention {n} people, who wait",
    "'{n} dogs run' and '{n} dogs sleep'",
    "Only {n} of the words differ",
    "The scale goes up: {n} = the same",
    "It is not {n}",
    "The score of sentence {n} is unknown",
    "Option {n}: they differ",
]
STATED = [
    "Score: {n}",
    "The similarity is {n}",
    "**{n}**",
    "Similarity score = {n}/5",
    "I would rate it {n} out of 5",
]


def test_a_number_that_means_something_else_never_becomes_a_score() -> None:
    draw = random.Random(0)
    stated = 0
    for _ in range(4000):
        decoy = draw.randrange(6)
        score = draw.choice([n for n in (0, 1, 2, 3, 4, 5, 1.5, 2.5, 3.5) if n != decoy])
        parts = [draw.choice(DECOYS).format(n=decoy) for _ in range(draw.randrange(1, 3))]
        assert isinstance(parse_score(draw.choice(["\n", ". ", "; "]).join(parts)), Unparsable), parts
        parts.insert(draw.randrange(len(parts) + 1), draw.choice(STATED).format(n=score))
        reply = draw.choice(["\n", ".\n"]).join(parts)
        found = parse_score(reply)
        assert isinstance(found, Unparsable) or found == score, reply
        stated += found == score
    assert stated > 2000, "most of them do state a score"


def test_any_text_gives_a_score_on_the_scale_or_a_reason() -> None:
    draw = random.Random(1)
    pieces = [
        *"0123456789.,:;/-+()[]{}'\"*= \n%",
        "Score",
        " is ",
        " of ",
        "five",
        "\u2212",
        "\u00bd",
        "\ud800",
        "nan",
        "1e9",
    ]
    for _ in range(4000):
        found = parse_score("".join(draw.choices(pieces, k=draw.randrange(1, 30))))
        assert isinstance(found, Unparsable) or 0 <= found <= 5
    for long in ("'" * 50_000, "score " * 20_000, "4 " * 50_000, '"a' * 30_000, "(0=" * 30_000):
        assert isinstance(parse_score(long), Unparsable)
