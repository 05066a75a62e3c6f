"""Scorers that ask an LLM (MultiCSR Eq. 3)."""

from collections.abc import Sequence

import numpy as np

from multicsr.config import ScoreConfig
from multicsr.llm.base import Engine, Rejection
from multicsr.prompts import PromptSet
from multicsr.rows import Reason
from multicsr.stages.score.expected import expected_scores
from multicsr.stages.score.parse import HIGHEST, Unparsable, parse_reference_score, parse_score
from multicsr.stages.score.scorer import COLUMNS, PairScore


class ExpectedScorer:
    """Scorer by the probabilities of the score labels."""

    column = COLUMNS["llm_expected"]

    def __init__(self, engine: Engine, prompts: PromptSet) -> None:
        self._engine = engine
        self._prompts = prompts

    def score(
        self, pairs: Sequence[tuple[str, str]], row_ids: Sequence[str]
    ) -> Sequence[PairScore | Rejection]:
        """Implement `Scorer.score`."""
        prompts = [self._prompts.scoring(*pair) for pair in pairs]
        results = self._engine.label_probabilities(prompts, self._prompts.score_labels)
        return [each if isinstance(each, Rejection) else _expected(each) for each in results]


class StatedScorer:
    """Scorer by the number in the text of the reply."""

    column = COLUMNS["llm_stated"]

    def __init__(self, engine: Engine, prompts: PromptSet, config: ScoreConfig) -> None:
        self._engine = engine
        self._prompts = prompts
        self._max_new_tokens = config.max_new_tokens
        self._parse = parse_reference_score if config.forms == "reference" else parse_score

    def score(
        self, pairs: Sequence[tuple[str, str]], row_ids: Sequence[str]
    ) -> Sequence[PairScore | Rejection]:
        """Implement `Scorer.score`."""
        prompts = [self._prompts.scoring(*pair) for pair in pairs]
        results = self._engine.reply(prompts, row_ids, self._max_new_tokens)
        return [each if isinstance(each, Rejection) else self._stated(each.text) for each in results]

    def _stated(self, reply: str) -> PairScore:
        """Return the score that a reply states."""
        scale = self._prompts.score_scale
        score = self._parse(reply, scale)
        if score is Unparsable.OUT_OF_RANGE:
            return PairScore(None, reply, f"outside 0 to {scale:g}")
        if isinstance(score, Unparsable):
            return PairScore(None, reply, str(score))
        return PairScore(score * (HIGHEST / scale), reply)


def _expected(probabilities_L: np.ndarray) -> PairScore | Rejection:
    """Return the score that label probabilities give."""
    [score] = expected_scores(probabilities_L[None]).tolist()
    if np.isfinite(score):
        return PairScore(score)
    return Rejection(Reason.ENGINE_ERROR, "label probabilities that are not numbers")
