"""A corpus that the LLM writes: a function of settings and numbers, whatever was killed in between."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.llm.base import Completion, Rejection
from multicsr.llm.fake import FakeEngine
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.rows import Reason
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools.premises import run
from multicsr.tools.premises.topics import Topics, load_topics
from tests.support.jobs_here import jobs_here


def config(folder: Path, **more: object) -> Config:
    tree = {"name": "scratch", "store": str(folder / "store"), "llm": {"engine": "fake"}}
    tree |= {"input": {"paths": [str(folder / "premises")], "column": "text"}}
    return Config.model_validate(tree | more)


def write(folder: Path, rows: int, progress: SilentProgress | None = None, **more: object) -> dict[str, str]:
    """Write sentences and return the texts of all files."""
    with jobs_here():
        place = run.write_premises(config(folder, **more), rows, progress or SilentProgress())
    return contents(place)


def contents(place: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(place.glob("*.jsonl"))}


class KilledAfterOne(SilentProgress):
    """Ends the command after the first file."""

    def advance(self, amount: float = 1) -> None:
        raise KeyboardInterrupt


def test_a_killed_command_goes_on_to_the_undisturbed_result(tmp_path):
    undisturbed = write(tmp_path / "a", 250)
    assert list(undisturbed) == ["00000000.jsonl", "00000001.jsonl", "00000002.jsonl"]
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "b", 250, KilledAfterOne())
    assert len(contents(tmp_path / "b" / "premises")) == 1
    assert write(tmp_path / "b", 250) == undisturbed


def test_demonstrations_of_a_run_have_no_effect(tmp_path):
    labelled = tmp_path / "labelled.tsv"
    labelled.write_text("anchor\tpositive\tnegative\nIt rains.\tIt is wet.\tIt is dry.\n")
    first = write(tmp_path, 100, generate={"demonstrations": {"triplets": str(labelled)}})
    labelled.unlink()
    assert write(tmp_path, 100, generate={"demonstrations": {"triplets": str(labelled)}}) == first
    assert write(tmp_path, 100) == first


def test_more_rows_add_files_and_files_that_are_there_stay(tmp_path):
    first = write(tmp_path, 100)
    path = tmp_path / "premises/00000000.jsonl"
    path.write_text("mine")
    assert write(tmp_path, 101).keys() == first.keys() | {"00000001.jsonl"}
    assert path.read_text() == "mine"


def test_sentences_are_those_of_the_engine_for_the_prompts_of_their_numbers(tmp_path):
    rows = [json.loads(line) for line in write(tmp_path, 100)["00000000.jsonl"].splitlines()]
    topics, engine = load_topics(None), FakeEngine()
    for number, row in enumerate(rows):
        assert (row["genre"], row["topic"], row["form"]) == slow_assignment(topics, number, 42)
    asked = [
        [Completion(row["text"], 1, True) for row in rows[start : start + 2]] for start in range(0, 100, 2)
    ]
    pairs = [run.PromptPair("", "", 0, 0, "") for _ in asked]
    expected = engine.generate_pairs(pairs, [f"premise:{number}" for number in range(0, 100, 2)])
    texts = [(one.text.strip(), other.text.strip()) for one, other in expected]
    assert [(one.text, other.text) for one, other in asked] == texts


def slow_assignment(topics: Topics, number: int, seed: int) -> tuple[str, str, str]:
    """Genre, topic and form drawn by BLAKE2b, written anew."""

    def draw(what: str, options: list[str]) -> str:
        digest = hashlib.blake2b(f"{seed}:{number}:{what}".encode(), digest_size=8).digest()
        return options[int.from_bytes(digest, "big") % len(options)]

    genre = draw("genre", [*topics.genres])
    return genre, draw("topic", topics.genres[genre]), draw("form", topics.forms)


def test_every_genre_topic_and_form_comes_up():
    topics = load_topics(None)
    drawn = [topics.assignment(number, 1) for number in range(6000)]
    genres, forms = Counter(each.genre for each in drawn), Counter(each.form for each in drawn)
    assert genres.keys() == topics.genres.keys()
    assert min(genres.values()) > 6000 / len(topics.genres) / 1.5
    assert forms.keys() == set(topics.forms)
    pairs = {(each.genre, each.topic) for each in drawn}
    assert len(pairs) == sum(map(len, topics.genres.values()))


def test_prompt_byte_for_byte():
    topics = load_topics(None)
    subject = topics.assignment(0, 42)._replace(genre="a novel", topic="winter", form="short")
    assert topics.prompt(subject) == (
        "Write one short sentence that could stand in a novel about winter. Answer with the sentence alone.\n"
        "Sentence:"
    )


def test_folder_of_other_settings_is_left_alone(tmp_path):
    before = write(tmp_path, 100)
    others: list[dict[str, object]] = [
        {"seed": 7},
        {"generate": {"max_new_tokens": 9}},
        {"generate": {"min_new_tokens": 2}},
        {"generate": {"prompts": "reference"}},
    ]
    message = (
        r"has sentences of another LLM, prompt set, seed, .*min_new_tokens, max_new_tokens\), .*bad_words"
    )
    for other in others:
        with pytest.raises(ConfigError, match=message):
            write(tmp_path, 200, **other)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"other is not empty and was not written by"):
        write(tmp_path, 100, input={"paths": [str(tmp_path / "other")], "column": "text"})
    assert contents(tmp_path / "premises") == before


@pytest.mark.parametrize(
    "place", ["sentences.txt", "a.jsonl.gz", "a.gz", "a.zip", "*.txt", "corpus/**", "s3://bucket/premises"]
)
def test_a_place_that_is_no_folder_is_rejected_before_the_llm_is_asked(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^input\.paths: .* is no single folder .*; give --out FOLDER$"):
        write(tmp_path, 100, input={"paths": [place], "column": "text"})
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "input.column: unset; set it to text"),
        ({"column": "sentence"}, "input.column: sentence; set it to text"),
        ({"column": "text", "format": "csv"}, "input.format: csv; set it to jsonl"),
    ],
)
def test_settings_that_would_not_read_the_sentences_are_rejected(more, message, tmp_path):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        write(tmp_path, 100, input={"paths": [str(tmp_path / "premises")], **more})
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_is_there_may_have_any_name(tmp_path):
    (tmp_path / "mine.txt").mkdir()
    write(tmp_path, 100, input={"paths": [str(tmp_path / "mine.txt")], "column": "text"})
    assert len(contents(tmp_path / "mine.txt")) == 1


def test_a_folder_of_out_needs_no_settings_and_the_end_names_the_column(tmp_path):
    ends: list[str] = []

    class Ends(SilentProgress):
        def finish(self, summary: str) -> None:
            ends.append(summary)

    settings = config(tmp_path, input={"paths": ["sentences.txt"]})
    with jobs_here():
        run.write_premises(settings, 100, Ends(), out=tmp_path / "corpus")
    assert len(contents(tmp_path / "corpus")) == 1
    assert ends[0].endswith("; a run reads them with input.column: text")


def test_a_row_without_a_sentence_states_why():
    good = Completion(" It rains.", 3, finished=True)
    cut = Completion("It rains and", 3, finished=False)
    refused = Rejection(Reason.ENGINE_ERROR)
    assert [*run._texts((good, cut))] == [
        {"text": "It rains."},
        {"text": "", "reason": Reason.UNFINISHED_HYPOTHESIS.value},
    ]
    assert [*run._texts(refused)] == [{"text": "", "reason": Reason.ENGINE_ERROR.value}] * 2


def test_run_reads_the_sentences(tmp_path):
    write(tmp_path, 100)
    with jobs_here():
        full_run.run(config(tmp_path), SilentProgress(), until="ingest")
    sentences = current(Store.of(config(tmp_path))).manifest("sentences")
    assert sentences.rows_in == 100
    assert sentences.rows_out > 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "{genre} {form}"}, "layout needs {topic}"),
        ({"layout": "{genre} {topic}"}, "layout needs {form}"),
        ({"genres": {}}, "at least 1 item"),
        ({"genres": {"a novel": []}}, "at least 1 item"),
    ],
)
def test_topics_that_cannot_be_asked_for_are_rejected(change, message):
    with pytest.raises(ValidationError, match=message.replace("{", r"\{")):
        Topics.model_validate(load_topics(None).model_dump() | change)


def test_file_of_topics_is_one_line_when_it_is_wrong(tmp_path):
    with pytest.raises(ConfigError, match=r"^--topics: no file .*none\.yaml$"):
        load_topics(tmp_path / "none.yaml")
    path = tmp_path / "mine.yaml"
    path.write_text("layout: x\nforms: [a]\ngenres: {b: [c]}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: file: .*layout needs \{genre\}"):
        load_topics(path)
