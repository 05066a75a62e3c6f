"""An evaluation in the terminal, in files and in words."""

import csv
import io
import json

import pytest
from rich.console import Console

from multicsr.errors import ConfigError
from multicsr.messages.terminal import echo
from multicsr.stages.evaluate import (
    Comparison,
    Evaluation,
    Measured,
    Ranking,
    Score,
    outputs,
    render,
    verdicts,
)

LABELS = ("published", "before | after", "trained_2")
VALUES = {"sts/a": (80.125, 81.0, 84.0), "sts/b": (70.0, 70.1, 69.5), "cran": (40.0, 40.0, 38.0)}
P = {"sts/a": (0.2, 0.001), "sts/b": (0.9, 0.6), "cran": (1.0, 0.012)}


@pytest.fixture
def evaluation() -> Evaluation:
    """Three encoders on three tasks, the last of which has a second metric."""

    def scores(number: int) -> list[Score]:
        main = [
            Score(
                task=task,
                kind="sts",
                metric="Spearman x 100",
                value=values[number],
                num_rows=1500,
                low=1,
                high=99,
            )
            for task, values in VALUES.items()
        ]
        return [*main, Score(task="cran", kind="sts", metric="MAP", value=number, num_rows=225)]

    return Evaluation(
        created="2026-11-30T12:00:00+00:00",
        versions={},
        encoders=[
            Measured(label=label, scores=scores(number), num_sentences=1, seconds=1)
            for number, label in enumerate(LABELS)
        ],
        skipped=[],
        comparisons=[
            Comparison(
                task=task,
                metric="Spearman x 100",
                encoder=LABELS[number],
                reference=LABELS[0],
                difference=values[number] - values[0],
                low=values[number] - values[0] - 1,
                high=values[number] - values[0] + 1,
                p=P[task][number - 1],
            )
            for task, values in VALUES.items()
            for number in (1, 2)
        ],
        rankings=[
            Ranking(task="sts/a", metric="Spearman x 100", ranks=dict(zip(LABELS, (2, 2, 1), strict=True)))
        ],
    )


def text_of(evaluation: Evaluation) -> str:
    file = io.StringIO()
    Console(file=file, width=100).print(render(evaluation))
    return file.getvalue()


def test_the_terminal_shows_value_rank_difference_and_interval(evaluation):
    text = text_of(evaluation)
    assert "84.00 (1)" in text
    assert "+3.88 [+2.88, +4.88]" in text
    assert "Spearman x 100, 1,500" in text
    assert "difference from published" in text


def test_one_encoder_has_no_differences_and_no_verdict(evaluation):
    alone = evaluation.model_copy(
        update={"encoders": evaluation.encoders[:1], "comparisons": [], "rankings": []}
    )
    assert "difference" not in text_of(alone)
    assert verdicts(alone) == []


def test_a_sentence_names_what_an_encoder_helps_and_hurts_with_holms_correction(evaluation):
    same, trained = verdicts(evaluation)
    assert same == (
        "before | after, compared with published: makes no difference that these examples can show on "
        "sts/a (+0.88), sts/b (+0.10) and cran (+0.00)."
    )
    assert trained == (
        "trained_2, compared with published: helps on sts/a (+3.88); hurts on cran (-2.00); makes no "
        "difference that these examples can show on sts/b (-0.50)."
    )


def test_a_difference_that_only_one_test_alone_would_find_is_not_counted(evaluation):
    comparisons = [each.model_copy(update={"p": 0.03}) for each in evaluation.comparisons]
    for verdict in verdicts(evaluation.model_copy(update={"comparisons": comparisons})):
        assert "helps" not in verdict
        assert "hurts" not in verdict


def since_before(evaluation: Evaluation) -> Evaluation:
    """The same, with the last encoder compared with the second one, too."""
    also = [
        each.model_copy(
            update={"reference": LABELS[1], "difference": gain, "low": gain - 1, "high": gain + 1, "p": 0.001}
        )
        for each in evaluation.comparisons
        if each.encoder == LABELS[2]
        for gain in [VALUES[each.task][2] - VALUES[each.task][1]]
    ]
    return evaluation.model_copy(update={"comparisons": [*evaluation.comparisons, *also]})


def test_an_encoder_trained_from_a_variant_is_shown_and_judged_against_both(evaluation):
    both = since_before(evaluation)
    text = text_of(both)
    assert "+3.88 [+2.88, +4.88]" in text
    assert "+3.00 [+2.00, +4.00]" in text
    assert "Third line: difference from before | after." in " ".join(text.split())
    assert "Third line" not in text_of(evaluation)
    same, trained = verdicts(both)
    assert same == verdicts(evaluation)[0]
    assert trained == (
        verdicts(evaluation)[1] + " Compared with before | after: helps on sts/a (+3.00); hurts on "
        "sts/b (-0.60) and cran (-2.00)."
    )


def test_files_have_the_difference_since_before_with_its_interval(evaluation, tmp_path):
    paths = [tmp_path / f"figures.{ending}" for ending in ("csv", "md", "tex")]
    for file in outputs(None, paths):
        file.write(since_before(evaluation))
    rows = [row for row in csv.DictReader(paths[0].open()) if row["since"]]
    assert [(row["task"], row["encoder"], row["since"]) for row in rows] == [
        (task, LABELS[2], LABELS[1]) for task in VALUES
    ]
    row = rows[0]
    figures = [float(row[name]) for name in ("since_difference", "since_low", "since_high", "since_p")]
    assert figures == [3.0, 2.0, 4.0, 0.001]
    assert (row["reference"], row["difference"]) == ("published", "3.875")
    header, _, first, *_, last = paths[1].read_text().split("\n\n")[0].splitlines()
    assert header.endswith(r"| trained_2 - before \| after |")
    assert first.endswith("| +3.88 [+2.88, +4.88] | +3.00 [+2.00, +4.00] |")
    assert last.endswith("|  |")
    latex = paths[2].read_text()
    assert r"& trained\_2 - before | after \\" in latex
    assert r"& +3.00 [+2.00, +4.00] \\" in latex


def test_files_have_no_such_column_where_no_encoder_was_trained_from_a_variant(evaluation, tmp_path):
    [file] = outputs(None, [tmp_path / "figures.md"])
    file.write(evaluation)
    assert " - before" not in file.path.read_text()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_table_fits_the_terminal_with_long_names_and_whole_numbers(evaluation, width, count):
    paths = [f"/home/somebody/projects/multicsr/runs/support-tickets-{n}/encoder" for n in range(3)]
    named = dict(zip(LABELS, paths, strict=True))
    compared = [each for each in since_before(evaluation).comparisons if each.encoder in LABELS[:count]]
    shown = evaluation.model_copy(
        update={
            "encoders": [
                each.model_copy(update={"label": named[each.label]}) for each in evaluation.encoders[:count]
            ],
            "comparisons": [
                each.model_copy(update={"encoder": named[each.encoder], "reference": named[each.reference]})
                for each in compared
            ],
            "rankings": [],
        }
    )
    file = io.StringIO()
    Console(file=file, width=width).print(render(shown))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = file.getvalue()
    for value in ("80.12", "+0.88 [-0.12, +1.88]", "+3.88 [+2.88, +4.88]", "+3.00 [+2.00, +4.00]")[
        : {1: 1, 2: 2, 3: 4}[count]
    ]:
        assert value in text
    folded = "".join(character for character in text if character not in " \n│┃")
    assert all(f"support-tickets-{n}" in folded or f"-{n}/encoder" in folded for n in range(count))


def test_a_file_gets_whole_names_whatever_their_length(evaluation, capsys):
    label = "/home/somebody/" + 20 * "long-name/"
    first, *others = evaluation.encoders
    named = [first.model_copy(update={"label": label}), *others]
    echo(render(evaluation.model_copy(update={"encoders": named})))
    assert label in capsys.readouterr().out


def test_thresholds_of_different_similarities_have_no_difference(evaluation):
    encoders = [
        each.model_copy(
            update={
                "scores": [
                    Score(
                        task="p",
                        kind="k",
                        metric=f"{own} of the best F1",
                        value=value,
                        num_rows=9,
                        similarity=own,
                    )
                ]
            }
        )
        for each, own, value in zip(evaluation.encoders[:2], ("cosine", "dot"), (0.5, 24.5), strict=True)
    ]
    shown = evaluation.model_copy(update={"encoders": encoders, "comparisons": [], "rankings": []})
    text = text_of(shown)
    assert "cosine of the best F1 / dot of the best F1, 9" in text
    assert "+24" not in text


def test_files_have_the_format_of_their_ending(evaluation, tmp_path):
    paths = [tmp_path / f"figures.{ending}" for ending in ("json", "csv", "md", "tex")]
    for file in outputs(tmp_path / "any.name", paths):
        file.write(evaluation)
    for path in (paths[0], tmp_path / "any.name"):
        assert json.loads(path.read_text())["encoders"][0]["scores"][0]["value"] == 80.125
    rows = list(csv.DictReader(paths[1].open()))
    assert len(rows) == 4 * 3
    last = rows[2]
    assert (last["task"], last["encoder"], float(last["value"]), last["rank"]) == (
        "sts/a",
        "trained_2",
        84,
        "1",
    )
    assert (last["reference"], float(last["difference"]), last["p"]) == ("published", 3.875, "0.001")
    assert rows[0]["difference"] == rows[-1]["p"] == ""
    header, _, first, *_ = paths[2].read_text().splitlines()
    assert header.count("|") - header.count(r"\|") == first.count("|") == 9
    assert "helps on sts/a" in paths[2].read_text()
    latex = paths[3].read_text()
    assert r"trained\_2" in latex
    assert latex.count("&") == 5 * 7
    assert latex.rstrip().endswith(r"\end{tabular}")


def test_a_file_that_cannot_be_written_is_rejected_before_the_measurement(tmp_path):
    with pytest.raises(ConfigError, match=r"--out: .*figures.xls must end in .json, .csv, .md, .tex"):
        outputs(None, [tmp_path / "figures.xls"])
    with pytest.raises(ConfigError, match=r"--json: .* is a directory"):
        outputs(tmp_path, [])
    with pytest.raises(ConfigError, match=r"--out: there is no directory .*absent; create it first"):
        outputs(None, [tmp_path / "absent/figures.csv"])


def test_an_end_of_an_interval_that_is_rounded_to_nothing_has_no_minus(evaluation):
    first, *others = evaluation.comparisons
    shown = evaluation.model_copy(
        update={"comparisons": [first.model_copy(update={"high": -0.004}), *others]}
    )
    assert "+0.00]" in text_of(shown)
    assert "-0.00" not in text_of(shown)
