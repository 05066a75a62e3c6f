"""Every kind by each similarity of sentence-transformers, compared with its evaluators."""

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.evaluation import (
    BinaryClassificationEvaluator,
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    RerankingEvaluator,
    TripletEvaluator,
)
from sentence_transformers.util import SimilarityFunction

from multicsr.stages.evaluate import RetrievalTask, Role, Similarity, StsTask, TripletTask
from multicsr.stages.evaluate.kinds.alignment import PositivePairsTask
from multicsr.stages.evaluate.kinds.bitext import BitextTask
from multicsr.stages.evaluate.kinds.changed_meaning import ChangedMeaningTask
from multicsr.stages.evaluate.kinds.clustering import ClusteringTask
from multicsr.stages.evaluate.kinds.pair_classification import PairClassificationTask
from multicsr.stages.evaluate.kinds.reranking import RerankingTask
from multicsr.stages.evaluate.search import search
from tests.support.tiny_encoders import WORDS
from tests.support.trigram_encoder import TrigramModel, trigrams

ALL = [*Similarity]


def phrases(count: int, seed: int) -> list[str]:
    """Phrases of three to nine words, so that the lengths of their vectors differ."""
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, size=draw.integers(3, 10))) for _ in range(count)]


class Model(TrigramModel):
    """A model that declares a similarity."""

    def __init__(self, similarity: Similarity) -> None:
        super().__init__()
        self.similarity_fn_name = similarity.value
        self.similarity = SimilarityFunction.to_similarity_fn(similarity.value)
        self.similarity_pairwise = SimilarityFunction.to_similarity_pairwise_fn(similarity.value)


def measured(task, similarity: Similarity) -> dict[str, float]:
    return {m.score.metric: m.score.value for m in task.measure(trigrams, similarity)}


@pytest.mark.parametrize("similarity", ALL)
def test_sts_is_that_of_the_embedding_similarity_evaluator(similarity):
    scores = [float(s) for s in np.random.default_rng(2).integers(0, 6, 80)]
    task = StsTask("t", scores, phrases(80, 0), phrases(80, 1), [""] * 80)
    evaluator = EmbeddingSimilarityEvaluator(task.sentences1, task.sentences2, scores)
    expected = evaluator(Model(similarity))[f"spearman_{similarity}"]
    assert measured(task, similarity) == {"Spearman x 100": pytest.approx(100 * expected, abs=0.01)}
    assert measured(task, similarity) != measured(task, ALL[ALL.index(similarity) - 1])


@pytest.mark.parametrize("similarity", ALL)
def test_triplets_are_those_of_the_triplet_evaluator(similarity):
    columns = [phrases(90, seed) for seed in range(3)]
    model = Model(similarity)
    model.encode_query = model.encode_document = model.encode  # its anchors are queries, ours sentences
    expected = TripletEvaluator(*columns)(model)[f"{similarity}_accuracy"]
    assert measured(TripletTask("t", *columns), similarity) == {
        "accuracy x 100": pytest.approx(100 * expected)
    }


@pytest.mark.parametrize("similarity", ALL)
def test_pairs_are_those_of_the_binary_classification_evaluator(similarity):
    labels = [int(label) for label in np.random.default_rng(4).integers(0, 2, 90)]
    task = PairClassificationTask("t", labels, phrases(90, 5), phrases(90, 6))
    expected = BinaryClassificationEvaluator(task.sentences1, task.sentences2, labels)(Model(similarity))
    found = measured(task, similarity)
    assert found["average precision x 100"] == pytest.approx(100 * expected[f"{similarity}_ap"], abs=1e-4)
    assert found["best accuracy x 100"] == pytest.approx(100 * expected[f"{similarity}_accuracy"])
    threshold = expected[f"{similarity}_accuracy_threshold"]
    assert abs(found[f"{similarity} of the best accuracy"]) == pytest.approx(abs(threshold), rel=1e-5)


@pytest.mark.parametrize("similarity", ALL)
def test_reranking_is_that_of_the_reranking_evaluator(similarity):
    queries = phrases(20, 7)
    candidates = [(phrases(2, 100 + i), phrases(9, 200 + i)) for i in range(20)]
    samples = [
        {"query": query, "positive": positive, "negative": negative}
        for query, (positive, negative) in zip(queries, candidates, strict=True)
    ]
    model = Model(similarity)
    expected = RerankingEvaluator(samples, similarity_fct=model.similarity)(model)
    positives, negatives = map(list, zip(*candidates, strict=True))
    found = measured(RerankingTask("t", queries, positives, negatives, 0), similarity)
    assert found["MAP x 100"] == pytest.approx(100 * expected["map"])
    assert found["MRR@10 x 100"] == pytest.approx(100 * expected["mrr@10"])


@pytest.mark.parametrize("similarity", ALL)
def test_retrieval_is_that_of_the_information_retrieval_evaluator(similarity):
    for package in ("pytrec_eval", "bm25s"):
        pytest.importorskip(package)
    queries = {f"q{i}": text for i, text in enumerate(phrases(15, 8))}
    texts = dict.fromkeys(phrases(130, 9))
    documents = {f"d{i:03}": text for i, text in reversed([*enumerate(texts)])}
    draw = np.random.default_rng(10)
    relevant = {query: {str(d) for d in draw.choice([*documents], 3, replace=False)} for query in queries}
    judgements = {query: dict.fromkeys(sorted(of), 1) for query, of in relevant.items()}
    task = RetrievalTask("t", queries, documents, judgements)
    evaluator = InformationRetrievalEvaluator(queries, documents, relevant, show_progress_bar=False)
    expected = evaluator(Model(similarity))
    scores = {m.score.metric: m.score for m in task.measure(trigrams, similarity)}
    for name, key in (("nDCG@10", "ndcg@10"), ("MRR@10", "mrr@10"), ("recall@10", "recall@10")):
        assert scores[f"{name} x 100"].value == pytest.approx(100 * expected[f"{similarity}_{key}"])
    assert scores["nDCG@10 x 100"].similarity is similarity
    assert scores["nDCG@10 x 100, BM25"].similarity is None
    by_cosine = {m.score.metric: m.score.value for m in task.measure(trigrams)}
    assert scores["nDCG@10 x 100, BM25"].value == by_cosine["nDCG@10 x 100, BM25"]


@pytest.mark.parametrize("similarity", ALL)
def test_search_by_blocks_equals_the_library_matrix(similarity, monkeypatch):
    monkeypatch.setattr("multicsr.stages.evaluate.search.DOCUMENTS_AT_ONCE", 64)
    draw = np.random.default_rng(11)
    documents_ND, queries_QD = (draw.normal(size=(n, 6)).astype(np.float32) for n in (300, 9))
    scaled = [similarity.scale(v.astype(float)).astype(np.float32) for v in (queries_QD, documents_ND)]
    matrix_QN = Model(similarity).similarity(*map(torch.from_numpy, (queries_QD, documents_ND))).numpy()
    hits = search(scaled[0], 300, lambda numbers: scaled[1][list(numbers)], 5, similarity)
    for found, scores_N in zip(hits, matrix_QN, strict=True):
        assert found.documents_K.tolist() == np.argsort(-scores_N, kind="stable")[:5].tolist()


@pytest.mark.parametrize("similarity", ALL)
def test_bitext_finds_the_nearest_by_the_library_matrix(similarity):
    sources = phrases(70, 12)
    targets = [f"{text[:9]} {other}" for text, other in zip(sources, phrases(70, 13), strict=True)]
    model = Model(similarity)
    matrix_NN = model.similarity(*(torch.from_numpy(trigrams(texts)) for texts in (sources, targets)))
    right = [
        np.mean([across[int(scores.argmax())] == across[row] for row, scores in enumerate(matrix)])
        for matrix, across in ((matrix_NN, targets), (matrix_NN.T, sources))
    ]
    found = measured(BitextTask("t", ("tgl", "eng"), sources, targets), similarity)
    assert found["accuracy x 100"] == pytest.approx(100 * np.mean(right))


@pytest.mark.parametrize("similarity", ALL)
def test_changed_meaning_compares_by_the_library_function(similarity):
    anchors = phrases(60, 14)
    same, changed = (
        [f"{text} {other}" for text, other in zip(anchors, phrases(60, seed), strict=True)]
        for seed in (15, 16)
    )
    columns = [torch.from_numpy(trigrams(texts)) for texts in (anchors, same, changed)]
    pairwise = Model(similarity).similarity_pairwise
    closer = pairwise(columns[0], columns[1]) > pairwise(columns[0], columns[2])
    task = ChangedMeaningTask("t", anchors, same, changed, ["negation"] * 60)
    assert measured(task, similarity)["paraphrase closer x 100"] == pytest.approx(100 * closer.float().mean())


def test_kinds_that_are_defined_without_a_similarity_ignore_it():
    texts = phrases(40, 17)
    tasks = [
        PositivePairsTask("pairs", texts[:20], texts[20:]),
        ClusteringTask("clusters", [texts], [["a", "b"] * 20]),
    ]
    for task in tasks:
        scores = [m.score for m in task.measure(trigrams, Similarity.MANHATTAN)]
        assert scores == [m.score for m in task.measure(trigrams)]
        assert {score.similarity for score in scores} == {None}


@pytest.mark.parametrize("similarity", ALL)
def test_equal_vectors_are_equally_near_to_the_last_bit(similarity):
    vectors_ND = similarity.scale(np.repeat(trigrams(phrases(1, 18)), 70, axis=0).astype(float))
    [query_D] = similarity.scale(trigrams(["a query"], Role.QUERY).astype(float))
    assert len(set(similarity.of_pairs(query_D, vectors_ND).tolist())) == 1
