"""Scores that an LLM states, on the scale that its prompt names."""

import pytest

from multicsr.config import Config, ScoreConfig
from multicsr.llm.base import Completion, Usage
from multicsr.prompts import load_prompts
from multicsr.stages.generate.fingerprint import scoring_settings
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
    assert stated("claif", CONFIG, *replies) == [4.0, 0.0, 5.0, "outside 0 to 1", "outside 0 to 1"]


def test_a_mention_of_the_scale_of_the_prompt_is_no_score_and_no_range():
    replies = (
        "On a scale from 0.0 to 1.0, I would say 0.8.",
        "The score between 0.0 and 1.0 is 0.4.",
        " 0.8 out of 1.0, because they say the same.",
        "0.2/1",
        "I would give a score of 1.0.",
        "between 0.0 and 1.0",
        "0.5 out of 5",
        "4 out of 5",
    )
    stretched: list[float | str | None] = [4.0, 2.0, 4.0, 1.0, 5.0]
    assert stated("claif", CONFIG, *replies) == [*stretched, "no number", "another scale", "another scale"]


def test_settings_of_scores_name_the_rule_for_other_scales_only_where_it_decides():
    def rules(prompts: str, method: str) -> dict[str, object]:
        tree = {"name": "a", "store": "a", "input": {"paths": ["a"]}, "llm": {"engine": "fake"}}
        config = tree | {"generate": {"prompts": prompts}, "score": {"method": method}}
        return scoring_settings(Config.model_validate(config))["rules"]

    assert "scale" in rules("claif", "llm_stated")
    assert "scale" not in rules("claif", "llm_expected")
    assert "scale" not in rules("syncse", "llm_stated")


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
