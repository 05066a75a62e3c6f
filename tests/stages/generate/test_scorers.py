"""Scorers by name through the stages: the columns they fill, their cost, and what calibration changes."""

import logging
import random

import numpy as np
import pyarrow as pa
import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.models.frozen_encoder import FrozenEncoder
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.rows import SCORED
from multicsr.stages.curate.curation import Curation
from multicsr.stages.generate import calibrate as calibrate_module
from multicsr.stages.generate.triplets import TripletStage
from multicsr.stages.score.by_encoder import EncoderScorer
from multicsr.storage.manifest import iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from tests.support.llm_rows import make_sentences
from tests.support.tiny_encoder import save_tiny_classifier
from tests.support.tiny_encoders import WORDS
from tests.support.tiny_llms import make_config

SCORES = ("entailment_expected", "contradiction_expected")
LINES = [f"This is sentence number {i} out of many." for i in range(60)]


@pytest.fixture
def run(tmp_path, without_ray):
    """Run the stages up to one of them in one store; return the rows of its artifact and its manifest."""
    (tmp_path / "in.txt").write_text("\n".join(LINES) + "\n")

    def make(until="generate", **sections):
        tree = {
            "name": "t",
            "store": str(tmp_path / "store"),
            "input": {"paths": [str(tmp_path / "in.txt")]},
            "llm": {"engine": "fake"},
        }
        config = Config.model_validate({**tree, **sections})
        full_run.run(config, SilentProgress(), until=until)
        store = Store.of(config)
        manifest = current(store).manifest({"generate": "scored", "curate": "curated"}[until])
        rows = [row for table in iter_tables(store, manifest) for row in table.to_pylist()]
        return {row["row_id"]: row for row in rows}, manifest

    return make


def write_pairs(path, sign=1.0, number=80):
    """Pairs that people scored as the fake LLM does on average, or the other way round, or at random."""
    draw = random.Random(5)
    lines = ["score\tsentence1\tsentence2"]
    for index in range(number):
        denies = index % 2
        score = 2.5 + sign * (1.0 if not denies else -1.0) + draw.uniform(-1.4, 1.4)
        lines.append(f"{score:.2f}\tThing {index}.\t{'It is not true that ' if denies else ''}thing {index}.")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_another_scorer_costs_no_writing(run):
    first, _ = run()
    second, manifest = run(score={"method": "encoder"})
    assert manifest.counters["rows_written"] == 0
    assert manifest.counters["rows_scored"] == len(second) == len(first)
    scorer = EncoderScorer(FrozenEncoder("all-MiniLM-L6-v2", "score.model", "cpu"))
    for row_id, row in second.items():
        assert row["entailment"] == first[row_id]["entailment"]
        assert row["entailment_expected"] is row["entailment_stated"] is row["entailment_reply"] is None
        assert first[row_id]["entailment_model"] is None
    pairs = [(row["text"], row[side]) for row in second.values() for side in ("entailment", "contradiction")]
    scores = [score.value for score in scorer.score(pairs, [""] * len(pairs))]
    stored = [row[f"{side}_model"] for row in second.values() for side in ("entailment", "contradiction")]
    assert stored == pytest.approx(scores, abs=1e-6)
    assert run()[0] == first


def test_the_scores_of_a_cross_encoder_decide(run, tmp_path):
    path = save_tiny_classifier(tmp_path / "nli", WORDS, ["entailment", "neutral", "contradiction"])
    nli = {"score": {"method": "nli", "model": str(path)}, "curate": {"keep_share": 0.3}}
    rows, manifest = run("curate", **nli)
    assert manifest.settings["curate"]["score"] == "nli"
    assert {"rows_with_scores", "rows_with_a_above_b"} <= manifest.counters.keys()
    for row in rows.values():
        assert (row["a"], row["b"]) == (row["entailment_model"], row["contradiction_model"])


def test_another_llm_scores_with_its_own_tokenizer(causal_dir, premises):
    """Its scores are those that it gives the same hypotheses when it is the LLM of a run."""
    sentences = make_sentences(sorted(premises, key=len)[:8])
    writer = TripletStage(make_config("tinylm"))
    alone = writer(sentences).rows
    judged = TripletStage(make_config("tinylm", score={"model": str(causal_dir)}))(sentences).rows
    for name in ("entailment", "contradiction"):
        assert judged[name].to_pylist() == alone[name].to_pylist()
    unscored = alone
    for name in SCORES:
        nulls = pa.nulls(alone.num_rows, pa.float32())
        unscored = unscored.set_column(alone.column_names.index(name), alone.field(name), nulls)
    again = TripletStage(make_config(causal_dir))(sentences, unscored).rows
    for name in SCORES:
        assert judged[name].to_pylist() == again[name].to_pylist()
        assert judged[name].null_count < 6, "the context of the random model is short"
        assert judged[name].to_pylist() != alone[name].to_pylist()


def test_calibration_maps_what_curation_reads_and_leaves_the_rows(run, tmp_path, monkeypatch):
    plain, before = run()
    pairs = write_pairs(tmp_path / "pairs.tsv")
    rows, scored = run(score={"calibrate": pairs})
    assert rows == plain
    assert scored.fingerprint == before.fingerprint, "no row is written or scored again"
    monkeypatch.setattr(calibrate_module, "pair_scorer", lambda config: pytest.fail("pairs are scored once"))
    curated, manifest = run(
        "curate", score={"calibrate": pairs}, curate={"alpha": 3, "beta": 3, "gamma": 0.5}
    )
    curation = Curation.stored(manifest)
    assert curation is not None
    assert curation.calibration is not None
    assert curation.calibration.num_pairs == 80
    assert not curation.calibration.is_chance
    for row in curated.values():
        raw = np.array([row["entailment_expected"], row["contradiction_expected"]]).round(4)
        assert [row["a"], row["b"]] == pytest.approx(curation.calibration.apply(raw), abs=1e-4)
    assert any(row["a"] != row["entailment_expected"] for row in curated.values())
    assert run("curate")[1].fingerprint != manifest.fingerprint


def test_calibration_that_cannot_work_ends_before_anything_is_written(run, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.tsv", -1.0)
    with pytest.raises(RunError, match=r"score\.calibrate: the scores do not rise with those of people"):
        run(score={"calibrate": pairs})
    assert not (tmp_path / "store" / "llm_cache").exists()


def test_scores_unrelated_to_people_are_a_warning(run, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run(score={"calibrate": write_pairs(tmp_path / "pairs.tsv", 0.0)})
    assert "the scores may be unrelated to those of people: Spearman" in caplog.text


def test_curation_needs_pairs_that_this_scorer_scored(run, tmp_path):
    run()
    pairs = write_pairs(tmp_path / "pairs.tsv")
    config = make_config("m", llm={"engine": "fake"}, score={"calibrate": pairs})
    store = Store.open(str(tmp_path / "store"))
    with pytest.raises(ConfigError, match="has not scored these pairs; run `multicsr generate`"):
        Curation.of(config, store, current(store).manifest("scored"))


def test_words_are_balanced_through_the_stage(run, monkeypatch):
    """All contradictions of the fake LLM begin with words that no entailment has."""
    rows, manifest = run("curate", curate={"max_word_ratio": 20})
    assert manifest.rejected["lexical bias"] > 0
    everything, _ = run("curate")
    assert len(rows) + manifest.rejected["lexical bias"] == len(everything)
    monkeypatch.setattr("multicsr.stages.curate.balance._draw", lambda row_id: 0.999)
    with pytest.raises(RunError, match=r"rows that pass the thresholds are rejected .*max_word_ratio \(1\)"):
        run("curate", curate={"max_word_ratio": 1})


def test_files_from_before_a_column_was_added_are_read(run, tmp_path, monkeypatch):
    """Written by an earlier version, scored rows have no columns for the scores of other models."""
    from multicsr.stages.generate import assembling

    early = SCORED
    for name in ("entailment_model", "contradiction_model"):
        early = early.remove(early.get_field_index(name))
    with monkeypatch.context() as patch:
        contract = assembling.Contract("generate", "scored", assembling.SENTENCE, early)
        patch.setattr(assembling, "CONTRACT", contract)
        patch.setattr(assembling, "SCORED", early)
        patch.setattr("multicsr.rows.SCORED", early)
        old, _ = run()
    assert "entailment_model" not in next(iter(old.values()))
    curated, manifest = run("curate")
    assert manifest.rows_in == len(old)
    assert {row["entailment_model"] for row in curated.values()} == {None}
