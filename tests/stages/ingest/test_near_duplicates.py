"""Near-duplicates against a comparison of all pairs."""

import random
import re
from pathlib import Path

import pytest

from multicsr.observability.progress import SilentProgress
from multicsr.rows import Reason
from multicsr.stages.ingest import ingest, near_duplicates
from multicsr.stages.ingest.near_duplicates import Signed, _losers
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store

CASES = Path(__file__).parent / "cases"
WORDS = ["man", "child", "dog", "cat", "walks", "runs", "sits", "plays", "in", "near", "park", "house", "red"]


def similarity(one, other):
    def trigrams(text):
        words = re.findall(r"\w+", text.casefold())
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}

    return len(trigrams(one) & trigrams(other)) / len(trigrams(one) | trigrams(other))


def corpus(number):
    """Random sentences; some come again with one word more, with six words more, or in another case."""
    draw = random.Random(3)
    sentences = []
    for i in range(number):
        sentence = " ".join(draw.choices(WORDS, k=20))
        sentences.append(sentence)
        if i % 3 == 0:
            sentences.append(f"{sentence} again")
        if i % 4 == 0:
            sentences.append(f"{sentence} and now comes something else here")
        if i % 5 == 0:
            sentences.append(f"{sentence.capitalize()}!")
    return sentences


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("rows_per_file", [1000, 7])
def test_agrees_with_all_pairs(tmp_path, write, config, rows_per_file):
    sentences = corpus(60)
    path = write(tmp_path / "a.txt", sentences)
    settings = config(path, column=None, near_duplicates=True, rows_per_file=rows_per_file)
    store = Store.open(settings.store)
    manifest = ingest(settings, store, SilentProgress())
    expected = [
        i
        for i, sentence in enumerate(sentences)
        if any(similarity(sentence, earlier) >= 0.8 for earlier in sentences[:i])
    ]
    rejected = [row for table in iter_rejects(store, manifest) for row in table.to_pylist()]
    assert sorted(row["position"] for row in rejected) == expected
    assert {row["reason"] for row in rejected} == {Reason.NEAR_DUPLICATE}
    assert all(re.fullmatch(r"(0\.[89]\d|1\.00) like a\.txt:\d+", row["detail"]) for row in rejected)
    assert sum(table.num_rows for table in iter_tables(store, manifest)) == len(sentences) - len(expected)
    assert not store.names(f"sentences/{manifest.fingerprint}/bands")


def test_a_crowd_under_one_hash_is_bounded(monkeypatch):
    monkeypatch.setattr(near_duplicates, "_MAX_LEADERS", 2)
    texts = ["a b c d", "e f g h", "i j k l", "A B C D", "I J K L"]
    group = [Signed("0", str(i), text, "a.txt", i) for i, text in enumerate(texts)]
    assert list(_losers(group, 0.8)) == [("3", "1.00 like a.txt:0")]


def test_the_similarity_asked_for_is_enough_and_less_is_not():
    texts = ["a b c d e f", "a b c d e f g", "a b c d e f h i"]
    group = [Signed("0", str(i), text, "a.txt", i) for i, text in enumerate(texts)]
    assert list(_losers(group, 4 / 5)) == [("1", "0.80 like a.txt:0")]


def test_sentences_without_a_word_resemble_no_other(tmp_path, config, monkeypatch):
    """The fixture of Ray is not needed: what the workers do is called here."""
    lines = (CASES / "near_duplicates_zh_emoji.txt").read_text(encoding="utf-8").splitlines()
    lines += ["_ _ _", "--- --- ---"]
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = config(tmp_path / "a.txt", column=None, near_duplicates=True, min_words=1)
    monkeypatch.setattr(
        "multicsr.execution.stage_runner.map_items", lambda name, make, items, pool: map(make(), items)
    )
    store = Store.open(settings.store)
    manifest = ingest(settings, store, SilentProgress())
    kept = {row["text"] for table in iter_tables(store, manifest) for row in table.to_pylist()}
    assert {line for line in lines if not re.search(r"[^\W_]", line)} <= kept
    assert manifest.rejected == {Reason.NEAR_DUPLICATE: 2}, "one of the English and one of the Chinese lines"


@pytest.mark.parametrize(
    ("text", "shingles"),
    [
        ("今天天气", {"今 天 天", "天 天 气"}),
        ("今天, 天气!", {"今 天 天", "天 天 气"}),
        ("おはようGPU", {"お は よ", "は よ う", "よ う gpu"}),
        ("가나다 라마바 사아자", {"가나다 라마바 사아자"}),
        ("ที่นี่", {"ท ี ่", "ี ่ น", "่ น ี", "น ี ่"}),
    ],
)
def test_in_scripts_without_blanks_each_character_is_a_word(text, shingles):
    assert near_duplicates._shingles(text) == shingles
