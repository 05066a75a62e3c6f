"""Scores that an LLM states, on the scale that its prompt names."""

import pytest

from multicsr.config import ScoreConfig
from multicsr.llm.base import Completion, Usage
from multicsr.prompts import load_prompts
from multicsr.stages.score.by_llm import StatedScorer


class Replies:
    """An engine whose replies are given."""

    def __init__(self, *texts: str) -> None:
        self.usage, self._texts = Usage(), texts

    def reply(self, prompts, row_ids, max_new_tokens):
        return [Completion(text, 1, finished=True) for text in self._texts]


def stated(prompt_set: str, config: ScoreConfig, *texts: str) -> list[float | str | None]:
    scorer = StatedScorer(Replies(*texts), load_prompts(prompt_set), config)
    scores = scorer.score([("A.", "B.")] * len(texts), ["id"] * len(texts))
    assert [score.reply for score in scores] == list(texts)
    return [score.problem if score.value is None else score.value for score in scores]


CONFIG = ScoreConfig(method="llm_stated")


def test_scores_of_a_prompt_from_0_to_1_are_stretched_to_5():
    replies = (" 0.8, because they say the same.", " 0.0.", " 1", " 4.0", " 1.1")
    assert stated("claif", CONFIG, *replies) == [4.0, 0.0, 5.0, "outside 0 to 5", "outside 0 to 5"]


@pytest.mark.parametrize("number", range(51))
def test_scores_of_a_prompt_from_0_to_5_stay_to_the_bit(number):
    assert stated("syncse", CONFIG, f"{number / 10}") == [number / 10]


def test_forms_of_the_reference_reject_what_any_reads():
    reference = ScoreConfig(method="llm_stated", forms="reference")
    replies = ("4", "4.5", "4.50", "Score: 4", "5.9")
    assert stated("reference", CONFIG, *replies) == [4.0, 4.5, 4.5, 4.0, "outside 0 to 5"]
    found = stated("reference", reference, *replies)
    assert found[:2] == [4.0, 4.5]
    assert all(isinstance(each, str) for each in found[2:])
