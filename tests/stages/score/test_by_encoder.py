"""Scores by an encoder against plain cosines, alone and in company."""

import gzip
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from multicsr.models.frozen_encoder import FrozenEncoder
from multicsr.stages.score.by_encoder import EncoderScorer, cosine_scores

PAIRS = [
    ("A man plays a guitar.", "A man is playing an instrument."),
    ("A man plays a guitar.", "Nobody is making music."),
    ("A man plays a guitar.", "A man plays a guitar."),
    ("The stock market fell sharply today.", "Two dogs run over a field of grass and snow " * 3),
]


@pytest.fixture(scope="module")
def scorer():
    return EncoderScorer(FrozenEncoder("all-MiniLM-L6-v2", "score.model", "cpu"))


def values(scorer, pairs):
    return [score.value for score in scorer.score(pairs, ["id"] * len(pairs))]


def test_scores_are_five_times_the_cosine(scorer):
    from sentence_transformers import SentenceTransformer

    from multicsr.models.resolve import resolve_model

    model = SentenceTransformer(resolve_model("all-MiniLM-L6-v2", "score.model"), device="cpu")
    expected = []
    for pair in PAIRS:
        one, other = model.encode(list(pair)).astype(np.float64)
        cosine = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
        expected.append(5 * max(cosine, 0))
    assert values(scorer, PAIRS) == pytest.approx(expected, abs=2e-3)
    assert values(scorer, PAIRS)[2] == 5


def test_a_score_does_not_depend_on_other_pairs_or_threads(scorer):
    together = values(scorer, PAIRS)
    assert [values(scorer, [pair])[0] for pair in PAIRS] == together
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda pair: values(scorer, [pair])[0], PAIRS)) == together


def test_a_negative_cosine_is_zero():
    one = np.array([[1.0, 0.0], [1.0, 1.0], [3.0, 4.0]])
    other = np.array([[-1.0, 0.1], [1.0, 0.0], [6.0, 8.0]])
    assert cosine_scores(one, other).tolist() == [0.0, pytest.approx(5 / 2**0.5, abs=1e-4), 5.0]


@pytest.mark.shared
def test_spearman_on_real_pairs(scorer, shared_data):
    """all-MiniLM-L6-v2 has a published Spearman of 0.82 on the test part of STS-B; the dev part is easier."""
    from scipy.stats import spearmanr

    with gzip.open(shared_data / "sts" / "stsb_dev.tsv.gz", "rt", encoding="utf-8") as lines:
        header, *rows = [line.rstrip("\n").split("\t") for line in lines]
    rows = rows[:300]
    pairs = [(row[header.index("sentence1")], row[header.index("sentence2")]) for row in rows]
    people = [float(row[header.index("score")]) for row in rows]
    assert spearmanr(values(scorer, pairs), people).statistic > 0.8
