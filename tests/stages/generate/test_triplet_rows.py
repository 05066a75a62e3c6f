"""A triplet in progress is a row of WRITTEN, and gets its hypotheses back from one."""

import pyarrow as pa
import pytest

from multicsr.llm.base import Completion, Rejection
from multicsr.prompts import load_prompts
from multicsr.rows import WRITTEN, Reason
from multicsr.stages.generate.hypothesis_rules import HypothesisRules
from multicsr.stages.generate.triplet_rows import (
    HypothesisInProgress,
    TripletInProgress,
    take_existing,
    to_table,
)

RULES = HypothesisRules(load_prompts("syncse"))


def make(**fields):
    return TripletInProgress("It rains.", "id", "en", 0.25, "syncse", "m", **fields)


def full():
    return make(
        entailment=HypothesisInProgress("Water falls.", "Water falls.", 1, 4.0, 4.5, "4.5", 3.5),
        contradiction=HypothesisInProgress("It is dry.", "It is dry.", 2, 1.0, 0.5, "0.5", 0.25),
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
            "entailment_model": 3.5,
            "contradiction_model": 0.25,
            "entailment_raw": None,
            "contradiction_raw": None,
            "reason": None,
            "detail": None,
        }
    ]
    assert set(full().row()) == set(WRITTEN.names)


def test_no_triplets_are_an_empty_table():
    assert to_table([]).equals(WRITTEN.empty_table())


def test_existing_hypotheses_are_taken_with_their_scores_if_the_texts_stay_the_same():
    triplet = make()
    take_existing([triplet], to_table([full()]), RULES)
    assert triplet.is_written
    assert triplet.is_scored
    assert triplet.row() == full().row()
    before = full()
    before.contradiction.raw, before.contradiction.text = 'Output: "It is dry."', '"It is dry."'
    triplet = make()
    take_existing([triplet], to_table([before]), RULES)
    assert not triplet.is_scored
    assert triplet.contradiction.expected is None


def test_existing_hypotheses_without_scores_are_taken():
    before = full()
    for hypothesis in before.hypotheses:
        hypothesis.expected = hypothesis.stated = hypothesis.reply = hypothesis.model = None
    triplet = make()
    take_existing([triplet], to_table([before]), RULES)
    assert triplet.is_written
    assert not triplet.is_scored
    assert triplet.entailment == HypothesisInProgress("Water falls.", "Water falls.", 1)
    assert triplet.contradiction == HypothesisInProgress("It is dry.", "It is dry.", 2)
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
        take_existing([triplet], to_table([before]), RULES)
        assert triplet.rejection == after
        assert triplet.is_written


def test_rows_of_other_sentences_change_nothing():
    triplet, other = make(), full()
    other.row_id = "other"
    take_existing([triplet], pa.concat_tables([to_table([other]), to_table([])]), RULES)
    take_existing([triplet], None, RULES)
    assert not triplet.is_written
    assert triplet.entailment == HypothesisInProgress()


def completed(entailment, contradiction, finished=(True, True)):
    """A triplet with what the LLM wrote."""
    triplet = make()
    texts = zip((entailment, contradiction), finished, strict=True)
    triplet.take_completions(*(Completion(text, 7, done) for text, done in texts), RULES)
    return triplet


def test_the_raw_text_is_kept_where_more_than_white_space_differs():
    [row] = to_table([completed(" Water\u00a0 falls.\n", 'Output: "It is dry."')]).to_pylist()
    assert (row["entailment"], row["entailment_raw"]) == ("Water falls.", None)
    assert (row["contradiction"], row["contradiction_raw"]) == ("It is dry.", 'Output: "It is dry."')


def test_a_row_is_cleaned_and_judged_again_from_its_raw_text():
    """Rows of an older version have no raw text, or one that the older rules left as it was."""
    before = completed("Water falls.", 'Output: "It is dry."')
    before.contradiction.text, before.rejection = "something else", Rejection(Reason.META_TALK, "older rules")
    triplet = make()
    take_existing([triplet], to_table([before]), RULES)
    assert triplet.contradiction.text == "It is dry."
    assert triplet.rejection is None
    assert triplet.cleaning == ["label", "quotes"]


def test_a_row_with_a_raw_text_comes_before_one_of_an_artifact():
    cache = to_table([completed("Water falls.", 'Output: "It is dry."')])
    artifact = to_table([completed("Water falls.", "It is dry.")])
    for tables in ([cache, artifact], [artifact, cache]):
        triplet = make()
        take_existing([triplet], pa.concat_tables(tables), RULES)
        assert triplet.contradiction.raw == 'Output: "It is dry."'


def test_scores_of_any_row_with_the_same_texts_are_taken():
    """A row in the cache may have been scored under other settings, and that of an artifact under these."""
    cache = to_table([completed("Water falls.", "It is dry.")])
    scored, other = completed("Water falls.", "It is dry."), completed("Water falls.", "It is hot.")
    for triplet, score in ((scored, 4.0), (other, 1.0)):
        triplet.entailment.expected = triplet.contradiction.expected = score
    tables = [cache, to_table([other]), to_table([scored])]
    triplet = make()
    take_existing([triplet], pa.concat_tables(tables), RULES)
    assert triplet.is_scored
    assert triplet.entailment.expected == 4.0
    triplet = make()
    take_existing([triplet], pa.concat_tables(tables[:2]), RULES)
    assert triplet.is_written
    assert not triplet.is_scored


@pytest.mark.parametrize(
    ("text", "finished", "reason"),
    [
        ("Water falls and fa", False, Reason.UNFINISHED_HYPOTHESIS),
        ("Water falls.\nThis means that wat", False, None),
        ("<think>Let me see. The sen", False, Reason.THINK_BLOCK),
        ("As an AI language model, I can", False, Reason.UNFINISHED_HYPOTHESIS),
        ("", False, Reason.UNFINISHED_HYPOTHESIS),
        ("", True, Reason.EMPTY_HYPOTHESIS),
    ],
)
def test_a_text_that_was_cut_off_is_unfinished_unless_its_first_line_was_complete(text, finished, reason):
    for texts, done in (((text, "No."), (finished, True)), (("Yes.", text), (True, finished))):
        rejection = completed(*texts, done).rejection
        assert (rejection and rejection.reason) is reason
