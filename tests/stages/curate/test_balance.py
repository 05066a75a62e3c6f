"""Balance of words against a slow version, and what it does to words that tell the side."""

import csv
import gzip
import random
import re
from collections import Counter
from math import sqrt

import pyarrow as pa
import pytest

from multicsr.rows import Reason, row_id
from multicsr.stages.curate import balance as module
from multicsr.stages.curate.balance import balance_words, count_words
from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.rule import decide
from multicsr.stages.report.lexical_bias import lexical_bias
from tests.stages.curate.test_rule import make_rows

NOUNS = [f"noun{index}" for index in range(60)]


def table_of(triplets) -> pa.Table:
    ids = [row_id(f"sentence {index}", "en") for index in range(len(triplets))]
    return pa.table(
        [ids, *map(list, zip(*triplets, strict=True))], names=["row_id", "entailment", "contradiction"]
    )


def corpus(number, negated, seed=3):
    """Triplets of drawn nouns; a share of the contradictions, and a tenth as many entailments, has `not`."""
    draw = random.Random(seed)

    def hypothesis(share):
        words = draw.choices(NOUNS, k=5)
        return " ".join([*words, "not"] if draw.random() < share else words)

    return [(hypothesis(negated / 10), hypothesis(negated)) for _ in range(number)]


def words(text):
    return set(re.findall(r"\w+", text.lower()))


def one_sided(triplets):
    counts = Counter()
    for entailment, contradiction in triplets:
        counts.update((0, word) for word in words(entailment) - words(contradiction))
        counts.update((1, word) for word in words(contradiction) - words(entailment))
    return counts


def slow_words(triplets, ratio, draws):
    """For each triplet the word that rejects it, or None: word by word from the definition."""
    counts = one_sided(triplets)
    shares = {}
    for side, word in counts:
        larger, smaller = counts[side, word], counts[1 - side, word]
        is_telling = larger > ratio * smaller and (larger - smaller) / sqrt(larger + smaller) > 3.290527
        if is_telling and ratio * (smaller + 1) / (larger + 1) < 1:
            shares[side, word] = ratio * (smaller + 1) / (larger + 1)
    found = []
    for (entailment, contradiction), drawn in zip(triplets, draws, strict=True):
        telling = [(shares[0, w], w) for w in words(entailment) - words(contradiction) if (0, w) in shares]
        telling += [(shares[1, w], w) for w in words(contradiction) - words(entailment) if (1, w) in shares]
        share, word = min(telling, default=(1, None))
        found.append(word if drawn >= share else None)
    return found


def balanced(triplets, ratio):
    table = table_of(triplets)
    return balance_words([count_words(table)], ratio).telling_words(table)


@pytest.mark.parametrize("ratio", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("negated", [0.0, 0.3, 1.0])
def test_the_words_are_those_of_the_definition(ratio, negated):
    triplets = corpus(600, negated)
    triplets += [(f"{e} always", c) for e, c in corpus(60, negated, seed=4)]
    draws = [module._draw(id_) for id_ in table_of(triplets)["row_id"].to_pylist()]
    expected = slow_words(triplets, ratio, draws)
    assert balanced(triplets, ratio) == expected
    assert set(expected) == ({None, "always", "not"} if negated else {None, "always"})


def test_the_ratio_is_kept():
    triplets = corpus(3000, 0.8)
    assert one_sided(triplets)[1, "not"] > 8 * one_sided(triplets)[0, "not"]
    kept = [triplet for triplet, word in zip(triplets, balanced(triplets, 2.0), strict=True) if word is None]
    counts = one_sided(kept)
    assert 1.6 < counts[1, "not"] / counts[0, "not"] < 2.4
    assert counts[0, "not"] == one_sided(triplets)[0, "not"], "of the rarer side nothing is lost"


def test_a_word_of_every_contradiction_and_no_entailment_leaves_nearly_nothing():
    triplets = [(e.replace(" not", ""), f"{c} not") for e, c in corpus(500, 0.0)]
    rejected = balanced(triplets, 1.5)
    assert Counter(rejected)["not"] > 495


def test_words_of_both_sides_alike_reject_nothing():
    assert set(balanced(corpus(2000, 0.0), 1.0)) == {None}
    both = [(f"{e} not", f"{c} not") for e, c in corpus(500, 0.0)]
    assert set(balanced(both, 1.0)) == {None}


def test_the_result_depends_neither_on_files_nor_on_order():
    triplets = corpus(900, 0.5)
    table = table_of(triplets)
    whole = balance_words([count_words(table)], 1.5)
    parts = [table.slice(start, 70) for start in range(0, len(table), 70)]
    assert balance_words(map(count_words, reversed(parts)), 1.5) == whole
    found = [word for part in parts for word in whole.telling_words(part)]
    assert found == whole.telling_words(table)


def test_words_that_share_a_place_are_balanced_together(monkeypatch):
    monkeypatch.setattr(module, "_PLACES", 1)
    assert set(balanced(corpus(500, 0.9), 1.0)) == {None}, "both sides have a word in that place"


def test_rows_that_the_thresholds_reject_are_not_counted():
    good = [(4.0, 1.0)] * 100
    rows = make_rows(good + [(1.0, 4.0)] * 100).to_pylist()
    for index, row in enumerate(rows):
        row["entailment"] = "It is not so." if index >= 100 or index % 5 == 0 else "It is so."
        row["contradiction"] = "It is so." if index >= 100 or index % 5 == 0 else "It is not so."
    table = pa.Table.from_pylist(rows, schema=make_rows([]).schema)
    curation = Curation(max_word_ratio=1.0)
    passing = table.slice(0, 100)
    balance = balance_words([count_words(passing)], 1.0)
    output = decide(table, curation, balance)
    reasons = Counter(zip(*(output.rejects[name].to_pylist() for name in ("reason", "detail")), strict=True))
    assert reasons[Reason.LOW_ENTAILMENT, None] == 100
    assert set(reasons) == {(Reason.LOW_ENTAILMENT, None), (Reason.LEXICAL_BIAS, "not")}
    kept = output.rows["contradiction"].to_pylist()
    assert kept.count("It is so.") == 20
    assert 8 <= kept.count("It is not so.") <= 35


@pytest.mark.shared
def test_human_triplets_lose_a_quarter_and_most_of_their_bias(shared_data):
    """Of 22,852 triplets 73% stay at ratio 2, and the AUC of words alone falls from 0.71 to 0.62."""
    with gzip.open(
        shared_data / "triplets" / "human_nli_triplets_en.tsv.gz", "rt", encoding="utf-8"
    ) as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        triplets = [(row["positive"], row["negative"]) for row in rows]
    table = table_of(triplets)
    words_N = balance_words([count_words(table)], 2.0).telling_words(table)
    kept = table.filter([word is None for word in words_N])
    before, after = (
        lexical_bias(*(each[name].to_pylist() for name in each.column_names)) for each in (table, kept)
    )
    assert before is not None
    assert after is not None
    assert before.auc > 0.70
    assert after.auc < 0.63
    assert 0.70 < kept.num_rows / table.num_rows < 0.77
