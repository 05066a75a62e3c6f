"""Sentences that differ in case, quotes and punctuation only are equal, and no others."""

import pytest

from multicsr.stages.generate.comparison import comparable


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
