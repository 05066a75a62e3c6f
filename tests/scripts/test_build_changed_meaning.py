import subprocess
import sys
from pathlib import Path

import pytest

from multicsr.errors import ConfigError
from multicsr.stages.evaluate import read_task
from scripts.build_changed_meaning import (
    Pairs,
    is_reordered,
    kind_of_change,
    read_file,
    with_exchanged_roles,
    with_other_number,
)
from tests.support.kind_files import write_tsv
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("anchor", "changed", "kind"),
    [
        ("The dog bites the man.", "The man bites the dog.", "role"),
        ("It opened in 1912.", "It opened in 1921.", "number"),
        ("Two dogs sleep.", "One dog sleep.", "number"),
        ("A man is singing.", "No man is singing.", "negation"),
        ("He has served on the board.", "He has never served on the board.", "negation"),
        ("The ridge is large.", "The ridge is small.", "word"),
        ("It lies in the north of the town.", "It lies outside town.", "other"),
        ("She left.", "She left!", "other"),
    ],
)
def test_kind_of_a_change_is_told_from_the_words(anchor, changed, kind):
    assert kind_of_change(anchor, changed) == kind


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("It opened in 1912.", "It opened in 1913."),
        ("Two dogs and 3 cats.", "Three dogs and 3 cats."),
        ("One dog, 1 cat and five birds", "One dog, 1 cat and six birds"),
        ("It rose 2.5 per cent to 1,000.", None),
        ("A dog sleeps.", None),
    ],
)
def test_other_number_takes_the_place_of_the_first_one_that_a_plural_follows(text, other):
    assert with_other_number(text) == other


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("A dog is chasing the cat.", "A cat is chasing the dog."),
        ("The man is playing a guitar", "The guitar is playing a man"),
        ("A man is eating an apple.", None),
        ("A man is slicing a large onion.", None),
        ("A dog is chasing a dog.", None),
    ],
)
def test_roles_are_exchanged_in_sentences_of_who_does_what(text, other):
    assert with_exchanged_roles(text) == other


def test_sentences_that_differ_in_case_or_full_stop_are_not_reordered():
    assert not is_reordered("A cat sat.", "a cat sat")
    assert is_reordered("A cat sat.", "sat a cat")
    assert not is_reordered("a a b", "a b b")


def test_candidates_of_semantoneg_are_told_apart_by_their_index_not_their_place(tmp_path):
    columns = ["idx", "paraphrase_index", "input", "candidate0", "candidate1", "candidate2"]
    path = write_tsv(tmp_path / "s.tsv", columns, [[0, 1, "You are not fat.", "not thin", "thin", "fat"]])
    pairs = Pairs()
    read_file(path, pairs)
    assert list(pairs.joined()) == [
        ("You are not fat.", "thin", "not thin", "antonym"),
        ("You are not fat.", "thin", "fat", "antonym"),
    ]


def test_changed_pairs_get_a_paraphrase_of_their_anchor_and_other_paraphrases_stand_alone(tmp_path):
    pairs = Pairs()
    nli = [["a b c d", "a b c no d", "contradiction"], ["a b c d", "x y", "contradiction"],
           ["a b c d", "a b c", "entailment"]]  # fmt: skip
    sts = [
        ["4.8", "a b c e", "a b c d"],
        ["4.7", "k l m", "k l m n"],
        ["2", "k l m", "k l o"],
        ["5", "k", "z"],
    ]
    read_file(write_tsv(tmp_path / "n.tsv", ["premise", "hypothesis", "label"], nli), pairs)
    read_file(write_tsv(tmp_path / "s.tsv", ["score", "sentence1", "sentence2"], sts), pairs)
    assert list(pairs.joined()) == [
        ("a b c d", "a b c e", "a b c no d", "negation"),
        ("k l m", "k l m n", "", ""),
    ]


def test_contradictions_and_exchanged_roles_of_sick_are_changed_pairs(tmp_path):
    rows = [[3.6, "A dog licks a cat", "A cat licks a dog", "neutral"], [3, "A b c", "A b d", "neutral"],
            [3.5, "A dog licks a cat", "No dog licks a cat", "contradiction"],
            [4.9, "A dog licks a cat", "The dog licks a cat", "entailment"]]  # fmt: skip
    pairs = Pairs()
    read_file(
        write_tsv(tmp_path / "x.tsv", ["score", "sentence1", "sentence2", "entailment_label"], rows), pairs
    )
    assert [(row[1], row[3]) for row in pairs.joined()] == [
        ("The dog licks a cat", "role"),
        ("The dog licks a cat", "negation"),
    ]


def test_unknown_columns_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no known columns: title, text"):
        read_file(write_tsv(tmp_path / "x.tsv", ["title", "text"], []), Pairs())


def test_script_writes_a_file_that_is_a_task(tmp_path):
    columns = ["idx", "paraphrase_index", "input", "candidate0", "candidate1"]
    source = write_tsv(
        tmp_path / "s.tsv", columns, [[0, 1, "not fat", "fat", "thin"], [1, 0, "no", "nay", "yes"]]
    )
    out = tmp_path / "changed.tsv"
    command = [sys.executable, "-m", "scripts.build_changed_meaning", "--out", str(out), str(source)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert "2 rows, 2 with both sentences; changed: antonym 2" in done.stderr
    task = read_task(out)
    assert (task.kind, Path(out).stem) == ("changed meaning", task.name)
