"""Masked words against the rule of CLAIF, and its prompts byte for byte."""

import math
import random
import re
from fractions import Fraction

import pytest

from multicsr.prompts import load_prompts
from multicsr.prompts.infilling import MASK, mask_words

RATES = range(10, 90, 10)
TEXT = "Two dogs run over a field of grass and snow near an old house ."


def texts(number: int) -> list[str]:
    draw = random.Random(1)
    words = ["a", "dog", "two", "men", "run", "old", "red", "houses", "near", "water", "<b>", "{premise}"]
    return [" ".join(draw.choices(words, k=draw.randrange(1, 30))) for _ in range(number)]


def runs(text: str) -> int:
    """Return the number of runs of masks in a text."""
    return len(re.findall(r"<mask>(?: <mask>)*", text))


@pytest.mark.parametrize("percent", RATES)
def test_as_many_words_are_masked_as_the_rate_rounded_up_and_the_others_stay(percent):
    merged = 0
    for text in texts(300):
        words = text.split()
        number = math.ceil(Fraction(percent, 100) * len(words))
        masked = mask_words(text, percent).split()
        kept = [word for word in masked if word != MASK]
        assert len(kept) == len(words) - number
        assert re.fullmatch(".*".join(map(re.escape, ["", *kept, ""])), text.replace("\n", " "))
        if len(masked) == len(words):
            assert [word for word, sign in zip(words, masked, strict=True) if sign != MASK] == kept
        else:
            assert len(masked) == len(kept) + runs(" ".join(masked))
            merged += 1
    assert 8 < merged < 160, "adjacent masks are merged in every second text that has some"


def test_a_text_is_always_masked_alike_and_every_place_comes_up():
    assert mask_words(TEXT, 30) == mask_words(TEXT, 30)
    places = {place for n in range(60) for place in [mask_words(f"a b c d{n}", 20).split().index(MASK)]}
    assert places == {0, 1, 2, 3}


def test_prompts_are_those_of_the_public_code():
    prompts = load_prompts("claif")
    assert (len(prompts.entailment), len(prompts.contradiction)) == (5, 4)
    asked = [prompts.generation("It rains.", each) for each in (*prompts.entailment, *prompts.contradiction)]
    assert asked[0] == (
        'Write two sentences that mean the same thing.\nSentence 1: "It rains."\nSentence 2: "'
    )
    for prompt, percent in zip(asked[1:], RATES, strict=True):
        masked = mask_words("It rains.", percent)
        assert (
            prompt
            == f'Replace all <mask> tokens in "{masked}" to make a new sentence. The new sentence is: "'
        )
    assert prompts.scoring("A.", "B.") == (
        "The similarity score for two sentences is in the range from 0.0 to 1.0, 0.0 means completely "
        "different and 1.0 means almost the same.\nNow give two sentences 'A.' and  'B.', please give a "
        "similarity score of these two sentences and give the reason:\n"
        "The similarity score for these two sentences is"
    )


def test_braces_in_a_masked_premise_stay_as_they_are():
    prompts = load_prompts("claif")
    text = "{premise} {masked_10} {hypothesis} {instruction}"
    asked = prompts.generation(text, prompts.entailment[1])
    assert asked.count("<mask>") == 2
    assert len(re.findall(r"\{\w+\}", asked)) == 3


def test_scale_of_scores_is_part_of_what_scores_and_of_nothing_else():
    prompts = load_prompts("claif")
    other = prompts.model_copy(update={"score_scale": 2.0})
    assert other.scoring_digest() != prompts.scoring_digest()
    assert other.writing_digest() == prompts.writing_digest()
