import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from multicsr.stages.train import distributed
from multicsr.stages.train.data.index import digest, digest_rows, join_index
from multicsr.stages.train.data.source import from_table
from multicsr.stages.train.mask_model.read_mask import Mask
from multicsr.stages.train.mask_model.statistics import MaskStatistics
from multicsr.stages.train.objectives.mask import keep_cells

G = 12
DIGEST_R = np.array([digest(f"row{number}") for number in range(96)], dtype=np.uint64)


@dataclass
class Batch:
    row_G: np.ndarray
    cosine_GC: torch.Tensor


@pytest.fixture
def batches() -> list[Batch]:
    """An epoch of the 96 triplets."""
    draw = np.random.default_rng(0)
    rows = draw.permutation(96).reshape(-1, G)
    return [Batch(row_G, torch.from_numpy(draw.uniform(-1, 1, (G, 2 * G)))) for row_G in rows]


def collected(monkeypatch, batches, size=1, sigma=0.5) -> MaskStatistics:
    """What `size` workers find in all batches."""
    parts = []
    monkeypatch.setattr(distributed, "size", lambda: size)
    for rank in range(size):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(MaskStatistics())
        for batch in batches:
            own = distributed.own_rows(G)
            cosine_NC = batch.cosine_GC[own]
            parts[-1].add(batch.row_G, Mask(cosine_NC, keep_cells(cosine_NC, sigma, own.start)), DIGEST_R)
    monkeypatch.setattr(distributed, "from_all", lambda value: parts)
    return parts[0].of_all_workers()


def masked_cells(batches, sigma=0.5) -> set[tuple[int, int, int, float]]:
    """One after another: (anchor's row, candidate's row, 0 positive or 1 negative, cosine)."""
    return {
        (int(batch.row_G[n]), int(batch.row_G[c % G]), c // G, float(batch.cosine_GC[n, c]))
        for batch in batches
        for n in range(G)
        for c in range(2 * G)
        if c % G != n and batch.cosine_GC[n, c] >= sigma
    }


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_histogram_counts_the_cells_of_other_rows(size, batches, monkeypatch):
    batches[0].cosine_GC.fill_diagonal_(-1)  # its own positives: not to be seen at the left end
    batches[0].cosine_GC[0, 1], batches[0].cosine_GC[0, 2] = 1.0, 1.0 + 1e-12
    batches[0].cosine_GC[3, 4] = -1.0 - 1e-12
    count = np.zeros(80, dtype=int)
    for batch in batches:
        for n in range(G):
            for c in range(2 * G):
                if c % G != n:
                    count[min(79, max(0, int((float(batch.cosine_GC[n, c]) + 1) * 40)))] += 1
    mask_statistics = collected(monkeypatch, batches, size)
    assert mask_statistics.counts.tolist() == count.tolist()
    assert mask_statistics.counts.sum() == len(batches) * G * 2 * (G - 1)


def test_the_sample_does_not_depend_on_workers_or_order(batches, monkeypatch):
    alone = collected(monkeypatch, batches)
    assert len(alone.cells) == 20
    assert {cell[1:] for cell in alone.cells} < masked_cells(batches)
    shuffled = [
        Batch(batch.row_G[::-1].copy(), batch.cosine_GC.view(G, 2, G).flip(0, 2).reshape(G, 2 * G))
        for batch in batches[::-1]
    ]
    assert masked_cells(shuffled) == masked_cells(batches)
    for size in (1, 2, 3, 5):
        assert collected(monkeypatch, batches, size).cells == alone.cells
        assert collected(monkeypatch, shuffled, size).cells == alone.cells


def test_the_sample_is_all_there_is_where_there_is_little(batches, monkeypatch):
    cells = sorted(masked_cells(batches), key=lambda cell: cell[-1])
    sigma = cells[-7][-1]
    mask_statistics = collected(monkeypatch, batches, 3, sigma)
    assert {cell[1:] for cell in mask_statistics.cells} == masked_cells(batches, sigma)
    assert len(mask_statistics.cells) == 7


def test_the_sample_has_no_regard_to_similarity_rows_or_sign(batches, monkeypatch):
    cells = [cell[1:] for cell in collected(monkeypatch, batches, sigma=-0.5).cells]
    assert {sign for _, _, sign, _ in cells} == {0, 1}
    assert len({cell[:2] for cell in cells}) > 15
    assert len({anchor for anchor, _, _, _ in cells}) > 10
    assert len({other for _, other, _, _ in cells}) > 10
    assert min(cosine for *_, cosine in cells) < 0 < 0.5 < max(cosine for *_, cosine in cells)


@pytest.fixture
def source(triplets):
    index = join_index([digest_rows(triplets, "masked_infonce")])
    return from_table(triplets, index, "masked_infonce")


def test_written_pairs_have_the_words_of_their_cells(source, triplets, batches, monkeypatch, tmp_path):
    """Every cell's cosine is its own, and so tells which one it was."""
    order = torch.randperm(len(batches) * G * 2 * G, generator=torch.Generator().manual_seed(0))
    for batch, cosine_B in zip(batches, (order / 10_000).double().split(G * 2 * G), strict=True):
        batch.cosine_GC = cosine_B.view(G, 2 * G)
    rows = triplets.to_pylist()
    words = {
        round(cosine, 4): (rows[anchor]["text"], rows[other][("entailment", "contradiction")[sign]])
        for anchor, other, sign, cosine in masked_cells(batches, 0.1)
    }
    mask_statistics = collected(monkeypatch, batches, 2, 0.1)
    mask_statistics.write(tmp_path, source)
    pairs = json.loads((tmp_path / "masked_pairs.json").read_text())
    assert len(pairs) == 20
    for pair in pairs:
        assert (pair["anchor"], pair["candidate"]) == words[pair["similarity"]]
    histogram = json.loads((tmp_path / "mask_similarities.json").read_text())
    assert histogram["counts"] == mask_statistics.counts.tolist()
    assert histogram["edges"] == pytest.approx([-1 + number / 40 for number in range(81)])


def test_where_nothing_is_masked_no_pair_is_written_and_no_row_read(batches, monkeypatch, tmp_path):
    mask_statistics = collected(monkeypatch, batches, sigma=1.1)
    mask_statistics.write(tmp_path, lambda epochs: pytest.fail("rows were read"))
    assert json.loads((tmp_path / "masked_pairs.json").read_text()) == []
    assert mask_statistics.counts.sum() == len(batches) * G * 2 * (G - 1)
