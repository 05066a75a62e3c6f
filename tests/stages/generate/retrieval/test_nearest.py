"""The search against a double loop over cosines in float64."""

import math

import numpy as np
import pytest
import torch

from multicsr.stages.generate.retrieval import nearest
from multicsr.stages.generate.retrieval.nearest import find_nearest

WIDTH = 8


def vectors(num: int, seed: int) -> np.ndarray:
    """Unit vectors rounded to fp16 with few different numbers, so that many cosines are equal."""
    drawn_ND = np.random.default_rng(seed).integers(-1, 2, (num, WIDTH)).astype(np.float64)
    drawn_ND[~drawn_ND.any(axis=1)] = 1
    return (drawn_ND / np.linalg.norm(drawn_ND, axis=1, keepdims=True)).astype(np.float16)


def cosine(x_D: np.ndarray, y_D: np.ndarray) -> float:
    """The cosine of two vectors, number by number; the sums are exact."""
    x, y = ([float(value) for value in each] for each in (x_D, y_D))
    squares = [math.fsum(value * value for value in each) for each in (x, y)]
    return math.fsum(a * b for a, b in zip(x, y, strict=True)) / math.sqrt(squares[0] * squares[1])


def by_loop(query_QD, document_ND, depth, least, own_Q):
    found = []
    for query_D, own in zip(query_QD, own_Q, strict=True):
        near = []
        for number, document_D in enumerate(document_ND):
            value = cosine(query_D, document_D)
            if number != own and value >= least:
                near.append((-value, number))
        found.append([number for _, number in sorted(near)[:depth]])
    return found


@pytest.mark.parametrize("block", [3, 16, 4096])
@pytest.mark.parametrize("depth", [1, 3, 5, 200])
@pytest.mark.parametrize("least", [-1.0, 0.0, 0.5, 0.8, 1.0])
def test_the_nearest_are_those_of_a_double_loop(block, depth, least, monkeypatch):
    monkeypatch.setattr(nearest, "_DOCUMENTS_AT_ONCE", block)
    monkeypatch.setattr(nearest, "_QUERIES_AT_ONCE", 4)
    document_ND, query_QD = vectors(50, 0), vectors(11, 1)
    query_QD[3] = document_ND[20]
    own_Q = [None, 4, 49, 20, *[None] * 7]
    found = list(find_nearest(query_QD, torch.from_numpy(document_ND), depth, least, own_Q))
    assert found == by_loop(query_QD, document_ND, depth, least, own_Q)
    assert any(found) or least == 1.0


def test_a_cosine_exactly_at_the_least_one_counts_and_one_just_below_does_not():
    query_QD, document_ND = vectors(1, 2), vectors(30, 3)
    values = sorted({cosine(query_QD[0], document_D) for document_D in document_ND})
    at = values[-2]
    (found,) = find_nearest(query_QD, torch.from_numpy(document_ND), 30, at, [None])
    (above,) = find_nearest(query_QD, torch.from_numpy(document_ND), 30, math.nextafter(at, 2), [None])
    lost = [number for number in found if number not in above]
    assert lost
    assert all(cosine(query_QD[0], document_ND[number]) == at for number in lost)


def test_equal_cosines_come_in_the_order_of_their_numbers():
    document_ND = np.repeat(vectors(1, 4), 9, axis=0)
    (found,) = find_nearest(document_ND[:1], torch.from_numpy(document_ND), 4, 0.9, [2])
    assert found == [0, 1, 3, 4]
