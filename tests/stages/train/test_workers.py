"""The number of workers changes neither loss nor gradient (invariant 6), with any engine. Real processes."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from multicsr.config import MaskConfig, TrainConfig
from multicsr.rows import LABELLED
from tests.support.paths import ROOT
from tests.support.worker_side import CASES, DROPOUT, GIST, NEEDS_WHOLE
from tests.support.worker_side import LABELLED as LABELLED_CASES

pytestmark = pytest.mark.cluster


def run(folder: Path, workers: int, broken: str = "nothing") -> dict[str, dict]:
    """What `workers` processes make of one global batch, by case."""
    command = [sys.executable, "-m", "tests.support.worker_side"]
    processes = [
        subprocess.Popen([*command, str(rank), str(workers), str(folder), broken], cwd=ROOT)
        for rank in range(workers)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0] * workers
    return torch.load(folder / f"{workers}-{broken}.pt")


def labelled(triplets: pa.Table) -> pa.Table:
    """48 labelled rows with three weights; every third has no negative."""
    rows = [
        {
            **row,
            "contradiction": row["contradiction"] if number % 3 else None,
            "weight": [1, 0.25, 4][number % 4 % 3],
        }
        for number, row in enumerate(triplets.slice(48).to_pylist())
    ]
    return pa.Table.from_pylist(rows, LABELLED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_bert, triplets) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    config = TrainConfig(
        encoder=str(tiny_bert),
        mask=MaskConfig(model=str(tiny_bert), sigma=0.9),
        global_batch=16,
        max_grad_norm=1e9,
    )
    (folder / "config.json").write_text(config.model_dump_json(exclude_unset=True))
    pq.write_table(triplets, folder / "triplets.parquet")
    pq.write_table(labelled(triplets), folder / "labelled.parquet")
    return folder


@pytest.fixture(scope="module")
def alone(folder) -> dict[str, dict]:
    return run(folder, 1)


def distance(one: dict, other: dict) -> float:
    """Of two gradients: relative, in the L2 norm over all parameters."""
    assert one["gradient"].keys() == other["gradient"].keys()
    names = sorted(one["gradient"])
    left, right = (torch.cat([r["gradient"][n].double().flatten() for n in names]) for r in (one, other))
    return float((left - right).norm() / right.norm())


def tolerance(case: str) -> float:
    return 1e-6 if CASES[case][1] == torch.float64 else 1e-5


@pytest.mark.parametrize("workers", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4))])
def test_loss_mask_and_gradient_are_those_of_one_worker(folder, alone, workers):
    """Three workers own 5, 5 and 6 of the 16 rows, and do not have whole micro-batches: no dropout there."""
    together = run(folder, workers)
    for case in CASES.keys() - (DROPOUT | NEEDS_WHOLE if workers == 3 else set()):
        assert together[case]["masked"] == alone[case]["masked"] > 0, case
        assert together[case]["loss"] == pytest.approx(alone[case]["loss"], rel=tolerance(case)), case
        assert distance(together[case], alone[case]) < tolerance(case), case


def test_engines_and_gradcache_agree(alone):
    assert distance(alone["gist, GradCache"], alone["gist"]) < 1e-12
    for case in CASES.keys() - DROPOUT - LABELLED_CASES - GIST:
        assert alone[case]["loss"] == pytest.approx(alone["float64"]["loss"], rel=1e-5), case
        assert distance(alone[case], alone["float64"]) < 1e-5, case
    cached, plain = alone["float64, GradCache"], alone["float64, micro-batches"]
    assert cached["loss"] == plain["loss"]
    assert distance(cached, plain) < 1e-12


def test_the_micro_batches_of_this_test_have_dropout(alone):
    assert distance(alone["float64, micro-batches"], alone["float64"]) > 1e-2


@pytest.mark.parametrize(
    "broken",
    [
        "average",
        pytest.param("offset", marks=pytest.mark.slow),
        pytest.param("diagonal", marks=pytest.mark.slow),
    ],
)
def test_the_comparison_notices_a_mistake(folder, alone, broken):
    """Rank offset flipped; gradient averaged instead of added; the diagonal of worker 0 masked everywhere."""
    together = run(folder, 2, broken)
    for case in together:
        assert distance(together[case], alone[case]) > 1e-2, case
