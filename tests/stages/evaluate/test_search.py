import tracemalloc

import numpy as np
import pytest

from multicsr.stages.evaluate import search as search_module
from multicsr.stages.evaluate.search import best, search


def whole_matrix(queries_QD: np.ndarray, documents_ND: np.ndarray, depth: int) -> list[tuple[list, list]]:
    """All scores of each query in double precision, sorted: descending, then by number."""
    found = []
    for query_D in queries_QD.astype(np.float64):
        scores = [np.float32(sum(q * d for q, d in zip(query_D, row, strict=True))) for row in documents_ND]
        order = sorted(range(len(scores)), key=lambda number: (-scores[number], number))[:depth]
        found.append((order, [scores[number] for number in order]))
    return found


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("depth", [1, 5, 400])
def test_search_by_blocks_equals_a_sorted_matrix_with_ties(monkeypatch, block, depth):
    monkeypatch.setattr(search_module, "DOCUMENTS_AT_ONCE", block)
    draw = np.random.default_rng(0)
    documents_ND = draw.integers(-2, 3, (300, 4)).astype(np.float32)  # few values: many equal scores
    queries_QD = draw.integers(-2, 3, (9, 4)).astype(np.float32)
    hits = search(queries_QD, 300, lambda numbers: documents_ND[list(numbers)], depth)
    for found, (order, scores) in zip(hits, whole_matrix(queries_QD, documents_ND, depth), strict=True):
        assert found.documents_K.tolist() == order
        assert found.scores_K.tolist() == scores


def test_equal_vectors_far_apart_have_equal_scores_in_the_order_of_their_numbers():
    draw = np.random.default_rng(1)
    documents_ND = draw.normal(size=(20_000, 384)).astype(np.float32)
    documents_ND /= np.linalg.norm(documents_ND, axis=1, keepdims=True)
    same = [3, 8190, 8192, 19_999]
    documents_ND[same] = documents_ND[3]
    [hits] = search(documents_ND[3:4], 20_000, lambda numbers: documents_ND[list(numbers)], 10)
    assert hits.documents_K[:4].tolist() == same
    assert len(set(hits.scores_K[:4].tolist())) == 1


def test_best_of_fewer_numbers_than_asked_for_is_all_of_them():
    assert best(np.array([1.0, 3.0, 3.0], np.float32), 5).tolist() == [1, 2, 0]


def test_memory_does_not_grow_with_the_number_of_documents():
    queries_QD = np.random.default_rng(2).normal(size=(20, 8)).astype(np.float32)

    def peak(num_documents: int) -> int:
        def vectors(numbers) -> np.ndarray:
            numbers = np.asarray(numbers)
            return np.stack([np.sin(numbers * (d + 1.7)) for d in range(8)], axis=1).astype(np.float32)

        tracemalloc.start()
        for _ in search(queries_QD, num_documents, vectors, 100):
            pass
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    small, large = peak(4 * search_module.DOCUMENTS_AT_ONCE), peak(64 * search_module.DOCUMENTS_AT_ONCE)
    matrix = 20 * 64 * search_module.DOCUMENTS_AT_ONCE * 4
    assert large < 1.2 * small
    assert large < matrix / 4
