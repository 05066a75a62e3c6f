"""Triplets from sentences: order, conservation, reasons, provenance, counters."""

import numpy as np
import pyarrow as pa
import pytest
import yaml

from multicsr.llm.base import Rejection
from multicsr.llm.fake import FakeEngine
from multicsr.prompts import load_prompts
from multicsr.rows import SCORE_COLUMNS, SCORED, WRITTEN, Reason, rejects
from multicsr.stages.generate import triplets as stage_module
from multicsr.stages.generate.triplets import TripletStage
from tests.support.llm_rows import make_sentences, triplets
from tests.support.scripted_engine import done
from tests.support.tiny_llms import make_config

FAKE = {"engine": "fake"}


def test_rows_that_fail_leave_with_their_reason_and_what_was_filled(scripted):
    pairs = {
        "Too long.": Rejection(Reason.PROMPT_TOO_LONG, "600 tokens"),
        "Broken.": Rejection(Reason.ENGINE_ERROR, "nan"),
        "Empty.": (done(" \n"), done("No.")),
        "Copied  one.": (done("a"), done("copied one. ")),
        "Same.": (done("Alike"), done(" ALIKE")),
        "Cut off.": (done("Never ends", finished=False), done("No.")),
        "Fails later.": (done("Long hypothesis"), done("Says nothing")),
    }
    sentences = make_sentences(["Good one.", *pairs, "Good two."])
    stage, _ = scripted(
        {key.replace("  ", " "): value for key, value in pairs.items()},
        {"Says nothing": "similar"},
        score={"method": "both"},
    )
    output = triplets(stage, sentences)
    assert output.rows.schema == SCORED
    assert output.rejects.schema == rejects(SCORED)
    assert output.rows["text"].to_pylist() == ["Good one.", "Good two."]
    found = dict(zip(output.rejects["text"].to_pylist(), output.rejects["reason"].to_pylist(), strict=True))
    assert found == {
        "Too long.": "prompt too long",
        "Broken.": "engine error",
        "Empty.": "empty hypothesis",
        "Copied one.": "copied hypothesis",
        "Same.": "same hypotheses",
        "Cut off.": "unfinished hypothesis",
        "Fails later.": "prompt too long",
    }
    lost = {row["text"]: row for row in output.rejects.to_pylist()}
    assert lost["Too long."]["entailment"] is None
    assert lost["Too long."]["detail"] == "600 tokens"
    assert lost["Same."]["entailment"] == "Alike"
    assert lost["Same."]["entailment_expected"] is None
    assert lost["Fails later."]["contradiction_reply"] == "similar"
    assert lost["Fails later."]["entailment_stated"] == 4.5


def test_a_row_carries_hypotheses_scores_and_provenance(scripted):
    sentences = make_sentences(["It rains."])
    stage, _ = scripted(
        {"It rains.": (done(" Water  falls. "), done("It is dry."))}, score={"method": "both"}
    )
    [row] = triplets(stage, sentences).rows.to_pylist()
    assert row["entailment"] == "Water falls."
    assert row["contradiction"] == "It is dry."
    assert row["generated_tokens"] == 5
    assert (row["prompts"], row["llm"], row["omega"]) == ("syncse", "m", pytest.approx(0.3))
    assert row["entailment_expected"] == row["contradiction_expected"] == 4.0
    assert row["entailment_stated"] == row["contradiction_stated"] == 4.5
    assert row["entailment_prompt"] in range(4)
    assert row["row_id"] == sentences["row_id"][0].as_py()


def test_batches_hold_sentences_of_like_length_and_rows_keep_their_order(scripted):
    texts = [f"A sentence with {'very ' * (i * 7 % 20)}many words." for i in range(20)]
    stage, engine = scripted({}, generate={"batch_size": 6})
    assert triplets(stage, make_sentences(texts)).rows["text"].to_pylist() == texts
    assert [len(batch) for batch in engine.batches] == [6, 6, 6, 2]
    lengths = [len(premise) for batch in engine.batches for premise in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_the_fake_engine_gives_the_same_rows_in_any_blocks_and_loses_none(premises):
    sentences = make_sentences([f"{premise} ({i})" for i in range(10) for premise in premises])
    config = make_config("fake", llm=FAKE, score={"method": "both"})
    whole = triplets(TripletStage(config), sentences)
    assert whole.rows.num_rows + whole.rejects.num_rows == 2000
    reasons = set(whole.rejects["reason"].to_pylist())
    assert reasons == {"empty hypothesis", "copied hypothesis"}
    assert 30 < whole.rejects.num_rows < 200
    assert 10 < whole.rows["entailment_stated"].null_count < 60
    assert whole.counters["generated_tokens"] > 2000
    parts = [triplets(TripletStage(config), sentences.slice(start, 300)) for start in range(0, 2000, 300)]
    assert pa.concat_tables(part.rows for part in parts).equals(whole.rows)
    assert pa.concat_tables(part.rejects for part in parts).equals(whole.rejects)
    rows = whole.rows.to_pylist()
    assert np.mean([row["entailment_expected"] > row["contradiction_expected"] for row in rows]) > 0.9


def test_cleaned_texts_are_scored_and_every_rule_is_counted(scripted):
    pairs = {
        "It rains.": (done('Output: "Water falls."'), done("<think>dry</think>It is dry.")),
        "It snows.": (done('"Flakes fall."'), done("It is dry, too.")),
        "It hails.": (done("The original sentence is true."), done('"It is not so."')),
    }
    stage, _ = scripted(pairs)
    output = triplets(stage, make_sentences([*pairs, "It is."]))
    assert output.rows["entailment"].to_pylist()[:2] == ["Water falls.", "Flakes fall."]
    assert output.rows["contradiction"].to_pylist()[:2] == ["It is dry.", "It is dry, too."]
    assert output.rejects["reason"].to_pylist() == ["meta talk"]
    counted = {name: n for name, n in output.counters.items() if name.startswith("cleaned")}
    assert counted == {"cleaned_quotes": 3, "cleaned_label": 1, "cleaned_think_block": 1}
    assert output.counters["rows_scored"] == 3


def test_no_sentences_give_no_rows():
    output = triplets(TripletStage(make_config("fake", llm=FAKE)), make_sentences([]))
    assert output.rows.equals(SCORED.empty_table())
    assert output.rejects.num_rows == 0


class Counting(FakeEngine):
    """The fake engine, counting what it is asked to write and to score."""

    def __init__(self):
        super().__init__()
        self.written, self.scored = [], 0

    def generate_pairs(self, pairs, row_ids):
        self.written += row_ids
        return super().generate_pairs(pairs, row_ids)

    def label_probabilities(self, prompts, labels):
        self.scored += len(prompts) // 2
        return super().label_probabilities(prompts, labels)


def test_hypotheses_that_are_there_are_scored_and_not_written_again(premises, monkeypatch):
    sentences, engine = make_sentences(premises), Counting()
    monkeypatch.setattr(stage_module, "load_engine", lambda config: engine)
    stated = {"score": {"method": "llm_stated"}}
    whole = TripletStage(make_config("fake", llm=FAKE, **stated))(sentences).rows
    assert set(whole["reason"].drop_null().to_pylist()) == {
        "empty hypothesis",
        "copied hypothesis",
        "score unparsable",
    }
    both = TripletStage(make_config("fake", llm=FAKE, score={"method": "both"}))
    anew = both(sentences).rows
    engine.written, engine.scored = [], 0
    unscored = whole.drop_columns(list(SCORE_COLUMNS))
    for name in SCORE_COLUMNS:  # as the LLM cache gives rows that were scored with other settings
        unscored = unscored.append_column(WRITTEN.field(name), pa.nulls(len(whole), WRITTEN.field(name).type))
    output = both(sentences, unscored.slice(10))
    assert output.rows.equals(anew)
    assert engine.written == sentences["row_id"].to_pylist()[:10] or len(engine.written) == 10
    could_be_scored = anew["reason"].null_count
    assert engine.scored == could_be_scored
    assert output.counters["rows_written"] == 10
    assert output.counters["rows_scored"] == could_be_scored
    engine.written, engine.scored = [], 0
    assert both(sentences, anew).rows.equals(anew), "what has its scores costs nothing"
    assert (engine.written, engine.scored) == ([], 0)


def test_row_is_written_with_the_prompts_of_its_language_and_names_them(scripted, tmp_path):
    """A row whose language was another one when it was written is written again."""
    prompts = {**load_prompts("syncse").model_dump(), "name": "mine"}
    prompts["languages"] = {
        "tl": {"entailment": ["Sabihin ito nang iba."], "contradiction": ["Kontrahin ito."]}
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(prompts))
    stage, engine = scripted({}, generate={"prompts": str(path)})
    english = make_sentences(["It rains today.", "Umuulan ngayon."])
    mixed = english.set_column(
        english.column_names.index("language"), "language", pa.array(["en", "tl"], pa.string())
    )
    rows = stage(mixed).rows
    asked = {pair.premise: pair.entailment for pair in engine.pairs}
    assert "Sabihin ito nang iba." in asked["Umuulan ngayon."]
    assert "Sabihin" not in asked["It rains today."]
    assert rows["prompts"].to_pylist() == ["mine", "mine:tl"]
    assert rows["entailment_prompt"][1].as_py() == 0
    engine.pairs.clear()
    assert stage(english, rows).rows["prompts"].to_pylist() == ["mine", "mine"]
    assert [pair.premise for pair in engine.pairs] == ["Umuulan ngayon."]


def test_example_of_another_language_that_was_copied_is_a_reason(scripted):
    copied = done("Niemand füttert am Teich die Enten.")
    stage, _ = scripted({"Es regnet.": (done("Wasser fällt."), copied)}, generate={"prompts": "fewshot"})
    [row] = triplets(stage, make_sentences(["Es regnet."])).rejects.to_pylist()
    assert row["reason"] == "demonstration copied"
