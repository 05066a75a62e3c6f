"""Stage 2 for a batch of triplets: both hypotheses are scored against the premise (MultiCSR Eq. 3)."""

from collections.abc import Sequence

from multicsr.llm.base import Rejection, both
from multicsr.rows import Reason
from multicsr.stages.generate.triplet_rows import DIRECTIONS, TripletInProgress
from multicsr.stages.score.scorer import PairScore, Scorer


class TripletScorer:
    """Scorer of triplets by one or more scorers of pairs."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self._scorers = scorers

    def __call__(self, triplets: Sequence[TripletInProgress]) -> None:
        """Score a = (premise, entailment) and b = (premise, contradiction) of MultiCSR Eq. 3.

        A row is rejected if the engine failed on it, or if no scorer gives both scores. The stage `curate`
        decides whether the scores that exist are sufficient.
        """
        pairs = [
            (triplet.premise, hypothesis.text or "")
            for triplet in triplets
            for hypothesis in triplet.hypotheses
        ]
        row_ids = [triplet.row_id for triplet in triplets for _ in DIRECTIONS]
        found: list[list[Rejection]] = [[] for _ in triplets]
        for scorer in self._scorers:
            scores = scorer.score(pairs, row_ids)
            for triplet, rejections, a, b in zip(triplets, found, scores[::2], scores[1::2], strict=True):
                if rejection := _take(triplet, scorer.column, both(a, b)):
                    rejections.append(rejection)
        for triplet, rejections in zip(triplets, found, strict=True):
            failed = [each for each in rejections if each.reason is Reason.ENGINE_ERROR]
            if failed or len(rejections) == len(self._scorers):
                triplet.rejection = (failed or rejections)[0]


def _take(
    triplet: TripletInProgress, column: str, scores: tuple[PairScore, PairScore] | Rejection
) -> Rejection | None:
    """Fill in the scores of a triplet; return None, or the reason why a score is missing."""
    if isinstance(scores, Rejection):
        return scores
    rejection = None
    for name, hypothesis, score in zip(DIRECTIONS, triplet.hypotheses, scores, strict=True):
        setattr(hypothesis, column, score.value)
        if score.reply is not None:
            hypothesis.reply = score.reply
        if score.problem is not None:
            rejection = rejection or Rejection(Reason.SCORE_UNPARSABLE, f"{name}: {score.problem}")
    return rejection
