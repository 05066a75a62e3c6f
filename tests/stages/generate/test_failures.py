"""An engine's failure is no result: it costs its row this version, and nothing that was written before it."""

import pytest

from multicsr.config import Config, ScoreConfig
from multicsr.errors import RunError
from multicsr.execution import stage_runner
from multicsr.llm.base import Completion, Rejection
from multicsr.llm.fake import FakeEngine
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.rows import Reason
from multicsr.stages.generate import fingerprint, planning, writing
from multicsr.stages.generate import triplets as stage_module
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current

LINES = [f"This is sentence number {i} out of many." for i in range(100)]


class Failing(FakeEngine):
    """The fake engine, failing on chosen sentences; an exception among `writing` or `scoring` is raised."""

    def __init__(self, rows_per_commit=None):
        super().__init__()
        self.rows_per_commit = rows_per_commit
        self.batch_size = 1 if rows_per_commit else None
        self.writing, self.scoring = {}, {}
        self.written, self.scored = [], 0

    def generate_pairs(self, pairs, row_ids):
        found = super().generate_pairs(pairs, row_ids)
        self.written += [pair.premise for pair in pairs]
        return [
            self._failure(self.writing, pair.premise) or each for pair, each in zip(pairs, found, strict=True)
        ]

    def label_probabilities(self, prompts, labels):
        self.scored += len(prompts) // 2
        found = super().label_probabilities(prompts, labels)
        return [
            self._failure(self.scoring, each) or result for each, result in zip(prompts, found, strict=True)
        ]

    def _failure(self, failures, text):
        failure = next((failure for part, failure in failures.items() if part in text), None)
        if isinstance(failure, Exception):
            raise failure
        return failure


FAILURE = Rejection(Reason.ENGINE_ERROR, "broken")


@pytest.fixture
def in_process(monkeypatch):
    """Do the work of Ray's workers in this process; returns a function that sets the engine."""

    def map_items(name, make, items, pool):
        work = make() if items else None
        for item in items:
            yield work(item)

    for module in (stage_runner, planning, writing):
        monkeypatch.setattr(module, "map_items", map_items)

    def use(engine):
        monkeypatch.setattr(stage_module, "load_engine", lambda config: engine)
        return engine

    return use


@pytest.fixture
def config(tmp_path):
    (tmp_path / "in.txt").write_text("\n".join(LINES) + "\n")
    return Config.model_validate(
        {
            "name": "t",
            "store": str(tmp_path / "store"),
            "input": {"paths": [str(tmp_path / "in.txt")]},
            "llm": {"engine": "fake"},
            "generate": {"rows_per_shard": 40},
        }
    )


def generate(config):
    """Return (the rows of the scored artifact by id, its manifest)."""
    full_run.run(config, SilentProgress(), until="generate")
    snapshot = current(Store.open(config.store))
    manifest = snapshot.manifest("scored")
    tables = [*iter_tables(snapshot.store, manifest), *iter_rejects(snapshot.store, manifest)]
    return {row["text"]: row for table in tables for row in table.to_pylist()}, manifest


@pytest.fixture
def healthy(config, in_process, tmp_path):
    """The rows of a run that nothing befell."""
    in_process(FakeEngine())
    return generate(config.model_copy(update={"store": str(tmp_path / "healthy")}))[0]


def test_a_failed_row_is_a_reject_of_one_version_and_asked_for_again(config, in_process, healthy):
    engine = in_process(Failing())
    engine.writing = {"number 7 out": FAILURE, "number 8 out": FAILURE}
    engine.scoring = {"number 9 out": FAILURE}
    rows, manifest = generate(config)
    failed = {text for text, row in rows.items() if row.get("reason") == "engine error"}
    assert failed == {LINES[7], LINES[8], LINES[9]}
    assert manifest.rejected["engine error"] == 3
    assert {text: row for text, row in rows.items() if text not in failed} == {
        text: row for text, row in healthy.items() if text not in failed
    }
    again, known = generate(config)
    assert again == rows
    assert known.fingerprint == manifest.fingerprint
    engine = in_process(Failing())
    rows, repaired = generate(config)
    assert rows == healthy
    assert repaired.fingerprint != manifest.fingerprint
    assert sorted(engine.written) == [LINES[7], LINES[8]], "of the third only the scores were missing"
    assert repaired.counters["rows_reused"] == 97
    engine.written = []
    generate(config)
    assert engine.written == []


@pytest.mark.parametrize("part", ["writing", "scoring"])
@pytest.mark.parametrize("rows_per_commit", [None, 4])
def test_a_job_that_ends_keeps_what_the_llm_has_done(config, in_process, healthy, part, rows_per_commit):
    engine = in_process(Failing(rows_per_commit))
    setattr(engine, part, {"number 71 out": RunError("the endpoint is gone")})
    with pytest.raises(RunError, match="the endpoint is gone"):
        generate(config)
    before = engine.written
    engine = in_process(Failing(rows_per_commit))
    assert generate(config)[0] == healthy
    twice = set(before) & set(engine.written)
    if part == "scoring":
        assert not twice
    elif rows_per_commit:
        assert twice == {LINES[71]}
    else:
        assert len(twice) <= 40, "the batch of the shard that failed"


def test_a_worker_that_takes_over_a_shard_does_only_what_is_missing(config, in_process, healthy, monkeypatch):
    """The plan was made before the other worker wrote, so it does not know of these rows."""
    engine = in_process(Failing(rows_per_commit=4))
    committed, lives = [], []
    commit = writing._commit

    def commit_or_die(store, cache_key, todo, rows):
        commit(store, cache_key, todo, rows)
        committed.append(rows)
        if len(committed) == 6:
            raise KeyboardInterrupt

    def map_items(name, make, items, pool):
        work = make() if items else None
        for item in items:
            try:
                yield work(item)
            except KeyboardInterrupt:
                lives.append(len(engine.written))
                yield work(item)

    monkeypatch.setattr(writing, "_commit", commit_or_die)
    monkeypatch.setattr(writing, "map_items", map_items)
    assert generate(config)[0] == healthy
    ids = [row_id for rows in committed for row_id in rows["row_id"].to_pylist()]
    assert len(lives) == 1
    assert len(ids) == len(set(ids)) == len(LINES), "no row was committed by both"


class Parrot(FakeEngine):
    """An engine that writes one entailment for every third premise."""

    def __init__(self):
        super().__init__()
        self.written = 0

    def generate_pairs(self, pairs, row_ids):
        self.written += len(pairs)
        found = super().generate_pairs(pairs, row_ids)
        return [
            (Completion("This is always so.", 4, finished=True), pair[1])
            if int(row_id, 16) % 3 == 0
            else pair
            for pair, row_id in zip(found, row_ids, strict=True)
        ]


def test_a_repeated_hypothesis_is_rejected_alike_whatever_was_written_together(config, in_process, tmp_path):
    generated = {"max_rejected": 1.0}
    engine = in_process(Parrot())
    several = config.model_copy(update={"generate": config.generate.model_copy(update=generated)})
    rows, manifest = generate(several)
    number = manifest.rejected["same hypothesis across rows"]
    assert number > 20
    one = {"rows_per_shard": 7, "batch_size": 3, **generated}
    sections = {"store": str(tmp_path / "other"), "generate": config.generate.model_copy(update=one)}
    assert generate(config.model_copy(update=sections))[0] == rows
    before, engine.written = engine.written, 0
    (tmp_path / "in.txt").write_text("\n".join([*LINES, "One sentence more than before."]) + "\n")
    again, grown = generate(several)
    assert before == 200
    assert engine.written == 1, "the verdict costs no call of the LLM"
    assert {text: row["reason"] for text, row in again.items() if text in rows and "reason" in row} == {
        text: row["reason"] for text, row in rows.items() if "reason" in row
    }
    assert grown.rejected["same hypothesis across rows"] in (number, number + 1)


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_such_a_share_stops_the_job_unless_the_maximum_is_one(config, in_process, share):
    engine = in_process(Parrot())
    update = {"max_rejected": share}
    config = config.model_copy(update={"generate": config.generate.model_copy(update=update)})
    if share == 1.0:
        engine.generate_pairs = lambda pairs, row_ids: [
            (Completion("Same.", 1, finished=True), Completion("Not same.", 2, finished=True)) for _ in pairs
        ]
        _, manifest = generate(config)
        assert manifest.rejected == {"same hypothesis across rows": 100}
        return
    with pytest.raises(RunError, match=r"max_rejected = 0.2 allows; mostly same hypothesis across rows"):
        generate(config)


def test_new_rules_for_hypotheses_cost_no_call_of_the_llm(config, in_process, healthy, monkeypatch):
    in_process(Failing())
    _, first = generate(config)
    monkeypatch.setattr(fingerprint, "HYPOTHESIS_RULES", 99)
    engine = in_process(Failing())
    rows, second = generate(config)
    assert rows == healthy
    assert second.fingerprint != first.fingerprint
    assert (engine.written, engine.scored) == ([], 0)
    config = config.model_copy(update={"score": ScoreConfig(method="both")})
    generate(config)
    assert engine.written == []
    assert engine.scored == second.rows_out, "other settings of scoring do cost it"
