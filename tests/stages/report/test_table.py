import io

import pytest
from rich.console import Console

from multicsr.stages.report import summary


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
    for part in ("before training", "after training", "61.25", "83.75 +22.50", "57.25 -1.25"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 80


def test_summary_of_an_unfinished_run_shows_what_there_is(make_store, shown):
    text = shown(make_store(("ingest",)).snapshot)
    assert "Ingest" in text
    assert "Evaluation" not in text
