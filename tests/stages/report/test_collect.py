from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from multicsr.artifacts import HISTOGRAM
from multicsr.errors import RunError
from multicsr.rows import CURATED, rejects
from multicsr.stages.curate.curation import Curation
from multicsr.stages.evaluate import EVALUATION
from multicsr.stages.report import collect
from multicsr.stages.report.statistics import NUM_BINS, NUM_CELLS, ReasonSamples, Sample
from multicsr.storage.store import Store
from multicsr.storage.versions import current, snapshot_of
from tests.support.versions import manifest, publish


def test_stages_state_what_the_manifests_state(made):
    ingest, generate, curate, train = collect(made.snapshot).stages
    assert (ingest.rows_in, ingest.rows_out, ingest.num_rejected) == (645, 600, 45)
    assert (generate.rows_in, generate.rows_out, generate.num_rejected) == (600, 560, 40)
    assert curate.rows_out == len(made.curated)
    assert curate.num_rejected == len(made.curated_rejects)
    assert curate.rejected == Counter(row["reason"] for row in made.curated_rejects).most_common()
    assert (train.title, train.rejected, train.rows_per_s) == ("Train", [("same hypotheses", 3)], None)
    assert ingest.rows_per_s == pytest.approx(645 / 1.4)


def test_the_engine_is_summed_up_where_it_counted(made):
    engine = collect(made.snapshot).engine
    assert (engine.ties, engine.tie_seconds, engine.preemptions, engine.out_of_step) == (12, 3.25, 0, 3)
    assert engine.prefix_hit_share == 0.25
    assert engine.tokens_per_s == pytest.approx(14400 / 92.5)


def test_an_engine_that_only_scored_is_summed_up(make_store):
    """After a change of the rules hypotheses are scored again, and none is written."""
    counters = {"prefix_queries": 40.0, "prefix_hits": 30.0}
    scored = manifest("generate", fingerprint="s", seconds=2, counters=counters)
    engine = collect(publish(make_store(("ingest",)).store, "scored", scored)).engine
    assert (engine.tokens_per_s, engine.prefix_hit_share, engine.ties) == (0.0, 0.75, 0)


def test_score_counts_hold_every_scored_row_once(made):
    scores = collect(made.snapshot).scores
    assert scores.num_rows == len(made.scored)
    for counts, rows, column in (
        (scores.kept_a, made.curated, "entailment_expected"),
        (scores.kept_b, made.curated, "contradiction_expected"),
        (scores.rejected_a, made.curated_rejects, "entailment_expected"),
        (scores.rejected_b, made.curated_rejects, "contradiction_expected"),
    ):
        expected = [0] * NUM_BINS
        for row in rows:
            expected[min(int(row[column] / 5 * NUM_BINS), NUM_BINS - 1)] += 1
        assert counts.tolist() == expected
    cells = np.zeros((NUM_CELLS, NUM_CELLS), dtype=int)
    for row in made.scored:
        a, b = (
            min(int(row[f"{n}_expected"] / 5 * NUM_CELLS), NUM_CELLS - 1)
            for n in ("entailment", "contradiction")
        )
        cells[a, b] += 1
    assert (scores.cells_AB == cells).all()


def test_yield_of_a_language_is_its_kept_share_of_the_sentences(made):
    yields = {each.language: (each.read, each.kept) for each in collect(made.snapshot).languages}
    kept = Counter(row["language"] for row in made.curated)
    assert yields == {"en": (500, kept["en"]), "tl": (100, kept["tl"])}


def test_findings_of_ingest_are_lines_of_its_stage(made):
    ingest, *others = collect(made.snapshot).stages
    assert ingest.findings == ["languages: en 500, tl 100", "replaced: email 12"]
    assert not any(stage.findings for stage in others)


def test_prompts_are_counted_by_what_became_of_their_rows(made):
    report = collect(made.snapshot)
    for use in report.prompts:
        column = f"{use.kind}_prompt"
        assert use.kept == sum(row[column] == use.index for row in made.curated)
        lost = [*made.curated_rejects, *made.scored_rejects]
        assert use.rejected == sum(row[column] == use.index for row in lost)
    assert [use.kind for use in report.prompts] == ["entailment"] * 4 + ["contradiction"] * 4
    assert report.prompts[0].text is not None
    assert report.prompts[0].text.startswith("Please paraphrase")
    assert report.omegas == [(0.3, 600)]


def test_samples_are_rows_of_the_run_and_every_reason_has_one(made):
    report = collect(made.snapshot)
    assert len(report.kept) == 8
    kept_ids = {row["row_id"]: row for row in made.curated}
    for row in report.kept:
        assert row.text == kept_ids[row.row_id]["text"]
        assert row.a == kept_ids[row.row_id]["a"]
    shown = Counter((entry.stage, entry.reason) for entry in report.rejected)
    expected = {
        (stage, row["reason"])
        for stage, rows in (
            ("Ingest", made.ingest_rejects),
            ("Generate", made.scored_rejects),
            ("Curate", made.curated_rejects),
        )
        for row in rows
    }
    assert set(shown) == expected
    assert set(shown.values()) == {2}


def test_evaluation_and_training_are_read(made):
    report = collect(made.snapshot)
    assert report.training is not None
    assert len(report.training.steps) == 120
    assert report.training.best is not None
    assert report.training.best.step == 100
    assert len(report.training.masked_pairs) == 6
    assert report.evaluation is not None
    assert [encoder.label for encoder in report.evaluation.encoders] == ["before training", "after training"]
    assert report.store == "demo-store"


def test_without_curation_all_scored_rows_count_as_kept(make_store):
    made = make_store(("ingest", "generate"))
    report = collect(made.snapshot)
    assert not report.is_curated
    assert report.curation is None
    assert report.scores.kept_a.sum() == len(made.scored)
    assert report.scores.rejected_a.sum() == 0
    assert report.training is None
    assert report.evaluation is None


def test_thresholds_are_those_of_the_curated_artifact(made, make_store):
    assert collect(made.snapshot).curation == Curation()
    reference = Curation(rule="reference", alpha=3.5)
    assert collect(make_store(("generate", "curate"), reference).snapshot).curation == reference


def test_separation_is_that_of_the_curated_artifact(made, make_store):
    assert collect(made.snapshot).separation is None
    counters = {"rows_with_scores": 40.0, "rows_with_a_above_b": 20.0}
    store = make_store(("ingest",)).store
    snapshot = publish(store, "curated", manifest("curate", fingerprint="c", counters=counters))
    separation = collect(snapshot).separation
    assert separation is not None
    assert (separation.num_rows, separation.share, separation.is_chance) == (40, 0.5, True)


def test_an_empty_store_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match=r"nothing to report in .*run `multicsr run CONFIG` first"):
        collect(current(Store.open(str(tmp_path))))


@pytest.mark.parametrize("name", [f"evaluation/f/{EVALUATION}", f"model/f/{HISTOGRAM}"])
def test_damaged_figures_are_a_run_error(make_store, name):
    made = make_store(("ingest", "train", "evaluate"))
    made.store.write_text(name, '{"created": 1')
    with pytest.raises(RunError, match=rf"{name} is damaged; delete it and run"):
        collect(made.snapshot)


def test_a_report_is_of_its_version(make_store):
    made = make_store(("ingest",))
    snapshot = publish(made.store, "sentences", manifest("ingest", fingerprint="g", rows_in=7, rows_out=7))
    assert [stage.rows_out for stage in collect(snapshot).stages] == [7]
    assert [stage.rows_out for stage in collect(snapshot_of(made.store, 1)).stages] == [600]


def table(made, rows) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=rejects(CURATED))


def test_a_sample_does_not_depend_on_order_or_files(made):
    rows = made.curated_rejects
    whole, parts, other = (Sample(5, seed, "expected") for seed in (0, 0, 1))
    whole.add(table(made, rows))
    other.add(table(made, rows))
    for start in range(0, len(rows), 7):
        parts.add(table(made, rows[::-1][start : start + 7]))
    assert whole.rows() == parts.rows()
    assert len(whole.rows()) == 5
    assert whole.rows() != other.rows()


def test_a_sample_is_even(made):
    """Over many seeds every row is drawn about equally often (5 of 50 rows, 1,000 seeds: 100 each)."""
    rows = table(made, made.curated_rejects[:50])
    drawn: Counter[str | None] = Counter()
    for seed in range(1000):
        sample = Sample(5, seed, "expected")
        sample.add(rows)
        drawn.update(row.row_id for row in sample.rows())
    assert len(drawn) == 50
    assert all(50 < count < 160 for count in drawn.values())


def test_a_sample_has_a_text_once(made):
    rows = [row | {"position": n} for n in range(20) for row in made.curated_rejects[:3]]
    whole, parts = Sample(5, 0, "expected"), Sample(5, 0, "expected")
    whole.add(table(made, rows))
    for start in range(0, len(rows), 7):
        parts.add(table(made, rows[::-1][start : start + 7]))
    assert whole.rows() == parts.rows()
    assert sorted(row.row_id for row in whole.rows()) == sorted({row["row_id"] for row in rows})


def test_few_rows_are_all_shown_and_long_texts_are_cut(made):
    row = made.curated_rejects[0] | {"text": "long " * 1000}
    samples = ReasonSamples(3, 0, "expected")
    samples.add(table(made, [row]))
    samples.add(table(made, []))
    [(reason, shown)] = samples.rows()
    assert reason == row["reason"]
    assert shown.text is not None
    assert shown.text.endswith("... (5,000 characters)")
    assert len(shown.text) < 450
