"""Stage 2 for a batch of triplets: the LLM scores both hypotheses against the premise (MultiCSR Eq. 3)."""

from collections.abc import Sequence

import numpy as np

from multicsr.config import ScoreConfig
from multicsr.llm.base import Engine, Rejection, both
from multicsr.prompts import PromptSet
from multicsr.rows import Reason
from multicsr.stages.generate.triplet_rows import DIRECTIONS, TripletInProgress
from multicsr.stages.score.expected import expected_scores
from multicsr.stages.score.parse import Unparsable, parse_score


class TripletScorer:
    """Scorer of triplets by one engine and one prompt set, with the methods of `score.method`."""

    def __init__(self, engine: Engine, prompts: PromptSet, config: ScoreConfig) -> None:
        self._engine = engine
        self._prompts = prompts
        self._config = config

    def __call__(self, triplets: Sequence[TripletInProgress]) -> None:
        """Score a = (premise, entailment) and b = (premise, contradiction) of MultiCSR Eq. 3.

        A row is rejected if the engine failed on it, or if no scoring method gives a score. The stage
        `curate` decides whether the scores that exist are sufficient.
        """
        ways = {
            "expected": [self._score_expected],
            "stated": [self._score_stated],
            "both": [self._score_expected, self._score_stated],
        }[self._config.method]
        for triplet, *rejections in zip(triplets, *(way(triplets) for way in ways), strict=True):
            found = [rejection for rejection in rejections if rejection is not None]
            failed = [rejection for rejection in found if rejection.reason is Reason.ENGINE_ERROR]
            if failed or len(found) == len(ways):
                triplet.rejection = (failed or found)[0]

    def _scoring_prompts(self, triplets: Sequence[TripletInProgress]) -> list[str]:
        """Return the scoring prompts: for each row that of a, then that of b."""
        return [
            self._prompts.scoring(triplet.premise, hypothesis.text or "")
            for triplet in triplets
            for hypothesis in triplet.hypotheses
        ]

    def _score_expected(self, triplets: Sequence[TripletInProgress]) -> list[Rejection | None]:
        """Fill in the expected scores; return for each row None, or the reason why it has none."""
        prompts = self._scoring_prompts(triplets)
        results = self._engine.label_probabilities(prompts, self._prompts.score_labels)
        rejections: list[Rejection | None] = []
        for triplet, a, b in zip(triplets, results[::2], results[1::2], strict=True):
            pair = both(a, b)
            if isinstance(pair, Rejection):
                rejections.append(pair)
                continue
            expected = expected_scores(np.stack(pair))
            if np.isfinite(expected).all():
                triplet.entailment.expected, triplet.contradiction.expected = expected.tolist()
                rejections.append(None)
            else:
                rejections.append(Rejection(Reason.ENGINE_ERROR, "label probabilities that are not numbers"))
        return rejections

    def _score_stated(self, triplets: Sequence[TripletInProgress]) -> list[Rejection | None]:
        """Fill in the stated scores and the replies; return for each row None, or why a score is missing."""
        prompts = self._scoring_prompts(triplets)
        row_ids = [triplet.row_id for triplet in triplets for _ in DIRECTIONS]
        results = self._engine.reply(prompts, row_ids, self._config.max_new_tokens)
        rejections: list[Rejection | None] = []
        for triplet, a, b in zip(triplets, results[::2], results[1::2], strict=True):
            pair = both(a, b)
            if isinstance(pair, Rejection):
                rejections.append(pair)
                continue
            for hypothesis, reply in zip(triplet.hypotheses, pair, strict=True):
                hypothesis.reply = reply.text
            rejections.append(_read_replies(triplet))
        return rejections


def _read_replies(triplet: TripletInProgress) -> Rejection | None:
    """Read the stated scores from the replies; return the reason to reject the row if one is unreadable."""
    rejection = None
    for name, hypothesis in zip(DIRECTIONS, triplet.hypotheses, strict=True):
        score = parse_score(hypothesis.reply or "")
        if isinstance(score, Unparsable):
            rejection = rejection or Rejection(Reason.SCORE_UNPARSABLE, f"{name}: {score}")
        else:
            hypothesis.stated = score
    return rejection
