"""Exact search of the nearest vectors by blocks: no matrix of all queries by all documents is made.

    Q queries     N documents     B documents of a block     K near pairs     D width

A cosine is a function of its two vectors alone (`exact_cosines`), so that what is found depends on neither
the blocks nor the other queries nor the device. Equal cosines are ordered by the number of the document.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multicsr.models.cosines import exact_cosines
from multicsr.models.frozen_encoder import Vectors

_QUERIES_AT_ONCE = 512
_DOCUMENTS_AT_ONCE = 4096
"""Documents per block: a block of cosines takes 16 MiB."""
Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


def find_nearest(
    query_QD: Vectors, document_ND: Tensor, depth: int, least: float, own_Q: Sequence[int | None]
) -> Iterator[list[int]]:
    """Yield the numbers of the nearest documents of each query, the nearest first.

    Args:
        query_QD: unit vectors of the queries, fp16.
        document_ND: those of the documents, on the device that searches.
        depth: maximum number of documents of a query.
        least: minimum cosine.
        own_Q: number of the document that is the query itself, which is not found; None: there is none.
    """
    for start in range(0, len(query_QD), _QUERIES_AT_ONCE):
        queries = slice(start, start + _QUERIES_AT_ONCE)
        yield from _nearest(query_QD[queries], document_ND, depth, least, own_Q[queries])


def _nearest(
    query_QD: Vectors, document_ND: Tensor, depth: int, least: float, own_Q: Sequence[int | None]
) -> list[list[int]]:
    found: list[tuple[Floats, Numbers]] = [(np.empty(0), np.empty(0, np.int64)) for _ in query_QD]
    floor_Q = np.full(len(query_QD), least)
    query = torch.from_numpy(query_QD).to(document_ND.device)
    for start in range(0, len(document_ND), _DOCUMENTS_AT_ONCE):
        cosine_QB = exact_cosines(query, document_ND[start : start + _DOCUMENTS_AT_ONCE])
        for number, own in enumerate(own_Q):
            if own is not None and start <= own < start + cosine_QB.shape[1]:
                cosine_QB[number, own - start] = -torch.inf
        for number, cosine_K, column_K in _near(cosine_QB, floor_Q):
            cosines, documents = found[number]
            found[number] = _best(
                np.concatenate([cosines, cosine_K]), np.concatenate([documents, column_K + start]), depth
            )
            if len(found[number][0]) == depth:
                floor_Q[number] = found[number][0][-1]
    return [documents.tolist() for _, documents in found]


def _near(cosine_QB: Tensor, floor_Q: Floats) -> Iterator[tuple[int, Floats, Numbers]]:
    """Yield for each query with cosines of at least its floor its number, these cosines and their columns."""
    is_near_QB = cosine_QB >= torch.from_numpy(floor_Q).to(cosine_QB.device)[:, None]
    row_K, column_K = is_near_QB.nonzero(as_tuple=True)
    cosine_K = cosine_QB[row_K, column_K].cpu().numpy()
    rows, columns = row_K.cpu().numpy(), column_K.cpu().numpy()
    ends = np.flatnonzero(np.diff(rows, append=-1)) + 1
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=False):
        yield int(rows[start]), cosine_K[start:end], columns[start:end]


def _best(cosine_K: Floats, document_K: Numbers, depth: int) -> tuple[Floats, Numbers]:
    """Return the highest cosines in descending order with their documents; equal ones by the document."""
    if len(cosine_K) > depth:
        is_high_K = cosine_K >= np.partition(cosine_K, len(cosine_K) - depth)[len(cosine_K) - depth]
        cosine_K, document_K = cosine_K[is_high_K], document_K[is_high_K]
    order_K = np.lexsort((document_K, -cosine_K))[:depth]
    return cosine_K[order_K], document_K[order_K]
