"""Demonstrations in generation prompts. The golden prompt is pinned: a change has all rows written again."""

import pytest

from multicsr.prompts import PromptSet, load_prompts, shipped_prompt_sets
from multicsr.prompts.demonstrations import Demonstration

SHOWN = (
    Demonstration("A dog {premise} runs.", "An animal moves.", "It sleeps."),
    Demonstration("It rains.", "It is wet.", "It is dry."),
)
GOLDEN = """\
Sentence: A dog {premise} runs.
INSTRUCTION
Answer: An animal moves.

Sentence: It rains.
INSTRUCTION
Answer: It is wet.

Sentence: The sea is calm.
INSTRUCTION
Answer:"""


def test_a_prompt_with_demonstrations_is_pinned():
    prompts = load_prompts("syncse")
    pair = prompts.pair("The sea is calm.", "x", 1, SHOWN)
    plain = prompts.pair("The sea is calm.", "x", 1)
    assert pair.entailment == GOLDEN.replace("INSTRUCTION", prompts.entailment[pair.entailment_id])
    opposite = GOLDEN.replace("An animal moves.", "It sleeps.").replace("It is wet.", "It is dry.")
    assert pair.contradiction == opposite.replace("INSTRUCTION", prompts.contradiction[pair.contradiction_id])
    assert (pair.entailment_id, pair.contradiction_id) == (plain.entailment_id, plain.contradiction_id)


@pytest.mark.parametrize("name", shipped_prompt_sets())
def test_without_demonstrations_a_prompt_is_as_it_was(name):
    prompts = load_prompts(name)
    for variant in prompts.variants():
        for instruction in (*variant.entailment, *variant.contradiction):
            layout = variant.layout.replace("{instruction}", instruction)
            if "masked" not in layout:
                assert variant.generation("It rains.", instruction) == layout.replace(
                    "{premise}", "It rains."
                )


@pytest.mark.parametrize(("name", "answer"), [("fewshot", "{}"), ("reference", "'{}'")])
def test_demonstrations_follow_the_examples_of_the_set_and_each_repeats_the_question(name, answer):
    prompts = load_prompts(name)
    shown = [(each.premise, each.entailment) for each in SHOWN]
    plain = prompts.generation("The sea is calm.", prompts.entailment[0])
    prompt = prompts.generation("The sea is calm.", prompts.entailment[0], shown)
    *examples, question = plain.split("\n\n")
    assert prompt.startswith("\n\n".join(examples))
    assert prompt.endswith(f"\n\n{question}")
    between = prompt.split("\n\n")[len(examples) : -1]
    assert between == [
        question.replace("The sea is calm.", premise).rstrip(" ") + f" {answer.format(hypothesis)}"
        for premise, hypothesis in shown
    ]


def test_an_open_quotation_mark_is_closed_behind_an_answer():
    prompts = load_prompts("syncse").model_dump()
    quoted = PromptSet.model_validate(
        {**prompts, "layout": '{instruction}\n1: "{premise}"\n2: "', "stop": ['"', "\n"]}
    )
    prompt = quoted.generation("B.", "Do it.", [("A.", "Yes.")])
    assert prompt == 'Do it.\n1: "A."\n2: "Yes."\n\nDo it.\n1: "B."\n2: "'


def test_only_a_set_with_masked_words_masks_words():
    assert {name for name in shipped_prompt_sets() if load_prompts(name).masks_words} == {"claif"}
