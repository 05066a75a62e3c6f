"""A triplet in progress is a row of WRITTEN, and gets its hypotheses back from one."""

import pyarrow as pa

from multicsr.llm.base import Rejection
from multicsr.rows import WRITTEN, Reason
from multicsr.stages.generate.triplet_rows import (
    HypothesisInProgress,
    TripletInProgress,
    take_existing,
    to_table,
)


def make(**fields):
    return TripletInProgress("It rains.", "id", 0.25, "syncse", "m", **fields)


def full():
    return make(
        entailment=HypothesisInProgress("Water falls.", 1, 4.0, 4.5, "4.5"),
        contradiction=HypothesisInProgress("It is dry.", 2, 1.0, 0.5, "0.5"),
        generated_tokens=5,
    )


def test_every_column_is_filled_from_its_attribute():
    assert to_table([full()]).to_pylist() == [
        {
            "row_id": "id",
            "entailment": "Water falls.",
            "contradiction": "It is dry.",
            "entailment_prompt": 1,
            "contradiction_prompt": 2,
            "generated_tokens": 5,
            "omega": 0.25,
            "prompts": "syncse",
            "llm": "m",
            "entailment_expected": 4.0,
            "contradiction_expected": 1.0,
            "entailment_stated": 4.5,
            "contradiction_stated": 0.5,
            "entailment_reply": "4.5",
            "contradiction_reply": "0.5",
            "reason": None,
            "detail": None,
        }
    ]
    assert set(full().row()) == set(WRITTEN.names)


def test_no_triplets_are_an_empty_table():
    assert to_table([]).equals(WRITTEN.empty_table())


def test_existing_hypotheses_are_taken_over_without_their_scores():
    triplet = make()
    take_existing([triplet], to_table([full()]))
    assert triplet.is_written
    assert triplet.entailment == HypothesisInProgress("Water falls.", 1)
    assert triplet.contradiction == HypothesisInProgress("It is dry.", 2)
    assert triplet.generated_tokens == 5
    assert triplet.rejection is None


def test_a_rejection_that_scores_cannot_change_is_kept_and_one_by_the_texts_is_decided_again():
    rejected = make(rejection=Rejection(Reason.PROMPT_TOO_LONG, "600 tokens"))
    again = full()
    again.rejection = Rejection(Reason.COPIED_HYPOTHESIS, "under older rules")
    unscored = full()
    unscored.rejection = Rejection(Reason.SCORE_UNPARSABLE)
    for before, after in ((rejected, rejected.rejection), (again, None), (unscored, None)):
        triplet = make()
        take_existing([triplet], to_table([before]))
        assert triplet.rejection == after
        assert triplet.is_written


def test_rows_of_other_sentences_change_nothing():
    triplet, other = make(), full()
    other.row_id = "other"
    take_existing([triplet], pa.concat_tables([to_table([other]), to_table([])]))
    take_existing([triplet], None)
    assert not triplet.is_written
    assert triplet.entailment == HypothesisInProgress()
