"""Scorer by a model for natural language inference (NLI), which reads premise and hypothesis together.

The score is 5 * (P(entailment) + P(neutral) / 2): the mean of the scale if an entailment is worth 5 points, a
neutral hypothesis 2.5 and a contradiction 0. The paper has no such scorer; the mean over labels is that of
expected scores (Eq. 3).
"""

import threading
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from multicsr.errors import ConfigError, RunError
from multicsr.llm.base import Rejection
from multicsr.models.published_encoder import num_positions
from multicsr.models.resolve import loading_model, resolve_model
from multicsr.models.trust import loading_trusted
from multicsr.stages.score.nli_labels import NliLabels, nli_labels
from multicsr.stages.score.scorer import COLUMNS, DECIMALS, PairScore

_BATCH = 32
"""Number of pairs in a forward pass."""


class NliScorer:
    """Scorer by a sequence classifier in float32. Thread-safe."""

    column = COLUMNS["nli"]

    def __init__(self, name: str, device: str, *, trust_remote_code: bool = False) -> None:
        """Load the classifier on a device; `trust_remote_code`: run code that comes with it.

        Raises:
            ConfigError: there is no such model, it has no classifier or other labels, or its tokenizer has no
                padding token.
        """
        path = resolve_model(name, "score.model")
        with loading_trusted(name, "score.model", trust_remote_code), loading_model(name, "score.model"):
            self._tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
            model = AutoModelForSequenceClassification.from_pretrained(
                path, dtype=torch.float32, trust_remote_code=trust_remote_code
            )
        self._labels = nli_labels(name, model.config.id2label)
        if self._tokenizer.pad_token_id is None:
            raise ConfigError(
                f"score.model: the tokenizer of {name} has no padding token; take another model"
            )
        self._model = model.to(device).eval().requires_grad_(False)
        self._max_length = min(self._tokenizer.model_max_length, num_positions(model))
        self._lock = threading.Lock()

    def score(
        self, pairs: Sequence[tuple[str, str]], row_ids: Sequence[str]
    ) -> Sequence[PairScore | Rejection]:
        """Implement `Scorer.score`; pairs of similar length share a forward pass.

        Raises:
            RunError: a score is not finite.
        """
        order = sorted(range(len(pairs)), key=lambda index: sum(map(len, pairs[index])))
        score_N = np.empty(len(pairs))
        with self._lock:
            for start in range(0, len(order), _BATCH):
                chosen = order[start : start + _BATCH]
                score_N[chosen] = nli_scores(self._logits([pairs[index] for index in chosen]), self._labels)
        if not np.isfinite(score_N).all():
            raise RunError("score.model gives scores that are not finite; its weights are broken")
        return [PairScore(score) for score in score_N.tolist()]

    @torch.inference_mode()
    def _logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """Return the logits of the labels, [len(pairs), L]."""
        premises, hypotheses = (list(side) for side in zip(*pairs, strict=True))
        features = self._tokenizer(
            premises,
            hypotheses,
            padding=True,
            truncation=True,
            max_length=self._max_length,
            return_tensors="pt",
        ).to(self._model.device)
        logits: NDArray[np.float64] = self._model(**features).logits.double().cpu().numpy()
        return logits


def nli_scores(logits_NL: NDArray[np.float64], labels: NliLabels) -> NDArray[np.float64]:
    """Return 5 * (P(entailment) + P(neutral) / 2) for each row, [N]."""
    weight_NL = np.exp(logits_NL - logits_NL.max(axis=1, keepdims=True))
    probability_NL = weight_NL / weight_NL.sum(axis=1, keepdims=True)
    neutral_N = 0.0 if labels.neutral is None else probability_NL[:, labels.neutral]
    scores_N: NDArray[np.float64] = 5 * (probability_NL[:, labels.entailment] + neutral_N / 2)
    return scores_N.round(DECIMALS)
