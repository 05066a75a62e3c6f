"""Parsing of stated scores, against a table that is read by eye: reply, tab, score or reason."""

from pathlib import Path

import pytest

from multicsr.score.parse import Unparsable, parse_score

GOLDEN = [
    line.split("\t")
    for line in (Path(__file__).parent / "golden_scores.tsv").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize(("reply", "expected"), GOLDEN)
def test_a_reply_means_what_the_table_says(reply: str, expected: str) -> None:
    found = parse_score(reply)
    assert str(found) == expected


def test_every_reason_and_every_whole_score_is_in_the_table() -> None:
    expected = {expected for _, expected in GOLDEN}
    assert expected >= set(Unparsable)
    assert expected >= {f"{score}.0" for score in range(6)}


@pytest.mark.parametrize("reply", ["4\n\nExplanation: 2 of 3 words differ", "\n4.0\n"])
def test_lines_after_the_number_are_explanation(reply: str) -> None:
    assert parse_score(reply) == 4.0
