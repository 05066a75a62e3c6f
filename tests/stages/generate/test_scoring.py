"""Scores of triplets: which are made, and which rows are rejected without one."""

import numpy as np
import pytest

from tests.support.llm_rows import make_sentences, triplets
from tests.support.scripted_engine import done


@pytest.mark.parametrize("method", ["llm_expected", "llm_stated", "both"])
def test_a_row_is_rejected_where_no_score_is_there(scripted, method):
    pairs = {
        "Mute.": (done("Says nothing"), done("No.")),
        "Long.": (done("Long hypothesis"), done("No.")),
        "Both.": (done("Long hypothesis"), done("Says nothing")),
    }
    stage, _ = scripted(pairs, {"Says nothing": "similar"}, score={"method": method})
    output = triplets(stage, make_sentences(["Good.", *pairs]))
    kept = {row["text"]: row for row in output.rows.to_pylist()}
    lost = {row["text"]: row["reason"] for row in output.rejects.to_pylist()}
    mute, long = {"Mute.": "score unparsable"}, {"Long.": "prompt too long"}
    assert (
        lost
        == {
            "llm_expected": {**long, "Both.": "prompt too long"},
            "llm_stated": {**mute, "Both.": "score unparsable"},
            "both": {"Both.": "prompt too long"},
        }[method]
    )
    if method == "both":
        assert kept["Mute."]["entailment_stated"] is None
        assert (kept["Mute."]["entailment_expected"], kept["Mute."]["contradiction_stated"]) == (4.0, 4.5)
        assert kept["Long."]["entailment_expected"] is None
        assert kept["Long."]["entailment_stated"] == 4.5


def test_a_score_that_is_no_number_is_never_stored(scripted, monkeypatch):
    stage, engine = scripted({}, score={"method": "both"})
    monkeypatch.setattr(
        engine, "label_probabilities", lambda prompts, labels: [np.full(6, np.nan)] * len(prompts)
    )
    rows = stage(make_sentences(["It rains."])).rows.to_pylist()
    assert [row["reason"] for row in rows] == ["engine error"]
    assert rows[0]["entailment_expected"] is None
    assert rows[0]["entailment"] is not None


def test_only_the_asked_score_is_made(scripted):
    sentences = make_sentences(["It rains."])
    [row] = triplets(scripted({})[0], sentences).rows.to_pylist()
    assert row["entailment_stated"] is row["entailment_reply"] is None
    stage, _ = scripted({}, score={"method": "llm_stated"})
    [row] = triplets(stage, sentences).rows.to_pylist()
    assert row["entailment_expected"] is None
    assert row["entailment_stated"] == 4.5
