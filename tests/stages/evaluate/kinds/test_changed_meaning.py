import numpy as np
import pytest

from multicsr.errors import ConfigError
from multicsr.stages.evaluate.kinds import changed_meaning
from multicsr.stages.evaluate.kinds.changed_meaning import (
    COLUMNS,
    ChangedMeaningTask,
    auc_in_strata,
    word_overlap,
)
from tests.support.kind_files import find, write_tsv
from tests.support.tiny_encoders import WORDS
from tests.support.trigram_encoder import trigrams


@pytest.fixture
def task() -> ChangedMeaningTask:
    """90 anchors; both sentences differ from them in one to three words; a third of the rows lacks one."""
    draw = np.random.default_rng(2)

    def varied(words: list[str]) -> str:
        words = words.copy()
        for _ in range(draw.integers(1, 4)):
            words[draw.integers(len(words))] = str(draw.choice(WORDS))
        return " ".join(words)

    anchors = [list(map(str, draw.choice(WORDS, size=7))) for _ in range(90)]
    paraphrases = ["" if i % 6 == 1 else varied(words) for i, words in enumerate(anchors)]
    changed = ["" if i % 6 == 2 else varied(words) for i, words in enumerate(anchors)]
    kinds = [("negation" if i % 2 else "number") if text else "" for i, text in enumerate(changed)]
    return ChangedMeaningTask("changed", [" ".join(words) for words in anchors], paraphrases, changed, kinds)


def plain_cosine(first: str, second: str) -> float:
    u, v = (trigrams([text])[0].astype(float) for text in (first, second))
    return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))


def plain_auc(same, changed) -> float:
    """Share of couples of a paraphrase pair and a changed pair of the same tenth of overlap, in a loop."""
    wins = []
    for p in same:
        for c in changed:
            if int(10 * word_overlap(*p) + 1e-9) == int(10 * word_overlap(*c) + 1e-9):
                wins.append(
                    (plain_cosine(*p) > plain_cosine(*c)) + (plain_cosine(*p) == plain_cosine(*c)) / 2
                )
    return sum(wins) / len(wins)


def test_share_is_over_rows_with_both_sentences_and_by_kind(task):
    share = task.measure(trigrams)[0].score
    closer = {
        i: plain_cosine(a, p) > plain_cosine(a, c)
        for i, (a, p, c) in enumerate(zip(task.anchors, task.paraphrases, task.changed, strict=True))
        if p and c
    }
    assert (share.num_rows, share.value) == (len(closer), pytest.approx(100 * np.mean([*closer.values()])))
    assert share.num_rows == 60
    for kind in ("negation", "number"):
        of_kind = [value for i, value in closer.items() if task.change_kinds[i] == kind]
        assert share.subsets[kind] == pytest.approx(100 * np.mean(of_kind))


def test_auc_compares_pairs_of_the_same_word_overlap_only(task):
    auc = task.measure(trigrams)[1].score
    same = [(a, p) for a, p in zip(task.anchors, task.paraphrases, strict=True) if p]
    changed = [(a, c, k) for a, c, k in zip(task.anchors, task.changed, task.change_kinds, strict=True) if c]
    assert auc.value == pytest.approx(100 * plain_auc(same, [pair[:2] for pair in changed]))
    for kind in ("negation", "number"):
        of_kind = [pair[:2] for pair in changed if pair[2] == kind]
        assert auc.subsets[kind] == pytest.approx(100 * plain_auc(same, of_kind))


def test_auc_is_left_out_where_word_overlap_alone_separates_the_pairs(task):
    words = [anchor.split() for anchor in task.anchors]
    kept = [" ".join([*w[:6], "new"]) for w in words]
    changed = [" ".join([*w[:3], "x", "y", "z"]) for w in words]
    apart = ChangedMeaningTask("apart", task.anchors, kept, changed, ["word"] * len(words))
    assert [m.score.metric for m in apart.measure(trigrams)] == ["paraphrase closer x 100"]


def test_paraphrase_of_equal_cosine_is_not_closer():
    task = ChangedMeaningTask("t", ["a b"], ["b a"], ["a b c"], ["word"])
    assert task.measure(lambda texts, *_: np.ones((len(texts), 2)))[0].score.value == 0


def test_auc_is_none_without_a_stratum_of_both_labels():
    assert auc_in_strata(np.array([[0.5, 1, 3], [0.4, 0, 4]])) is None
    assert auc_in_strata(np.array([[0.5, 1, 3], [0.4, 0, 3], [0.5, 0, 3]])) == 0.75


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [("The cat sat.", "the CAT sat", 1.0), ("a b c", "a b d", 0.5), ("a", "b", 0.0), ("!", "?", 1.0)],
)
def test_word_overlap_is_the_jaccard_index_of_words(first, second, overlap):
    assert word_overlap(first, second) == overlap


def test_rows_may_lack_one_of_the_two_sentences(tmp_path):
    rows = [["a b", "b a", "a c", "word"], ["a b", "", "b c", "role"], ["d", "e", "", ""]]
    [found] = find(changed_meaning.KIND, write_tsv(tmp_path / "c.tsv", COLUMNS, rows))
    assert found.task.paraphrases == ["b a", "", "e"]
    assert found.task.change_kinds == ["word", "role", ""]
    assert set(found.task.texts()["sentence"]) == {"a b", "b a", "a c", "b c", "d", "e"}
    assert found.task.describe() == "3 rows, 1 with paraphrase and changed sentence; changed: role, word"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["a", "", "", ""]], "line 2: a row needs an anchor"),
        ([["a", "b", "c", ""]], "line 2: name what was changed"),
        ([["a", "b", "", ""], ["a", "", "c", "word"]], "no row has both"),
    ],
)
def test_unusable_rows_are_an_error_with_their_place(tmp_path, rows, message):
    with pytest.raises(ConfigError, match=message):
        find(changed_meaning.KIND, write_tsv(tmp_path / "c.tsv", COLUMNS, rows))
