"""Prompt sets: what reaches the LLM, byte for byte."""

import re
from collections import Counter

import pytest

from multicsr.errors import ConfigError
from multicsr.prompts import PromptSet, load_prompts, shipped_prompt_sets
from multicsr.rows import row_id


def test_syncse_pools_are_four_and_four():
    prompts = load_prompts("syncse")
    assert (len(prompts.entailment), len(prompts.contradiction)) == (4, 4)
    assert prompts.entailment[2].startswith("Create a sentence or phrase that is also true, assuming the")


def test_a_generation_prompt_byte_for_byte():
    prompts = load_prompts("syncse")
    assert prompts.generation("It rains.", "Do it.") == "Sentence: It rains.\nDo it.\nAnswer:"
    assert prompts.scoring("A.", "B.").endswith("(a) A. (b) B.\nScore:")


def test_reference_keeps_the_trailing_space_and_the_run_of_spaces():
    prompts = load_prompts("reference")
    assert prompts.pair("It rains.", "0" * 32, seed=1).entailment.endswith("with 'It rains.': ")
    assert "5.0:" + " " * 17 + "(a) A. (b) B." in prompts.scoring("A.", "B.")


def test_braces_in_a_premise_stay_as_they_are():
    prompts = load_prompts("syncse")
    assert "{hypothesis} {premise}" in prompts.scoring("{hypothesis} {premise}", "B.")
    assert "(b) {premise}" in prompts.scoring("A.", "{premise}")


def test_draws_depend_on_row_and_seed_alone_and_are_even():
    prompts = load_prompts("syncse")
    ids = [row_id(f"sentence {i}", "en") for i in range(4000)]
    drawn = [prompts.pair("x", i, seed=3)[2:4] for i in ids]
    assert drawn == [prompts.pair("another premise", i, seed=3)[2:4] for i in ids]
    assert drawn != [prompts.pair("x", i, seed=4)[2:4] for i in ids]
    counts = Counter(drawn)
    assert len(counts) == 16
    assert all(150 < count < 350 for count in counts.values())  # 250 expected, sd 15


def test_the_digests_follow_every_byte_of_their_part():
    prompts = load_prompts("syncse")
    for field in PromptSet.model_fields.keys() - {"about", "chat"}:
        value = getattr(prompts, field)
        changed = prompts.model_copy(
            update={field: [*value, "x"] if isinstance(value, list) else f"{value} x"}
        )
        is_for_scoring = field in ("score", "score_labels")
        assert (changed.writing_digest() == prompts.writing_digest()) == is_for_scoring, field
        assert (changed.scoring_digest() == prompts.scoring_digest()) != is_for_scoring, field
    assert prompts.writing_digest() == load_prompts("syncse").writing_digest()
    described, continued = (prompts.model_copy(update=change) for change in ({"about": "x"}, {"chat": False}))
    for digest in (PromptSet.writing_digest, PromptSet.scoring_digest):
        assert digest(described) == digest(prompts) != digest(continued)


def test_a_custom_file_is_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nlayout: '{instruction}: {premise}'\nentailment: [Same]\ncontradiction: [Opposite]\n"
        "score: '{premise} | {hypothesis}'\nscore_labels: [a, b, c, d, e, f]\n"
    )
    assert load_prompts(str(path)).pair("It rains.", "00", 0).contradiction == "Opposite: It rains."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n", "layout: Field required"),
        ("{", "is not YAML"),
        (
            "name: x\nlayout: '{instruction}'\nentailment: [a]\ncontradiction: [b]\nscore: s\n"
            "score_labels: [a, b, c, d, e, f]\n",
            "every generation prompt needs {premise}",
        ),
        (
            "name: x\nlayout: '{premise} {instruction}'\nentailment: [a]\ncontradiction: [b]\n"
            "score: '{premise} {hypothesis}'\nscore_labels: [a, b, c, d, e, ' a']\n",
            "score_labels must differ by more than blanks",
        ),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_prompts(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=", ".join(shipped_prompt_sets())):
        load_prompts("sincse")


def test_examples_of_fewshot_have_one_set_of_premises_and_contradict_in_different_ways():
    prompts = load_prompts("fewshot")
    examples = [
        re.findall(r"^Sentence: (.+)\n\w.*?: (.+)$", pool[0], re.M)
        for pool in (prompts.entailment, prompts.contradiction)
    ]
    premises, contradictions = zip(*examples[1], strict=True)
    assert premises == tuple(premise for premise, _ in examples[0])
    assert len(premises) == 5
    negated = [text for text in contradictions if re.search(r"\b(?:not?|nobody|never|none|no)\b", text, re.I)]
    assert 0 < len(negated) < len(contradictions) / 2
