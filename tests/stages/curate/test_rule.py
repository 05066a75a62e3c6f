"""The decision of Eq. 4 against a plain loop, and the sweep against the decision."""

import random

import pyarrow as pa
import pytest

from multicsr.errors import ConfigError
from multicsr.rows import CURATED, SCORED, Reason, rejects, row_id
from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.rule import decide
from multicsr.stages.curate.sweep import Yield, sweep
from multicsr.storage.manifest import Manifest
from multicsr.storage.store import Store

NAN, INF = float("nan"), float("inf")


def make_rows(scores, column="expected"):
    """Scored rows with the given (a, b); everything else says which row and which side it belongs to."""
    rows = []
    for i, (a, b) in enumerate(scores):
        row = dict.fromkeys(SCORED.names)
        row |= {"row_id": row_id(f"sentence {i}", "en"), "text": f"sentence {i}", "language": "en"}
        row |= {"source": "a.txt", "position": i, "omega": 0.3, "generated_tokens": 9}
        row |= {"entailment": f"e{i}", "contradiction": f"c{i}"}
        row |= {"entailment_prompt": 1, "contradiction_prompt": 2}
        row |= {f"entailment_{column}": a, f"contradiction_{column}": b}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCORED)


def slow_decision(a, b, config):
    """Eq. 4, or the authors' code, one row at a time: (reason or None, swapped)."""
    a, b = round(a, 4), round(b, 4)
    swapped = False
    if config.rule == "reference":
        if min(a, b) > 4.0:
            return Reason.BOTH_SIMILAR, b > a
        if b > a:
            a, b, swapped = b, a, True
    if a < config.alpha:
        return Reason.LOW_ENTAILMENT, swapped
    if b > config.beta:
        return Reason.HIGH_CONTRADICTION, swapped
    if a == b if config.rule == "reference" else a < round(b + config.gamma, 4):
        return Reason.SMALL_GAP, swapped
    return None, swapped


def random_scores(number):
    draw = random.Random(7)
    tenths = [(draw.randrange(51) / 10, draw.randrange(51) / 10) for _ in range(number)]
    return [(2.8, 2.8), *tenths] + [(draw.uniform(0, 5), draw.uniform(0, 5)) for _ in range(number)]


@pytest.mark.parametrize(
    "config",
    [
        Curation(),
        Curation(score="llm_stated", alpha=3.3, beta=3.1, gamma=0.7),
        Curation(rule="reference"),
        Curation(rule="reference", score="llm_stated", alpha=2.5, beta=3.3),
    ],
)
def test_agrees_with_a_plain_loop(config):
    scores = random_scores(400)
    table = make_rows(scores, config.column)
    output = decide(table, config)
    expected = [slow_decision(a, b, config) for a, b in scores]

    assert output.rows.schema == CURATED
    assert output.rejects.schema == rejects(CURATED)
    ids = table["row_id"].to_pylist()
    assert output.rows["row_id"].to_pylist() == [
        i for i, (why, _) in zip(ids, expected, strict=True) if why is None
    ]
    assert output.rejects["reason"].to_pylist() == [why for why, _ in expected if why is not None]
    assert output.rows["swapped"].to_pylist() == [swapped for why, swapped in expected if why is None]
    assert len({why for why, _ in expected}) == (5 if config.rule == "reference" else 4)


def test_thresholds_are_inclusive_in_decimals():
    config = Curation(score="llm_stated", alpha=3.3, beta=2.3, gamma=1)
    assert decide(make_rows([(3.3, 2.3)], "stated"), config).rows.num_rows == 1
    assert (
        decide(make_rows([(2.1, 1.1)], "stated"), config.model_copy(update={"alpha": 2})).rows.num_rows == 1
    )
    assert decide(make_rows([(3.29, 2.3), (3.4, 2.31), (3.4, 2.41)], "stated"), config).rows.num_rows == 0


def test_reference_exchanges_the_whole_pair():
    table = make_rows([(1.0, 4.5), (4.5, 1.0)])
    rows = decide(table, Curation(rule="reference")).rows.to_pylist()
    assert [row["swapped"] for row in rows] == [True, False]
    assert (rows[0]["entailment"], rows[0]["contradiction"]) == ("c0", "e0")
    assert (rows[0]["entailment_prompt"], rows[0]["contradiction_prompt"]) == (2, 1)
    assert (rows[0]["entailment_expected"], rows[0]["contradiction_expected"]) == (4.5, 1.0)
    assert (rows[0]["a"], rows[0]["b"]) == (4.5, 1.0)
    assert (rows[1]["entailment"], rows[1]["contradiction"]) == ("e1", "c1")


def test_rows_scored_without_the_score_that_decides_are_an_error(tmp_path):
    store = Store.open(str(tmp_path))
    scoring = {"scoring": {"score": {"method": "expected"}}}
    scored = scored_artifact(store, [make_rows([(4.0, 1.0)])]).model_copy(update={"settings": scoring})
    Curation().check_scored(scored)
    config = Curation(score="llm_stated")
    with pytest.raises(
        ConfigError, match=r"curate\.score is llm_stated, but rows were scored by llm_expected"
    ):
        config.check_scored(scored)
    with pytest.raises(ConfigError, match=r"curate\.score is llm_stated"):
        sweep(store, scored, config, alphas=[3], betas=[3], gammas=[1])


@pytest.mark.parametrize("rule", ["paper", "reference"])
def test_a_row_without_the_score_that_decides_is_a_reject(tmp_path, rule):
    scores = [
        (4.0, 1.0),
        (None, 1.0),
        (4.0, None),
        (NAN, 1.0),
        (4.0, NAN),
        (INF, 1.0),
        (4.0, -INF),
        (None, NAN),
    ]
    table = make_rows(scores)
    config = Curation(rule=rule)
    output = decide(table, config)
    assert output.rows["a"].to_pylist() == [4.0]
    unparsable, no_number = Reason.SCORE_UNPARSABLE, Reason.SCORE_NOT_A_NUMBER
    assert output.rejects["reason"].to_pylist() == [*[unparsable] * 2, *[no_number] * 4, unparsable]
    assert output.rejects["a"].null_count == 4, "no number that is none is stored"
    scored = scored_artifact(Store.open(str(tmp_path)), [table])
    [found] = sweep(Store.open(str(tmp_path)), scored, config, alphas=[3], betas=[3], gammas=[1])
    assert found.kept == 1


def test_the_score_that_does_not_decide_rejects_nothing():
    table = make_rows([(4.0, 1.0)])
    assert table["entailment_stated"].null_count == 1
    assert decide(table, Curation()).rows.num_rows == 1


def test_no_rows_is_fine():
    output = decide(SCORED.empty_table(), Curation())
    assert output.rows.num_rows == output.rejects.num_rows == 0


def scored_artifact(store, tables):
    files = [store.write_table(f"scored/x/rows/part-{i:05d}.parquet", t) for i, t in enumerate(tables)]
    return Manifest(
        stage="generate",
        run="t",
        fingerprint="x",
        code_version="0",
        settings={},
        created="",
        seconds=0,
        rows_in=sum(t.num_rows for t in tables),
        rows_out=sum(t.num_rows for t in tables),
        rejected={},
        rows_digest="",
        files=files,
        reject_files=[],
        counters={},
    )


@pytest.mark.parametrize("rule", ["paper", "reference"])
def test_sweep_counts_what_decide_keeps(tmp_path, rule):
    store = Store.open(str(tmp_path))
    table = make_rows(random_scores(200))
    manifest = scored_artifact(store, [table.slice(0, 150), table.slice(150)])
    config = Curation(rule=rule)
    yields = sweep(store, manifest, config, alphas=[2, 3], betas=[2.5, 3], gammas=[0, 1])
    assert len(yields) == (8 if rule == "paper" else 4)
    for y in yields:
        way = config.model_copy(update={"alpha": y.alpha, "beta": y.beta, "gamma": y.gamma or 0})
        kept = decide(table, way).rows.num_rows
        assert y == Yield(y.alpha, y.beta, y.gamma, kept, kept / 401)
        assert 0 < kept < 401
