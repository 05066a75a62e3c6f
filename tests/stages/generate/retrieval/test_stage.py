"""Demonstrations in the stage: whole runs without Ray, against a loop over cosines."""

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.hashing import checksum, hash_64
from multicsr.llm.base import Completion
from multicsr.llm.fake import FakeEngine
from multicsr.models.frozen_encoder import FrozenEncoder
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.pipeline.preflight import find_problems
from multicsr.rows import labelled_row_id, row_id
from multicsr.stages.generate import triplets as stage_module
from multicsr.stages.generate.few import write_few
from multicsr.stages.generate.fingerprint import writing_settings
from multicsr.stages.generate.retrieval import prepare, retriever
from multicsr.stages.generate.retrieval.encoder import load_encoder
from multicsr.stages.generate.retrieval.prepare import folders_of
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools.gc import clean_up
from tests.support.llm_rows import make_sentences
from tests.support.tiny_encoder import LETTERS, save_tiny_bert

pytestmark = pytest.mark.usefixtures("without_ray")
LINES = [f"The {animal} of house {number} sleeps." for animal in ("dog", "cat") for number in range(12)]
LABELLED = [
    *(
        (f"The dog of house {n}0 sleeps.", f"An animal rests in {n}0.", f"The dog {n}0 runs.")
        for n in range(9)
    ),
    ("the CAT of house 3 sleeps", "A cat is asleep at 3.", "The cat at 3 is awake."),
    ("The dog of house 5 sleeps.", "A dog is asleep at 5.", "The dog at 5 barks."),
    ("The dog of house 5 sleeps.", "There is a house 5.", "House 5 is empty."),
    *((f"Quantum wells {n}{n}{n}, GaAs!", f"Physics no {n}.", f"Cookery no {n}.") for n in range(5)),
]
COUNT, SIMILARITY = 3, 0.996


class Echo(FakeEngine):
    """An engine whose hypotheses are functions of their prompts, and which may end after some rows."""

    def __init__(self, rows_left: float = math.inf) -> None:
        super().__init__()
        self.pairs: dict = {}
        self.rows_left = rows_left

    def generate_pairs(self, pairs, row_ids):
        self.rows_left -= len(pairs)
        if self.rows_left < 0:
            raise RunError("the power is off")
        self.pairs.update(zip(row_ids, pairs, strict=True))
        return [
            (self._said(pair.entailment), self._said(f"It is not true that {pair.contradiction}"))
            for pair in pairs
        ]

    def _said(self, prompt):
        return Completion(f"It says {hash_64(prompt)} here.", 3, finished=True)


class Lines(SilentProgress):
    """Keeps what is announced."""

    def __init__(self) -> None:
        self.announced: list[str] = []

    def announce(self, message):
        self.announced.append(message)


@pytest.fixture(scope="session")
def letters_bert(tmp_path_factory):
    path = tmp_path_factory.mktemp("letters-bert")
    save_tiny_bert(path, LETTERS)
    return str(path)


@pytest.fixture
def engines(monkeypatch):
    """The engines of the stages in order, of which a test may give the next one."""
    made, following = [], []

    def load(config):
        made.append(following.pop() if following else Echo())
        return made[-1]

    monkeypatch.setattr(stage_module, "load_engine", load)
    return made, following


@pytest.fixture
def make(tmp_path, letters_bert, engines):
    """Makes the configuration of a run over LINES."""

    def configured(store="store", rows=LABELLED, shown=None, name="mine.jsonl", **generate) -> Config:
        (tmp_path / "in.txt").write_text("\n".join(LINES) + "\n")
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = {"count": COUNT, "similarity": SIMILARITY, "triplets": str(tmp_path / name)}
        demonstrations = settings | (shown or {})
        return Config.model_validate(
            {
                "name": "t",
                "store": str(tmp_path / store),
                "input": {"paths": [str(tmp_path / "in.txt")]},
                "llm": {"engine": "fake"},
                "generate": {"batch_size": 5, "demonstrations": demonstrations, **generate},
                "train": {"mask": {"model": letters_bert}},
            }
        )

    return configured


def generate(config):
    """All rows of the artifact, by id, and its counters."""
    full_run.run(config, SilentProgress(), until="generate")
    store = Store.open(config.store)
    manifest = current(store).manifest("scored")
    tables = [*iter_tables(store, manifest), *iter_rejects(store, manifest)]
    return {row["row_id"]: row for table in tables for row in table.to_pylist()}, manifest.counters


def nearest_by_loop(premise, letters_bert, count=COUNT, least=SIMILARITY):
    """The labelled triplets of the nearest premises, one cosine after the other."""
    encoder = FrozenEncoder(letters_bert, "P", "cpu")

    def plain(text):
        return text.casefold().rstrip(".")

    by_premise = {}
    for row in sorted(LABELLED, key=lambda row: labelled_row_id(*row)):
        by_premise.setdefault(plain(row[0]), row)
    x_D = encoder.embed([premise])[0].astype(np.float64)
    found = []
    for row in by_premise.values():
        y_D = encoder.embed([row[0]])[0].astype(np.float64)
        cosine = float(np.dot(x_D, y_D)) / math.sqrt(float(np.dot(x_D, x_D)) * float(np.dot(y_D, y_D)))
        if plain(row[0]) != plain(premise) and cosine >= least:
            found.append((-cosine, labelled_row_id(*row), row))
    return [row for _, _, row in sorted(found)[:count]]


def test_each_prompt_has_the_nearest_labelled_premises_with_its_own_hypotheses(make, engines, letters_bert):
    _, counters = generate(make())
    [engine] = engines[0]
    numbers = []
    for line in LINES:
        pair = engine.pairs[row_id(line, "en")]
        rows = nearest_by_loop(line, letters_bert)
        *shown, question = pair.entailment.split("\n\n")
        *opposite, _ = pair.contradiction.split("\n\n")
        assert [block.splitlines()[0] for block in shown] == [f"Sentence: {row[0]}" for row in rows]
        assert [block.splitlines()[-1] for block in shown] == [f"Answer: {row[1]}" for row in rows]
        assert [block.splitlines()[-1] for block in opposite] == [f"Answer: {row[2]}" for row in rows]
        assert question.startswith(f"Sentence: {line}\n")
        assert all("House 5" not in block and line not in block for block in shown)
        numbers.append(len(rows))
    assert {0, COUNT} < {*numbers}, "some have fewer, because the others are below the least cosine"
    assert counters["demonstrations"] == sum(numbers)
    assert counters["rows_without_demonstrations"] == numbers.count(0)


def test_rows_depend_on_no_shard_batch_or_block(make, monkeypatch):
    rows, _ = generate(make())
    monkeypatch.setattr(prepare, "_ROWS_PER_FILE", 3)
    assert generate(make("other", rows_per_shard=5, batch_size=2))[0] == rows


def test_a_run_that_ended_half_way_goes_on_to_the_rows_of_an_undisturbed_one(make, engines, monkeypatch):
    undisturbed, _ = generate(make("other"))
    _, following = engines
    following.append(Echo(rows_left=11))
    embedded = []
    embed = FrozenEncoder.embed
    monkeypatch.setattr(
        FrozenEncoder, "embed", lambda self, texts: embedded.append(texts) or embed(self, texts)
    )
    with pytest.raises(RunError, match="the power is off"):
        generate(make(rows_per_shard=5))
    assert sum(LABELLED[0][0] in texts for texts in embedded) == 1
    rows, counters = generate(make(rows_per_shard=5))
    assert rows == undisturbed
    assert counters["rows_reused"] == 10
    assert sum(LABELLED[0][0] in texts for texts in embedded) == 1, "its vectors were kept"


def test_blocks_of_another_size_are_other_files(make, monkeypatch, tmp_path):
    rows, _ = generate(make())
    monkeypatch.setattr(prepare, "_ROWS_PER_FILE", 3)
    again, _ = generate(make(omega=0.2))
    assert {key: row["entailment"] for key, row in again.items()} == {
        key: row["entailment"] for key, row in rows.items()
    }
    assert len([*(tmp_path / "store" / "demonstrations").iterdir()]) == 2


def test_demonstrations_are_found_for_one_batch_at_a_time(make, monkeypatch):
    calls = []
    retrieve = retriever.DemonstrationRetriever.__call__
    monkeypatch.setattr(
        retriever.DemonstrationRetriever,
        "__call__",
        lambda self, premises: calls.append(len(premises)) or retrieve(self, premises),
    )
    generate(make())
    assert max(calls) == 5
    assert sum(calls) == len(LINES)


def test_gc_keeps_the_vectors_that_a_kept_version_was_written_with(make, tmp_path):
    generate(make(rows=LABELLED[:9]))
    generate(make())
    needed = folders_of(current(Store.open(make().store)).manifest("scored").settings)
    old = {f"demonstrations/{path.name}" for path in (tmp_path / "store" / "demonstrations").iterdir()}
    assert len(old) == 2
    found = clean_up(make(), 1, -60.0, SilentProgress(), delete=True)
    kept = {
        f"demonstrations/{path.parent.name}"
        for path in (tmp_path / "store" / "demonstrations").rglob("*.parquet")
    }
    assert found.files["demonstrations"] == 1
    assert kept == old & needed


def test_damaged_vectors_are_computed_again(make, tmp_path, caplog):
    rows, _ = generate(make())
    (path,) = (tmp_path / "store" / "demonstrations").rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-9] + b"damaged!!")
    config = make(omega=0.2)
    again, _ = generate(config)
    assert "its vectors are computed again" in caplog.text
    assert {key: row["entailment"] for key, row in again.items()} == {
        key: row["entailment"] for key, row in rows.items()
    }
    assert checksum(path.read_bytes()) in path.name


def test_a_few_sentences_are_written_as_in_a_run(make, engines):
    generate(make("other"))
    few = write_few(
        make(), make_sentences(sorted(LINES[:3], key=lambda line: row_id(line, "en"))), SilentProgress()
    )
    first, second = engines[0]
    assert len(few.rows) == 3
    assert second.pairs.items() <= first.pairs.items()


def test_labelled_files_count_by_content_and_settings_and_encoder_by_value(make, tmp_path, letters_bert):
    def key(**changed):
        return writing_settings(make(**changed))

    base = key()
    assert key(name="other.jsonl", rows=LABELLED[::-1]) == base
    assert key(rows=[*LABELLED, ("It rains.", "It is wet.", "It is dry.")]) != base
    assert key(shown={"count": 2}) != base
    assert key(shown={"similarity": 0.8}) != base
    assert key(shown={"encoder": letters_bert}) == base, "the same P"
    assert key(shown={"encoder": letters_bert, "pooling": "cls"}) != base
    plain = make().model_copy(
        update={"generate": make().generate.model_copy(update={"demonstrations": None})}
    )
    assert writing_settings(plain) == {name: base[name] for name in base if name != "demonstrations"}


def test_a_hypothesis_out_of_a_demonstration_is_rejected(make, engines):
    class Copying(Echo):
        def _said(self, prompt):
            return Completion(prompt.split("\n\n")[0].split("Answer: ")[-1] or "Fine weather here.", 3, True)

    engines[1].append(Copying())
    rows, _ = generate(make(max_rejected=1.0))
    copied = [row for row in rows.values() if row["reason"] == "demonstration copied"]
    with_one = [
        line for line in LINES if engines[0][0].pairs[row_id(line, "en")].entailment.count("Answer:") > 1
    ]
    assert {row["text"] for row in copied} == set(with_one)
    config = make(max_rejected=1.0)
    scored_anew = config.score.model_copy(update={"max_new_tokens": config.score.max_new_tokens + 1})
    again, counters = generate(config.model_copy(update={"score": scored_anew}))
    assert counters["rows_written"] == 0
    assert {row["text"] for row in again.values() if row["reason"] == "demonstration copied"} == set(with_one)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"triplets": "./nowhere.tsv"}, "generate.demonstrations.triplets: no file ./nowhere.tsv"),
        ({"encoder": "./nowhere"}, "generate.demonstrations.encoder: no directory ./nowhere"),
    ],
)
def test_what_is_missing_is_found_before_the_run(make, settings, line):
    [problem] = find_problems(["generate"], make(shown=settings))
    assert str(problem).startswith(line)


def test_an_empty_file_is_found_before_the_run(make):
    [problem] = find_problems(["generate"], make(rows=[]))
    assert "mine.jsonl has no triplet at its beginning: it has no rows" in str(problem)


def test_a_file_of_pairs_is_found_before_the_run(make):
    [problem] = find_problems(["generate"], make(rows=[row[:2] for row in LABELLED]))
    assert "mine.jsonl has no triplet with a negative at its beginning" in str(problem)


def test_addresses_of_labelled_texts_reach_neither_llm_nor_store(make, engines, tmp_path):
    mails = [
        (f"The dog of house {n} sleeps, ann{n}@example.org.", f"An animal {n}@example.org.", f"No {n}.")
        for n in range(5)
    ]
    config = make(rows=mails, shown={"similarity": -1})
    redacted = config.ingest.model_copy(update={"redact": ["email"]})
    generate(config.model_copy(update={"ingest": redacted}))
    prompts = [prompt for pair in engines[0][0].pairs.values() for prompt in pair[:2]]
    assert all("[email]" in prompt and "@" not in prompt for prompt in prompts)
    [path] = (tmp_path / "store" / "demonstrations").rglob("*.parquet")
    assert not any("@" in text for text in pq.read_table(path)["text"].to_pylist())


def test_a_gpu_that_is_not_there_is_an_error_in_words(make, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch finds no GPU to find demonstrations on"):
        load_encoder(make(gpus_per_actor=1))


def test_prompts_with_masked_words_show_nothing(make):
    config = make(prompts="claif")
    [problem] = find_problems(["generate"], config)
    assert str(problem).startswith("generate.demonstrations: the prompt set claif asks to fill masked words")
    with pytest.raises(ConfigError, match="asks to fill masked words"):
        generate(config)


def test_leaked_labelled_triplets_are_reported_and_left_out_if_asked_for(make, tmp_path, engines, caplog):
    text = LABELLED[0][0]
    (tmp_path / "eval.tsv").write_text(
        f"anchor\tpositive\tnegative\n{text}\tSome positive text.\tOther text.\n"
    )
    config = make()
    measured = config.evaluate.model_copy(update={"data": [str(tmp_path / "eval.tsv")]})
    generate(config.model_copy(update={"evaluate": measured}))
    assert "of 17 triplets of generate.demonstrations.triplets are in labelled data" in caplog.text
    dropped = measured.model_copy(update={"drop_leaks": True})
    lines = Lines()
    full_run.run(config.model_copy(update={"evaluate": dropped}), lines, until="generate")
    [line] = [line for line in lines.announced if "generate.demonstrations.triplets are in" in line]
    assert line.endswith("; they are not shown")
    first, second = (
        {block for pair in engine.pairs.values() for block in pair.entailment.split("\n\n")}
        for engine in engines[0]
    )
    assert any(block.startswith(f"Sentence: {text}\n") for block in first)
    assert not any(f"Sentence: {text}\n" in block and "Answer: " in block for block in second)
