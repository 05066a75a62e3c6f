"""Probabilities of the score labels from the likeliest tokens that an endpoint reports.

A label may be one token or several, and a blank may come first as a token of its own. The mass of a token
counts for the one label that the text so far begins, or is. A text that begins several labels, such as a
blank, decides nothing yet. The next position is read after it, which an endpoint reports only for the text
that it wrote; the mass of other such texts is not known, and the probabilities are those without it. See
`multicsr.llm.label_tree` for the engines that can ask for every text.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from multicsr.llm.openai.answers import ChatAnswer


class LabelMass(NamedTuple):
    """Mass of each label in an answer."""

    mass_L: NDArray[np.float64]
    """[L] probabilities of the labels' texts; their sum is at most 1."""
    is_cut: bool
    """True if the answer reached its limit within a text that begins several labels, so that a longer one
    would hold more."""


def read_labels(answer: ChatAnswer, labels: Sequence[str]) -> LabelMass:
    """Sum the mass of each label over the tokens at the first positions of an answer.

    A label that begins another one (1 and 10) stands for the texts that do not continue so.

    Args:
        answer: an answer with log-probabilities.
        labels: L labels without surrounding white space, all different.
    """
    mass_L = np.zeros(len(labels))
    text, p = "", 1.0
    for position in answer.positions:
        p_onward, p_begun = None, 0.0
        for token in position.top_logprobs:
            begun = _begun_by(text + token.token, labels)
            p_token = p * math.exp(token.logprob)
            p_begun += p_token if begun else 0.0
            if len(begun) == 1:
                mass_L[begun[0]] += p_token
            elif begun and token.token == position.token and p_onward is None:
                p_onward = p_token
        if text.strip() in labels:
            mass_L[labels.index(text.strip())] += max(p - p_begun, 0.0)
        if p_onward is None:
            return LabelMass(mass_L, is_cut=False)
        text, p = text + position.token, p_onward
    if answer.is_finished and text.strip() in labels:
        mass_L[labels.index(text.strip())] += p
    return LabelMass(mass_L, is_cut=not answer.is_finished)


def _begun_by(text: str, labels: Sequence[str]) -> list[int]:
    """Return the labels that a text begins or is; white space after it ends a label."""
    word = text.strip()
    if word and text[-1].isspace():
        return [i for i, label in enumerate(labels) if label == word]
    return [i for i, label in enumerate(labels) if label.startswith(word)]
