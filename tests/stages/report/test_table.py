import io

import pytest
from rich.console import Console

from multicsr.stages.curate.curation import Curation
from multicsr.stages.report import summary
from multicsr.stages.score.calibration import ScoreMap
from tests.support.versions import manifest, publish


@pytest.fixture
def shown():
    def show(store) -> str:
        out = io.StringIO()
        Console(file=out, width=80).print(summary(store))
        return out.getvalue()

    return show


def test_summary_shows_every_count_and_the_encoder_before_and_after(made, shown):
    text = shown(made.snapshot)
    for part in ("645", "560", "9 duplicate", "14 copied hypothesis", str(len(made.curated))):
        assert part in text
    assert "Ingest: languages: en 500, tl 100\nIngest: replaced: email 12\n" in text
    for part in ("before training", "after training", "61.25", "83.75", "+22.50", "57.25", "-1.25"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 80


def test_summary_of_an_unfinished_run_shows_what_there_is(make_store, shown):
    text = shown(make_store(("ingest",)).snapshot)
    assert "Ingest" in text
    assert "Evaluation" not in text


def test_summary_says_how_far_the_scores_can_be_trusted(make_store, shown):
    store = make_store(("ingest",)).store
    calibration = ScoreMap(
        scores=[1, 3], values=[0, 5], num_pairs=80, spearman=0.5, mean=2, mean_of_people=3.25
    )
    counters = {"rows_with_scores": 40.0, "rows_with_a_above_b": 30.0}
    settings = {"curate": Curation(calibration=calibration).to_store()}
    snapshot = publish(
        store, "curated", manifest("curate", fingerprint="c", counters=counters, settings=settings)
    )
    text = " ".join(shown(snapshot).split())
    assert "Scores: a > b in 75.0% of 40 rows (95% interval 59.8% to 85.8%); 50% is chance" in text
    assert "Calibration: Spearman 0.50 with people on 80 pairs" in text
