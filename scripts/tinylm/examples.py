"""Training examples of the tiny LM, an endless random stream: generation, scoring and two side tasks.

The target of a score is a value in [0, 5]. Its weight is put on the two neighbouring labels, so that the
expected value over the labels, which the pipeline reads, is the value itself.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from multicsr.prompts import PromptSet
from scripts.tinylm import data as corpus
from scripts.tinylm import edits
from scripts.tinylm.teacher import embed_once
from scripts.tinylm.tokenizer import EOS, NEUTRAL, RESTORE

MAX_TOKENS = 110
LATE = 0.55
"""Progress from which only the system's own tasks are drawn, and little Wikipedia text."""
_FREE_WORDS = {
    "entailment": (
        "Paraphrase the sentence.",
        "Say the same thing in other words.",
        "Write a sentence that follows from this one.",
        "Rewrite the sentence and keep its meaning.",
        "Write an entailment of the sentence.",
    ),
    "contradiction": (
        "Contradict the sentence.",
        "Say something that cannot be true if this is true.",
        "Write a sentence with the opposite meaning.",
        "Change a detail so that the meaning is different.",
        "Write a contradiction of the sentence.",
    ),
}
"""Instructions outside the pool, tokenised as plain text, so that the LM has seen other wordings too."""


@dataclass
class Example:
    """One training sequence: the LM predicts ids[start:], or only a grade at the last position."""

    ids: list[int]
    start: int
    grade: float | None = None
    """Points in [0, 5]; None if the LM predicts text."""


@dataclass
class Graded:
    """NLI pairs with the teacher's cosine, and unlabelled pairs (sentence, sentence, cosine)."""

    pairs: list[tuple[corpus.Pair, float]]
    unlabelled: list[tuple[str, str, float]]

    def pick(self, label: corpus.Label, low: float) -> list[corpus.Pair]:
        """Return the pairs of one label whose cosine is at least `low`."""
        return [pair for pair, cosine in self.pairs if pair.label == label and cosine >= low]


def grade(label: corpus.Label, cosine: float) -> float:
    """Return the points of a labelled pair, in [0, 5].

    Curation wants entailments at 3 or more, and contradictions well below.
    """
    near = min(max(cosine, 0.0), 1.0)
    if label == "entailment":
        return 3.2 + 1.8 * min(max((near - 0.4) / 0.5, 0.0), 1.0)
    return 1.5 + 1.3 * near if label == "neutral" else 0.2 + 1.6 * near


def grade_pairs(
    pairs: list[corpus.Pair], seed: int, cache: Path | None = None, num_unlabelled: int = 30_000
) -> Graded:
    """Compute the teacher's cosines of all pairs, and draw unlabelled pairs of sentences that are close.

    Args:
        pairs: labelled pairs.
        seed: seed of the draw.
        cache: folder that keeps the teacher's vectors; None keeps none.
        num_unlabelled: number of unlabelled pairs to draw.
    """
    unique = list(dict.fromkeys(text for pair in pairs for text in pair[:2]))
    vectors = embed_once(unique, cache)
    row_of = {text: row for row, text in enumerate(unique)}
    cosines = [float(vectors[row_of[p.premise]] @ vectors[row_of[p.hypothesis]]) for p in pairs]
    near = _neighbours(vectors, num_unlabelled, seed)
    return Graded(
        list(zip(pairs, cosines, strict=True)),
        [(unique[one], unique[other], float(vectors[one] @ vectors[other])) for one, other in near],
    )


def _neighbours(vectors: NDArray[np.float32], num_pairs: int, seed: int) -> list[tuple[int, int]]:
    """Draw pairs of row numbers: a random row, and one of its 60 nearest among 8,000 random rows."""
    rng = np.random.default_rng(seed)
    pool = rng.permutation(len(vectors))[:8000]
    pairs = []
    for rows in np.array_split(rng.integers(len(vectors), size=num_pairs), num_pairs // 500):
        nearest = np.argpartition(-(vectors[rows] @ vectors[pool].T), 60, axis=1)[:, :60]
        chosen = nearest[np.arange(len(rows)), rng.integers(60, size=len(rows))]
        pairs += list(zip(rows.tolist(), pool[chosen].tolist(), strict=True))
    return pairs


class Sampler:
    """Random source of examples.

    `progress` in [0, 1] shifts the mix from copying to the system's own tasks.
    """

    def __init__(
        self,
        data: Path,
        graded: Graded,
        prompts: PromptSet,
        whole: Tokenizer,
        plain: Tokenizer,
        seed: int,
    ) -> None:
        self.rng = random.Random(seed)
        self.prompts, self.whole, self.plain = prompts, whole, plain
        self.eos = whole.encode(EOS).ids
        self.graded = graded
        self.close = {
            "entailment": graded.pick("entailment", 0.6),
            "contradiction": graded.pick("contradiction", 0.4),
        }
        self.any = {
            "entailment": graded.pick("entailment", 0.35),
            "contradiction": graded.pick("contradiction", 0.2),
        }
        self.short = [p for p in self.close["entailment"] if len(p.hypothesis) < 0.75 * len(p.premise)]
        self.late = False
        self.neutral = graded.pick("neutral", 0.3)
        self.negations = corpus.negations(data)
        self.premises = list(dict.fromkeys(pair.premise for pair, _ in graded.pairs))
        self.others = [pair.hypothesis for pair, _ in graded.pairs] + corpus.wiki_sentences(data)
        self.others += [text for pair in self.negations for text in pair]

    def draw(self, progress: float) -> Example:
        """Draw one example, never longer than MAX_TOKENS."""
        self.late = progress >= LATE
        restore, score = (0.25, 0.2) if progress < 0.2 else (0.04, 0.33)
        weights = (0.0, 0.4, 0.0, 0.3, 0.3) if self.late else (restore, score, 0.05, 0.35, 0.35)
        tasks = ("restore", "score", "neutral", "entailment", "contradiction")
        while True:
            task = self.rng.choices(tasks, weights)[0]
            example = self._score() if task == "score" else self._generation(task, progress)
            if example is not None and len(example.ids) <= MAX_TOKENS:
                return example

    def _generation(self, task: str, progress: float) -> Example | None:
        if task == "restore":
            sentence = self._sentence()
            return self._sequence(f"Sentence: {edits.scramble(sentence, self.rng)}{RESTORE}", sentence)
        if task == "neutral":
            pair = self.rng.choice(self.neutral)
            return self._sequence(f"Sentence: {pair.premise}{NEUTRAL}", pair.hypothesis)
        variant = self.rng.randrange(4)
        made = self._entailment(variant) if task == "entailment" else self._contradiction(variant)
        if made is None:
            return None
        premise, output = made
        if progress > 0.5 and self.rng.random() < 0.05:
            instruction = self.rng.choice(_FREE_WORDS[task])
            return self._sequence(self.prompts.generation(premise, instruction), output, self.plain)
        pool = self.prompts.entailment if task == "entailment" else self.prompts.contradiction
        return self._sequence(self.prompts.generation(premise, pool[variant % len(pool)]), output)

    def _entailment(self, variant: int) -> tuple[str, str] | None:
        """Draw a premise and an entailment of it; None if no edit fits.

        Variants 0 and 1 ask for a paraphrase, 2 for anything that follows, 3 for a concise paraphrase.
        """
        if variant == 2:
            return self.rng.choice(self.any["entailment"])[:2]
        if self.rng.random() < 0.6:
            edit = edits.shorten if variant == 3 else edits.paraphrase
            sentence = self._sentence()
            made = edit(sentence, self.rng)
            return (sentence, made) if made else None
        return self.rng.choice(self.short if variant == 3 else self.close["entailment"])[:2]

    def _contradiction(self, variant: int) -> tuple[str, str] | None:
        """Draw a premise and a contradiction of it; None if no edit fits.

        Variants 0 and 1 ask for a change of details, 2 and 3 for another meaning.
        """
        edited, negated, kind = (0.6, 0.1, self.close) if variant < 2 else (0.35, 0.15, self.any)
        negated *= 0.4 if self.late else 1.0
        choice = self.rng.random()
        if choice < edited:
            sentence = self._sentence()
            made = edits.contradict(sentence, self.rng)
            return (sentence, made) if made else None
        if choice < edited + negated:
            one, other = self.rng.choice(self.negations)
            return (one, other) if self.rng.random() < 0.7 else (other, one)
        return self.rng.choice(kind["contradiction"])[:2]

    def _score(self) -> Example | None:
        kind = self.rng.choices(
            ("labelled", "near", "same", "random", "kept", "broken"), (45, 15, 5, 11, 10, 14)
        )[0]
        if kind == "labelled":
            pair, cosine = self.rng.choice(self.graded.pairs)
            return self._graded(pair.premise, pair.hypothesis, grade(pair.label, cosine))
        one, other, points = self._unlabelled(kind)
        if other is None:
            return None
        if self.rng.random() < 0.4:
            one, other = other, one
        return self._graded(one, other, points)

    def _unlabelled(self, kind: str) -> tuple[str, str | None, float]:
        """Draw two sentences and their points; the points follow from how the second sentence was made.

        The second sentence is None if no edit fits.
        """
        if kind == "near":
            one, other, cosine = self.rng.choice(self.graded.unlabelled)
            return one, other, 5 * min(max((cosine - 0.1) / 0.8, 0.0), 1.0)
        sentence = self._sentence()
        if kind == "same":
            return sentence, sentence, 5.0
        if kind == "random":
            return sentence, self._sentence(), 0.1
        if kind == "kept":
            if self.rng.random() < 0.6:
                return sentence, edits.paraphrase(sentence, self.rng), 4.6
            return sentence, edits.shorten(sentence, self.rng), 4.0
        if self.rng.random() < 0.4:
            return (*self.rng.choice(self.negations), 1.6)
        return sentence, edits.contradict(sentence, self.rng), 1.4

    def _sentence(self) -> str:
        share = 0.92 if self.late else 0.7
        return self.rng.choice(self.premises if self.rng.random() < share else self.others)

    def _sequence(self, prompt: str, output: str, tokenizer: Tokenizer | None = None) -> Example:
        ids = (tokenizer or self.whole).encode(prompt).ids
        return Example(ids + self.whole.encode(f" {output}").ids + self.eos, len(ids))

    def _graded(self, one: str, other: str, points: float) -> Example:
        ids = self.whole.encode(self.prompts.scoring(one, other)).ids
        return Example(ids, len(ids), points)
