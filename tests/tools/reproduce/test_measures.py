"""The measures of single rows, on given data."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from multicsr.config import Config
from multicsr.errors import NothingKept, RunError
from multicsr.observability.progress import SilentProgress
from multicsr.stages.evaluate import Examples, Measurement, Score, StsTask, TripletTask
from multicsr.stages.train.data.index import digest_rows, join_index
from multicsr.tools.ablate.variants import TRIPLET
from multicsr.tools.reproduce.columns import STS_DEV
from multicsr.tools.reproduce.data import with_copies
from multicsr.tools.reproduce.measures import TableWork, cost, mask, pairs, tasks
from multicsr.tools.reproduce.measures.tasks import cells_of, difference
from multicsr.tools.reproduce.plan import plan_rows
from multicsr.tools.reproduce.registry import ENTRIES
from multicsr.tools.reproduce.scale import inputs_of


def test_cosines_are_those_with_other_rows():
    draw = np.random.default_rng(0)
    premise_ND, entailment_ND, contradiction_ND = draw.normal(size=(3, 5, 4))
    slow = [
        float(premise_ND[i] @ side_ND[k])
        for side_ND in (entailment_ND, contradiction_ND)
        for i in range(5)
        for k in range(5)
        if i != k
    ]
    found = mask.other_cosines(premise_ND, entailment_ND, contradiction_ND)
    assert len(found) == 2 * 5 * 4
    np.testing.assert_allclose(found, slow)


def test_one_triplet_has_no_cosines_with_other_rows(full):
    entry = ENTRIES["figure-7"]
    plan = plan_rows(entry, full, inputs_of(entry, full))[0]
    rows = pa.table([["a"], ["one"], ["three"], ["five"]], schema=TRIPLET)
    work = SimpleNamespace(reader=SimpleNamespace(table=lambda _: rows))
    with pytest.raises(NothingKept, match="1 triplets are left; cosines between rows need two"):
        mask.mask_measurer(work)(plan)


def test_a_row_below_one_that_failed_has_no_difference(full, tmp_path, monkeypatch):
    entry = ENTRIES["table-1"]
    plans = [plan for plan in plan_rows(entry, full, inputs_of(entry, full)) if plan.row.scores_pairs]
    found = iter([70.0, 60.0, None, 80.0])

    def measured(*_: object) -> list[Measurement]:
        if (value := next(found)) is None:
            raise RunError("the endpoint is away")
        hit_N = np.arange(40) < 40 * value / 100
        score = Score(task="t", kind="triplets", metric="accuracy x 100", value=value, num_rows=40)
        return [Measurement(score, Examples("share", hit_N[:, None].astype(float), 100))]

    monkeypatch.setattr(tasks, "measure_by_llm", measured)
    (tmp_path / "t.tsv").write_text("anchor\tpositive\tnegative\na\tb\tc\n")
    inputs = dataclasses.replace(inputs_of(entry, full), data=[str(tmp_path / "t.tsv")])
    progress = SilentProgress()
    work = TableWork(entry, full, inputs, plans[0].config, None, tmp_path, None, progress)
    measure = tasks.task_measurer(work)
    first, second = measure(plans[0]).cells["t"], measure(plans[1]).cells["t"]
    assert (first.difference, second.difference) == (None, pytest.approx(-10.0))
    with pytest.raises(RunError):
        measure(plans[2])
    assert measure(plans[3]).cells["t"].difference is None


def test_copies_may_share_a_batch():
    rows = pa.table([["a", "b"], ["one", "two"], ["three", "four"], ["five", "six"]], schema=TRIPLET)
    table = with_copies(rows, 3)
    assert table["row_id"].to_pylist() == ["a", "b", "a#0", "a#1", "a#2"]
    assert table["text"].to_pylist() == ["one", "two", "one (0)", "one (1)", "one (2)"]
    index = join_index([digest_rows(table, "simcse_sup")])
    assert len(np.unique(index.key_RS)) == 15
    assert len(np.unique(join_index([digest_rows(cost.copies(4), "simcse_sup")]).key_RS)) == 12


def test_a_clock_leaves_out_the_first_step(monkeypatch):
    times = iter([10.0, 12.0, 14.0])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(times))
    clock = cost.StepClock()
    assert clock.seconds() == 0.0
    for _ in range(3):
        clock.advance(1, "loss 0.1")
    assert clock.seconds() == pytest.approx(6.0)


def test_scores_of_an_llm_are_compared_with_those_of_people():
    task = StsTask("sts", [1.0, 2.0, 4.0, 5.0], list("abcd"), list("efgh"), [""] * 4)
    right = pairs._correlation(task, np.array([0.5, 1.0, np.nan, 4.0]))
    assert (right.score.value, right.score.num_rows) == (pytest.approx(100.0), 3)
    triplets = TripletTask("t", list("abc"), list("def"), list("ghi"))
    assert pairs._pairs(triplets)[:4] == [("a", "d"), ("b", "e"), ("c", "f"), ("a", "g")]
    share = pairs._share(triplets, np.array([3.0, 2.0, np.nan]), np.array([1.0, 2.0, 0.0]))
    assert share.score.value == pytest.approx(100 / 3)


def test_scored_pairs_depend_on_no_demonstrations(monkeypatch, tmp_path):
    score = Score(task="t", kind="triplets", metric="accuracy x 100", value=50.0, num_rows=2)
    measured = []
    monkeypatch.setattr(
        pairs,
        "_measure",
        lambda *_: measured.append(1) or Measurement(score, Examples("share", np.eye(2), 100)),
    )
    base = {"name": "t", "store": str(tmp_path), "input": {"paths": ["x"]}, "llm": {"engine": "fake"}}
    for demonstrations in (None, {"triplets": "nowhere.tsv"}):
        config = Config.model_validate({**base, "generate": {"demonstrations": demonstrations}})
        work = SimpleNamespace(folder=tmp_path)
        pairs.measure_by_llm(config, [TripletTask("t", list("ab"), list("cd"), list("ef"))], work)
    assert len(measured) == 1


def test_a_difference_is_that_of_the_table_of_an_ablation():
    def results(*shares: float) -> list[list[Measurement]]:
        found = []
        for share in shares:
            hit_N = (np.arange(40) < 40 * share).astype(float)
            score = Score(
                task="t", kind="triplets", metric="accuracy x 100", value=100 * hit_N.mean(), num_rows=40
            )
            found.append([Measurement(score, Examples("share", hit_N[:, None], 100))])
        return found

    here, above = results(0.9, 0.8), results(0.5, 0.6)
    found = difference(here, above, 0)
    assert found.difference == pytest.approx(30.0)
    assert found.low < 30 < found.high
    assert difference(above, here, 0).difference == pytest.approx(-30.0)
    no_examples = [[Measurement(here[0][0].score, None)]]
    assert difference(no_examples, above, 0) is None
    other = [[Measurement(here[0][0].score.model_copy(update={"task": "u"}), here[0][0].examples)]]
    assert difference(other, above, 0) is None


def test_cells_have_the_values_of_all_trainings():
    def result(value: float) -> list[Measurement]:
        scores = [("stsb_dev", value), ("own", 2 * value)]
        return [
            Measurement(Score(task=name, kind="sts", metric="Spearman x 100", value=number, num_rows=9), None)
            for name, number in scores
        ]

    cells = cells_of((STS_DEV,), [result(70.0), result(80.0)])
    assert (cells["STS-B dev"].values, cells["own"].values) == ([70.0, 80.0], [140.0, 160.0])
    assert (cells["STS-B dev"].metric, cells["STS-B dev"].num_rows) == ("Spearman x 100", 9)
