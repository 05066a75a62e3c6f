"""`multicsr preview`: it shows what the run makes, the run does not pay twice, nothing else is left."""

import pyarrow as pa
import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.rows import Reason
from multicsr.storage.lease import held
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import Log, current, versions
from multicsr.tools.gc import clean_up
from multicsr.tools.preview import lines, preview
from multicsr.tools.preview import sample as sample_module
from multicsr.tools.preview.advice import advice, stage
from multicsr.tools.preview.sample import sample_corpus

NUM = 120
"""Sentences of the corpus."""


@pytest.fixture(autouse=True)
def _without_ray(without_ray):
    """Let the stages work in this process."""


@pytest.fixture
def config(tmp_path) -> Config:
    """A run on three files with the fake engine; its store is empty."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        texts = [f"Sentence {n} of file {number} is about a thing." for n in range(number, NUM, 3)]
        (tmp_path / f"in/{number}.txt").write_text("\n".join([*texts, "Too short."]) + "\n")
    return with_settings(tmp_path)


def with_settings(folder, **sections) -> Config:
    tree = {
        "name": "looked-at",
        "store": str(folder / "store"),
        "input": {"paths": [str(folder / "in")]},
        "llm": {"engine": "fake"},
        "generate": {"rows_per_shard": 50},
    }
    return Config.model_validate(tree | sections)


def look(config: Config, rows: int = 30):
    return preview(config, rows, SilentProgress())


def test_run_after_preview_asks_the_llm_for_the_other_rows_only(config):
    look(config)
    full_run.run(config, SilentProgress(), until="generate")
    counters = current(Store.of(config)).manifest("scored").counters
    assert (counters["rows_reused"], counters["rows_written"]) == (30, NUM - 30)


def test_preview_shows_what_the_run_decides(config):
    found = look(config)
    full_run.run(config, SilentProgress(), until="curate")
    snapshot = current(Store.of(config))
    curated = snapshot.manifest("curated")
    texts = dict(_triplets(pa.concat_tables(iter_tables(snapshot.store, curated))))
    assert found.report.kept
    for row in found.report.kept:
        assert texts[row.row_id] == (row.entailment, row.contradiction)
    reasons = {
        row_id: reason
        for artifact in ("scored", "curated")
        for table in iter_rejects(snapshot.store, snapshot.manifest(artifact))
        for row_id, reason in zip(table["row_id"].to_pylist(), table["reason"].to_pylist(), strict=True)
    }
    of_rows = [each for each in found.report.rejected if each.row.row_id is not None]
    assert of_rows
    assert all(reasons[each.row.row_id] == each.reason for each in of_rows)


def _triplets(table):
    columns = (table[name].to_pylist() for name in ("row_id", "entailment", "contradiction"))
    return ((row_id, (one, other)) for row_id, one, other in zip(*columns, strict=True))


def test_second_preview_reuses_and_adds(config):
    assert look(config).results.num_reused == 0
    assert look(config).results.num_reused == 30
    more = look(config, 50)
    assert (more.results.num_reused, more.results.counters["rows_written"]) == (30, 20)


def test_other_settings_of_the_llm_are_asked_anew(config, tmp_path):
    look(config)
    assert look(with_settings(tmp_path, generate={"omega": 0.2})).results.num_reused == 0


def test_rows_of_a_run_are_reused(config):
    full_run.run(config, SilentProgress(), until="generate")
    assert look(config).results.num_reused == 30


def test_nothing_is_published_and_gc_knows_what_is_left(config):
    look(config)
    store = Store.of(config)
    assert versions(store) == []
    assert Log(store).last() == 0
    assert {name.partition("/")[0] for name in store.names("")} == {"llm_cache", "refresh"}
    clean_up(config, 1, 0, SilentProgress(), delete=True, unused_llm_output=True)
    assert store.names("llm_cache") == []


def test_preview_neither_waits_for_a_job_nor_disturbs_it(config):
    with held(Store.of(config), "another job", 600, SilentProgress()) as lease:
        look(config)
        lease.check()


def test_same_sample_each_time_and_from_every_file(config):
    first, second = sample_corpus(config), sample_corpus(config)
    assert first.sentences.equals(second.sentences)
    assert set(first.sentences["source"].to_pylist()) == {"0.txt", "1.txt", "2.txt"}
    chosen = look(config).results.rows["row_id"].to_pylist()
    assert sorted(chosen) == sorted(first.sentences["row_id"].to_pylist())[:30]


def test_few_records_are_read_of_few_files(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for number in range(60):
        lines_of_file = [f"Sentence {n} of file {number} is about a thing." for n in range(90)]
        (tmp_path / f"in/{number:02d}.txt").write_text("\n".join(lines_of_file))
    monkeypatch.setattr(sample_module, "_RECORDS", 100)
    found = sample_corpus(with_settings(tmp_path))
    assert (found.num_files, found.files_in_all) == (20, 60)
    assert len(found.sentences) == 100
    assert set(found.sentences["source"].to_pylist()) == {f"{number:02d}.txt" for number in range(0, 60, 3)}


def test_counts_add_up(config):
    found = look(config)
    assert [(each.artifact, each.rows_in) for each in found.report.stages] == [
        ("sentences", NUM + 3),
        ("scored", 30),
        ("curated", stage(found, "scored").rows_out),
    ]
    assert all(each.rows_in == each.rows_out + each.num_rejected for each in found.report.stages)


def test_text_has_every_part(config):
    shown = "\n".join(lines(look(config)))
    for words in (
        "Kept triplets",
        "ingest, too short: 2 words",
        "junk ",
        "a > b in",
        "alpha 3, beta 3, gamma 1",
        "tokens a row",
        "lexical bias",
        "all records were read",
        "llm.engine is fake: texts and scores are made up",
    ):
        assert words in shown, shown


def test_nothing_kept_is_advice_and_no_error(config, tmp_path):
    found = look(with_settings(tmp_path, curate={"alpha": 4.99}))
    assert any("curate.keep_share=0.5" in line for line in advice(found)), advice(found)
    assert "  none" in "\n".join(lines(found))


def test_thresholds_of_a_share_are_shown(config, tmp_path):
    shown = "\n".join(lines(look(with_settings(tmp_path, curate={"keep_share": 0.2}))))
    assert "by curate.keep_share 0.2" in shown


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"ingest": {"max_words": 5}}, None),
        ({"ingest": {"min_words": 1, "max_words": 3}}, "set ingest.max_words, to 9"),
        ({"ingest": {"min_words": 9, "max_rejected": 0.01}}, "ingest.max_rejected 0.01"),
        ({"generate": {"max_rejected": 0.0}}, "generate.max_rejected 0"),
        ({"curate": {"alpha": 4.7, "beta": 0.5}}, "curate."),
    ],
)
def test_bad_figures_name_the_setting(config, tmp_path, sections, words):
    changed = with_settings(tmp_path, **sections)
    if words is None:
        with pytest.raises(RunError, match="none of the first 123 records is usable: too long 120"):
            look(changed)
    else:
        assert any(words in line for line in advice(look(changed))), advice(look(changed))


def test_small_corpus_that_fills_no_batch_is_reported(config, tmp_path, monkeypatch):
    found = look(config)
    kept = stage(found, "curated").rows_out * NUM / 30
    assert found.corpus.is_whole
    assert any(f"keep some {kept:,.0f} triplets of all 120 sentences" in line for line in advice(found))
    assert "all records were read" in "\n".join(lines(found))
    enough = look(with_settings(tmp_path, train={"global_batch": 2}))
    assert not any("train.global_batch" in line for line in advice(enough))
    monkeypatch.setattr(sample_module, "_RECORDS", 60)
    part = look(config)
    assert not part.corpus.is_whole
    assert "3 of 3 files were read, from their start" in "\n".join(lines(part))
    assert not any("train.global_batch" in line for line in advice(part))


def test_scores_at_chance_are_reported(config, monkeypatch):
    from multicsr.llm.fake import FakeEngine

    honest = FakeEngine.label_probabilities
    monkeypatch.setattr(
        FakeEngine,
        "label_probabilities",
        lambda self, prompts, labels: [honest(self, prompts[:1], labels)[0]] * len(prompts),
    )
    assert any("take a larger llm.model" in line for line in advice(look(config)))


def test_junk_is_counted(config, monkeypatch):
    from multicsr.llm.base import Completion
    from multicsr.llm.fake import FakeEngine

    junk = Completion("As an AI language model, I cannot help with that.", 9, True)
    monkeypatch.setattr(
        FakeEngine, "generate_pairs", lambda self, pairs, row_ids: [(junk, junk) for _ in pairs]
    )
    found = look(config)
    assert dict(stage(found, "scored").rejected) == {Reason.DECLINED: 30}
    assert any("100% of what the LLM writes is junk" in line for line in advice(found))


def test_problems_are_found_before_anything_is_read(config, tmp_path):
    with pytest.raises(ConfigError, match=r"generate\.prompts"):
        look(with_settings(tmp_path, generate={"prompts": "./none.yaml"}))
    assert not (tmp_path / "store").exists()


def test_balance_of_words_shows_in_a_run_alone(config, tmp_path):
    """The words of few rows are too rare to lean to one side."""
    balanced = with_settings(tmp_path, curate={"max_word_ratio": 2})
    assert "max_word_ratio" not in "\n".join(lines(look(config)))
    assert "curate.max_word_ratio 2 rejects more in a run" in "\n".join(lines(look(balanced)))


@pytest.fixture
def unlike(tmp_path) -> Config:
    """A run on sentences of which no two differ by one word."""
    (tmp_path / "in").mkdir()
    texts = [f"Thing{n} of kind{n} and sort{n} is here." for n in range(NUM)]
    (tmp_path / "in/0.txt").write_text("\n".join(texts) + "\n")
    return with_settings(tmp_path)


def labelled(tmp_path, texts) -> str:
    rows = [f"{text.upper()}\tsomething else {n}\tanother thing {n}" for n, text in enumerate(texts)]
    (tmp_path / "test.tsv").write_text("\n".join(["anchor\tpositive\tnegative", *rows]) + "\n")
    return str(tmp_path / "test.tsv")


def test_leaked_premises_are_counted_and_go_to_the_llm_unless_a_run_drops_them(unlike, tmp_path):
    texts = sample_corpus(unlike).sentences["text"].to_pylist()
    data = labelled(tmp_path, [texts[0], texts[3], texts[NUM - 1]])
    told = with_settings(tmp_path, evaluate={"data": [data]})
    found = look(told)
    assert (
        found.results.rows["row_id"].to_pylist() == sorted(found.corpus.sentences["row_id"].to_pylist())[:30]
    )
    assert [
        line for line in lines(found) if "3 of 120 sentences are in labelled data: test 3; --drop" in line
    ]

    dropping = with_settings(tmp_path, evaluate={"data": [data], "drop_leaks": True})
    found = look(dropping)
    [line] = [line for line in lines(found) if "are in labelled data" in line]
    assert line.endswith("test 3; they are left out, and a run rejects them as leaked")
    shown = [*lines(found)]
    assert shown[shown.index(line) + 1].strip() == f"{texts[0]!r} is {texts[0].upper()!r} of test"
    assert len(found.corpus.usable) == NUM - 3
    full_run.run(dropping, SilentProgress(), until="generate")
    scored = current(Store.of(dropping)).manifest("scored")
    assert scored.counters["rows_written"] == NUM - 3 - 30


def test_a_sample_that_leaks_as_a_whole_is_an_error(unlike, tmp_path):
    data = labelled(tmp_path, sample_corpus(unlike).sentences["text"].to_pylist())
    dropping = with_settings(tmp_path, evaluate={"data": [data], "drop_leaks": True})
    with pytest.raises(RunError, match=r"evaluate\.drop_leaks: labelled data have all 120 sentences"):
        look(dropping)
