"""Triplets from sentences: order, conservation, reasons, scores, counters, fingerprint."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from multicsr.errors import RunError, WorkerLost
from multicsr.llm.base import Completion, Rejection, Usage
from multicsr.llm.fake import FakeEngine
from multicsr.rows import SCORED, Reason, rejects
from multicsr.stages.generate import triplets as stage_module
from multicsr.stages.generate.triplets import TripletStage, scoring_settings, writing_settings
from tests.support.llm_rows import make_sentences, triplets
from tests.support.tiny_llms import make_config

FAKE = {"engine": "fake"}


def done(text, finished=True):
    return Completion(text, len(text.split()), finished)


class Scripted:
    """An engine that says what the premise asks for."""

    batches_at_once = 1
    batch_size = None
    rows_per_commit = None

    def __init__(self, pairs, replies):
        self.usage = Usage()
        self._pairs, self._replies = pairs, replies
        self.batches = []

    def generate_pairs(self, pairs, row_ids):
        self.batches.append([pair.premise for pair in pairs])
        return [self._pairs.get(pair.premise, (done("Fine."), done("Not fine."))) for pair in pairs]

    def label_probabilities(self, prompts, labels):
        rejected = Rejection(Reason.PROMPT_TOO_LONG, "scoring")
        return [rejected if "Long hypothesis" in prompt else np.eye(6)[4] for prompt in prompts]

    def reply(self, prompts, row_ids, max_new_tokens):
        return [done(next((r for h, r in self._replies.items() if h in prompt), "4.5")) for prompt in prompts]


@pytest.fixture
def scripted(monkeypatch):
    """Make a stage whose engine follows a script."""

    def make(pairs, replies=None, **sections):
        engine = Scripted(pairs, replies or {})
        monkeypatch.setattr(stage_module, "load_engine", lambda config: engine)
        return TripletStage(make_config("m", llm=FAKE, **sections)), engine

    return make


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


@pytest.mark.parametrize("method", ["expected", "stated", "both"])
def test_a_row_is_rejected_where_no_score_is_there(scripted, method):
    pairs = {
        "Mute.": (done("Says nothing"), done("No.")),
        "Long.": (done("Long hypothesis"), done("No.")),
        "Both.": (done("Long hypothesis"), done("Says nothing")),
    }
    score = "stated" if method == "stated" else "expected"
    stage, _ = scripted(pairs, {"Says nothing": "similar"}, score={"method": method}, curate={"score": score})
    output = triplets(stage, make_sentences(["Good.", *pairs]))
    kept = {row["text"]: row for row in output.rows.to_pylist()}
    lost = {row["text"]: row["reason"] for row in output.rejects.to_pylist()}
    mute, long = {"Mute.": "score unparsable"}, {"Long.": "prompt too long"}
    assert (
        lost
        == {
            "expected": {**long, "Both.": "prompt too long"},
            "stated": {**mute, "Both.": "score unparsable"},
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


def test_only_the_asked_score_is_made(scripted):
    sentences = make_sentences(["It rains."])
    [row] = triplets(scripted({})[0], sentences).rows.to_pylist()
    assert row["entailment_stated"] is row["entailment_reply"] is None
    stage, _ = scripted({}, score={"method": "stated"}, curate={"score": "stated"})
    [row] = triplets(stage, sentences).rows.to_pylist()
    assert row["entailment_expected"] is None
    assert row["entailment_stated"] == 4.5


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


class Hurried(FakeEngine):
    """The fake engine, counting, with several batches in the air that end in any order."""

    batches_at_once = 4
    batch_size = 3

    def __init__(self):
        super().__init__()
        self._lock = threading.Lock()
        self._naps = random.Random(0)
        self._in_flight = 0
        self.most_in_flight = 0

    def generate_pairs(self, pairs, row_ids):
        assert len(pairs) <= self.batch_size
        with self._lock:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            nap = self._naps.random() / 200
        time.sleep(nap)
        found = super().generate_pairs(pairs, row_ids)
        with self._lock:
            self._in_flight -= 1
        return found

    def label_probabilities(self, prompts, labels):
        with self._lock:
            nap = self._naps.random() / 200
        time.sleep(nap)
        return super().label_probabilities(prompts, labels)


def amounts(*counters):
    """What was counted, all together; how long it took is another matter."""
    total = Counter()
    for counted in counters:
        total.update({name: amount for name, amount in counted.items() if not name.endswith("seconds")})
    return total


@pytest.fixture
def patient():
    """A stage that does one batch after the other."""
    return TripletStage(make_config("fake", llm=FAKE, score={"method": "both"}))


@pytest.fixture
def hurried(patient, monkeypatch):
    """(The same stage with several batches at once, its engine)."""
    engine = Hurried()
    monkeypatch.setattr(stage_module, "load_engine", lambda config: engine)
    return TripletStage(make_config("fake", llm=FAKE, score={"method": "both"})), engine


def test_batches_in_the_air_together_give_the_same_rows_and_counters(patient, hurried, premises):
    sentences = make_sentences(premises)
    expected = triplets(patient, sentences)
    stage, engine = hurried
    found = triplets(stage, sentences)
    assert found.rows.equals(expected.rows)
    assert found.rejects.equals(expected.rejects)
    assert found.rejects.num_rows > 3
    assert amounts(found.counters) == amounts(expected.counters)
    assert amounts(found.counters)["generated_tokens"] > 200
    assert 2 <= engine.most_in_flight <= 4


def test_calls_in_parallel_share_the_engine_and_lose_no_count(patient, hurried, premises):
    tables = [make_sentences(premises[:90]), make_sentences(premises[90:])]
    expected = [triplets(patient, table) for table in tables]
    stage, engine = hurried
    with ThreadPoolExecutor(2) as callers:
        found = list(callers.map(lambda table: triplets(stage, table), tables))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.rows.equals(theirs.rows)
        assert ours.rejects.equals(theirs.rejects)
    assert amounts(*(output.counters for output in found)) == amounts(
        *(output.counters for output in expected)
    )
    assert engine.most_in_flight <= 4


def test_a_batch_that_fails_fails_the_call(hurried, premises, monkeypatch):
    stage, engine = hurried

    def fail(prompts, row_ids, max_new_tokens):
        raise WorkerLost("gone")

    monkeypatch.setattr(engine, "reply", fail)
    with pytest.raises(WorkerLost, match="gone"):
        stage(make_sentences(premises[:20]))


class Paid(FakeEngine):
    """The fake engine as an endpoint would be: a row at a time, committed in pieces; it may fail."""

    batches_at_once = 4
    batch_size = 1
    rows_per_commit = 8

    def __init__(self, fails_on=()):
        super().__init__()
        self._fails_on = fails_on
        self.written = []

    def generate_pairs(self, pairs, row_ids):
        self.written += row_ids
        return super().generate_pairs(pairs, row_ids)

    def label_probabilities(self, prompts, labels):
        if any(text in prompt for text in self._fails_on for prompt in prompts):
            raise RunError("gone")
        return super().label_probabilities(prompts, labels)


def test_what_is_paid_for_is_handed_out_as_it_comes(premises, monkeypatch):
    monkeypatch.setattr(stage_module, "load_engine", lambda config: Paid())
    sentences = make_sentences(premises)
    stage = TripletStage(make_config("fake", llm=FAKE))
    pieces = [piece.rows for piece in stage.pieces(sentences)]
    assert [piece.num_rows for piece in pieces] == [8] * 25
    for piece in pieces:
        assert piece["row_id"].to_pylist() == sorted(piece["row_id"].to_pylist())
    whole = TripletStage(make_config("fake", llm=FAKE))(sentences).rows
    assert pa.concat_tables(pieces).sort_by("row_id").equals(whole.sort_by("row_id"))


def test_a_failure_costs_what_was_in_flight_and_keeps_what_was_written(premises, monkeypatch):
    engine = Paid(fails_on=[sorted(premises, key=len, reverse=True)[100]])
    monkeypatch.setattr(stage_module, "load_engine", lambda config: engine)
    stage, pieces = TripletStage(make_config("fake", llm=FAKE)), []
    with pytest.raises(RunError, match="gone"):
        pieces.extend(stage.pieces(make_sentences(premises)))
    rows = pa.concat_tables(piece.rows for piece in pieces).to_pylist()
    assert sorted(row["row_id"] for row in rows) == sorted(engine.written), "of what was written all is kept"
    assert 100 <= len(rows) < len(premises), "what had not begun was dropped"
    [failed] = [row for row in rows if row["reason"] == "engine error"]
    assert failed["entailment"]
    assert failed["entailment_expected"] is None


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
    stated = {"score": {"method": "stated"}, "curate": {"score": "stated"}}
    whole = TripletStage(make_config("fake", llm=FAKE, **stated))(sentences).rows
    assert set(whole["reason"].drop_null().to_pylist()) == {
        "empty hypothesis",
        "copied hypothesis",
        "score unparsable",
    }
    both = TripletStage(make_config("fake", llm=FAKE, score={"method": "both"}))
    anew = both(sentences).rows
    engine.written, engine.scored = [], 0
    output = both(sentences, whole.slice(10))
    assert output.rows.equals(anew)
    assert engine.written == sentences["row_id"].to_pylist()[:10] or len(engine.written) == 10
    could_be_scored = anew["reason"].null_count
    assert engine.scored == could_be_scored
    assert output.counters["rows_written"] == 10
    assert output.counters["rows_scored"] == could_be_scored


def test_the_settings_follow_what_decides_the_rows_and_nothing_else(causal_dir, tmp_path):
    def settings(model, **sections):
        config = make_config(model, **sections)
        return writing_settings(config), scoring_settings(config)

    writing, scoring = settings(causal_dir)
    same = {
        "generate": {"actors": 3, "batch_size": 7, "cpus_per_actor": 2, "rows_per_shard": 9},
        "curate": {"alpha": 4},
    }
    assert settings(causal_dir, **same) == (writing, scoring)
    for change in (
        {"generate": {"omega": 0.2}},
        {"generate": {"max_new_tokens": 5}},
        {"generate": {"min_new_tokens": 2}},
        {"generate": {"bad_words": ["not"]}},
        {"llm": {"dtype": "bfloat16"}},
        {"seed": 5},
    ):
        assert settings(causal_dir, **change)[0] != writing, change
        assert settings(causal_dir, **change)[1] == scoring, change
    assert settings(causal_dir, score={"method": "both"})[0] == writing
    assert settings(causal_dir, score={"method": "both"})[1] != scoring
    endpoint = {"llm": {"engine": "openai", "base_url": "http://x/v1"}, "generate": {"omega": 0.0}}
    stated = {"score": {"method": "stated"}, "curate": {"score": "stated"}}
    rules = [settings("m", **endpoint)[1]["rules"], settings(causal_dir, **stated)[1]["rules"]]
    assert [scoring["rules"].keys() - rule.keys() for rule in rules] == [{"labels"}] * 2
    other = settings(causal_dir, generate={"prompts": "reference"})
    assert other[0] != writing
    assert other[1] != scoring
    copy = tmp_path / "model"
    copy.mkdir()
    for path in causal_dir.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    weights = writing["weights"]
    assert settings(copy)[0]["weights"] == weights
    (copy / "model.safetensors").write_bytes(b"other")
    assert settings(copy)[0]["weights"] != weights
