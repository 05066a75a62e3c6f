"""Sentences of a profile follow from its figures by the rules, and the page shows these figures."""

from collections import Counter
from dataclasses import replace

import pytest

from multicsr.tools.profile.figures import Amount, ProfileFigures
from multicsr.tools.profile.operators import OperatorTime, OperatorTimes
from multicsr.tools.profile.page import WIDTH, page
from multicsr.tools.profile.reading import is_product, sentences
from multicsr.tools.profile.time_use import BETWEEN, RAY, WORK, RoleTime

ACTOR = RoleTime("generate actor", 2, 50.0, loading_s=10, computing_s=60, waiting_s=15, idle_s=15)
OPERATORS = OperatorTimes(
    traced_s=10,
    busy_s=8,
    cpu={
        "aten::addmm": OperatorTime(5.0, 100),
        "aten::_scaled_dot_product_flash_attention_for_cpu": OperatorTime(1.0, 10),
        "aten::copy_": OperatorTime(2.0, 400),
    },
)
FIGURES = ProfileFigures(
    stage="generate",
    run="demo",
    wall={RAY: 5.0, WORK: 15.0},
    driver_cpu_s=3.0,
    roles=[ACTOR],
    amounts=[Amount("rows written", 300)],
    training_waits={},
    operators=OPERATORS,
    sampled_s=30.0,
    computed=Counter({"decode.decode": 20.0}),
    waited=Counter({"client.send": 4.0, "writer.put": 1.0}),
)


def test_sentences_of_a_stage_that_computes():
    assert sentences(FIGURES) == [
        "Workers worked in 75% of the wall time.",
        "The processes of 'generate actor' computed 60% of the time.",
        "Matrix products took 75% of the operators' time, aten::copy_ as the largest other operator 25%.",
    ]


@pytest.mark.parametrize(
    ("wall", "sentence"),
    [
        (
            {RAY: 6.0, WORK: 4.0},
            "The largest part of the wall time is 'Ray starts' (60%), which a longer run",
        ),
        ({WORK: 4.0, BETWEEN: 6.0}, "is 'no worker works, in between' (60%), in which no worker worked."),
    ],
)
def test_largest_part_of_the_wall_time_is_named(wall, sentence):
    assert sentence in sentences(replace(FIGURES, wall=wall))[0]


@pytest.mark.parametrize(
    ("waiting", "idle", "sentence"),
    [
        (20, 10, "The processes of 'generate actor' waited 20% of the time, mostly in client.send."),
        (10, 20, "The processes of 'generate actor' had nothing to do 20% of the time, between or after"),
        (19, 19, "The processes of 'generate actor' computed 52% of the time."),
    ],
)
def test_what_workers_waited_for(waiting, idle, sentence):
    role = replace(ACTOR, computing_s=90 - waiting - idle, waiting_s=waiting, idle_s=idle)
    assert sentences(replace(FIGURES, roles=[role]))[1].startswith(sentence)


def test_training_names_what_its_steps_waited_for():
    waits = {"batches": 1.0, "vectors of the mask model": 8.0}
    figures = replace(FIGURES, training_waits=waits, amounts=[Amount("steps", 30, 20.0)])
    assert sentences(figures)[1] == (
        "The steps of the training waited 40% of their time for vectors of the mask model."
    )


def test_operators_that_explain_little_are_not_explained():
    figures = replace(FIGURES, operators=replace(OPERATORS, busy_s=6.9))
    assert sentences(figures)[2].startswith("Operators of torch covered 69% of the traced time; the rest")


def test_stage_without_workers_and_operators_has_one_sentence():
    figures = replace(FIGURES, roles=[], operators=OperatorTimes(), wall={BETWEEN: 1.0})
    assert len(sentences(figures)) == 1


def test_page_shows_the_figures():
    text = page(replace(FIGURES, run="x" * 200), ["timeline.json"], ["No trace: a note."])
    assert max(map(len, text.splitlines())) <= WIDTH
    for figure in (
        "15.0 s    75%",
        "300 rows written, 20.0/s while working",
        "driver 3.0 s, workers 50.0 s",
        "10%       60%     15%     15%",
        "aten::addmm",
        "5.00     62%       100",
        "client.send",
        "No trace: a note.",
    ):
        assert figure in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [("aten::mm", True), ("aten::_addmm_activation", False), ("aten::linear", True), ("aten::mul", False)],
)
def test_products(name, expected):
    assert is_product(name) == expected
