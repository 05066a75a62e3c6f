"""Sentences that differ in case, quotes and punctuation only are equal, and no others."""

import pytest

from multicsr.stages.generate.comparison import comparable, is_beginning, is_near_copy


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A dog runs.", '"a dog runs"'),
        ("It’s here!", "it's here"),
        ("¿Dónde está?", "dónde está"),
        ("Well, (really), yes.", "well really yes"),
        ("狗在跑。", "「狗在跑」"),
        ("هل هو هنا؟", "هل هو هنا"),
        ("Straße", "STRASSE"),
        ("ＡＢＣ", "abc"),
        ("", " "),
    ],
)
def test_equal(one, other):
    assert comparable(one).strip() == comparable(other).strip()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("He came.", "He never came."),
        ("-5 degrees", "5 degrees"),
        ("3.14", "314"),
        ("!ready", "ready"),
        ("C++", "C"),
        ("a < b", "a > b"),
        ("😀", "😢"),
        ("?!", "!?"),
        ("。", "？"),
        ("don't", "dont"),
        ("$5", "€5"),
    ],
)
def test_different(one, other):
    assert comparable(one) != comparable(other)
    assert comparable(one)


PREMISE = "A man from the team is trying to dodge a well-known player."


@pytest.mark.parametrize(
    "text",
    [
        PREMISE,
        "A man from the team tried to dodge a well known player.",
        "The man from a team was trying to dodge the wellknown player",
        "A man from the team is indeed trying to dodge a well-known player!",
    ],
)
def test_near_copies(text):
    assert is_near_copy(text, PREMISE)


@pytest.mark.parametrize(
    "text",
    [
        "A man from the team is not trying to dodge a well-known player.",
        "A man from no team is trying to dodge a well-known player.",
        "A woman from the team is trying to dodge a well-known player.",
        "Two men from the team are trying to dodge a well-known player.",
        "A man from the team is trying to dodge well-known players.",
        "A well-known player is trying to dodge a man from the team.",
        "A man from the team will try to dodge a well-known player.",
        "A man from the team is trying to dodge a player.",
        "A man from the team is trying to dodge a well-known -player.",
        "the is",
    ],
)
def test_sentences_with_another_meaning_are_no_near_copies(text):
    assert not is_near_copy(text, PREMISE)
    assert not is_near_copy("the is", "a was")


@pytest.mark.parametrize(
    ("text", "premise", "expected"),
    [
        ("Three kids were in a forest.", "Three kids in a forest standing on a log.", True),
        ("The song is in E minor.", "The song is in E minor, and it lacks accidentals.", True),
        ("All trains were late.", "All trains were late except ours.", False),
        ("The shop opens.", "The shop opens only if it rains.", False),
        ("Three kids.", "Three kids in a forest.", False),  # too short to say
        ("Three kids in no forest.", "Three kids in a forest standing on a log.", False),
        ("Kids in a forest standing.", "Three kids in a forest standing on a log.", False),
        ("Three kids in a forest.", "Three kids in a forest.", False),  # a copy, which has a rule of its own
    ],
)  # fmt: skip
def test_beginnings(text, premise, expected):
    assert is_beginning(text, premise) is expected
