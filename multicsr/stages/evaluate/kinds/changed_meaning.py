"""Does an encoder notice a changed meaning? Near-identical pairs against paraphrases of equal word overlap.

A sentence and the same one with a negation, a number, a role or an antonym changed share nearly all words, so
an encoder that counts words takes them for paraphrases. Two figures show whether a model does better:

- the share of rows in which the paraphrase of the anchor is closer to it than the changed sentence,
- the AUC of the similarity between paraphrase pairs and changed pairs of the same word overlap: the
  probability that a paraphrase pair is more similar. Words alone get 50 there. Rows with one of the two
  sentences count too.

The word overlap of a pair is the number of distinct words in both sentences divided by that in either
(Jaccard).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multicsr.errors import ConfigError
from multicsr.labelled_files import digest_of, read_rows
from multicsr.stages.curate.words import words_of
from multicsr.stages.evaluate.kinds.means import means_by_name, share_measurement
from multicsr.stages.evaluate.kinds.reader import DataFile, Kind, single_files
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.statistics import STATISTICS
from multicsr.stages.evaluate.task import Encode, Examples, Measurement, Role, Score
from multicsr.stages.evaluate.vectors import similarities

COLUMNS = ("anchor", "paraphrase", "changed", "kind")
_AUC = "stratified_auc"
NUM_STRATA = 10
"""Intervals of the word overlap within which pairs are compared; pairs of equal words are one more."""


@dataclass(frozen=True)
class ChangedMeaningTask:
    """Anchors, each with a paraphrase, a sentence of changed meaning, or both; some have both.

    All lists have the same length.
    """

    name: str
    anchors: list[str]
    paraphrases: list[str]
    """Sentences with the meaning of the anchors; the empty text where there is none."""
    changed: list[str]
    """Sentences with another meaning; the empty text where there is none."""
    change_kinds: list[str]
    """Names of what was changed, such as `negation`; the empty text in rows without a changed sentence."""
    kind = "changed meaning"

    def describe(self) -> str:
        """Implement `Task.describe`."""
        kinds = ", ".join(sorted({kind for kind in self.change_kinds if kind}))
        both = sum(
            bool(same and changed) for same, changed in zip(self.paraphrases, self.changed, strict=True)
        )
        return f"{len(self.anchors):,} rows, {both:,} with paraphrase and changed sentence; changed: {kinds}"

    def texts(self) -> Mapping[Role, list[str]]:
        """Implement `Task.texts`."""
        return {Role.SENTENCE: [text for text in (*self.anchors, *self.paraphrases, *self.changed) if text]}

    def digest(self) -> str:
        """Implement `Task.digest`."""
        return digest_of(self.kind, self)

    def measure(self, encode: Encode, similarity: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Implement `Task.measure`: the share of rows with the paraphrase closer, then the AUC, both times
        100.

        The AUC is left out if no paraphrase pair has the word overlap of a changed pair.
        """
        share, auc = self._share(encode, similarity), self._auc(encode, similarity)
        return [share, auc] if auc else [share]

    def _share(self, encode: Encode, similarity: Similarity) -> Measurement:
        rows = [
            row for row, texts in enumerate(zip(self.paraphrases, self.changed, strict=True)) if all(texts)
        ]
        columns = [[column[row] for row in rows] for column in (self.anchors, self.paraphrases, self.changed)]
        value_N2 = similarities(columns, encode, similarity)
        closer_N = value_N2[:, 0] > value_N2[:, 1]
        by_kind = means_by_name(100.0 * closer_N.astype(np.float64), [self.change_kinds[row] for row in rows])
        return share_measurement(self, "paraphrase closer x 100", closer_N, by_kind, similarity)

    def _auc(self, encode: Encode, similarity: Similarity) -> Measurement | None:
        """Measure the AUC over distinct pairs; that of a kind of change is against all paraphrase pairs."""
        same = dict.fromkeys(pair for pair in zip(self.anchors, self.paraphrases, strict=True) if pair[1])
        changed = {
            (anchor, text): kind
            for anchor, text, kind in zip(self.anchors, self.changed, self.change_kinds, strict=True)
            if text
        }
        value_N3 = _similarity_label_stratum([*same], [*changed], encode, similarity)
        auc = auc_in_strata(value_N3)
        if auc is None:
            return None
        kinds = np.array([*[""] * len(same), *changed.values()])
        by_kind = {
            kind: auc_in_strata(value_N3[(kinds == kind) | (kinds == "")])
            for kind in dict.fromkeys(changed.values())
        }
        score = Score(
            task=self.name,
            kind=self.kind,
            metric="AUC at equal word overlap x 100",
            value=100 * auc,
            num_rows=len(value_N3),
            subsets={kind: 100 * value for kind, value in by_kind.items() if value is not None},
            similarity=similarity,
        )
        return Measurement(score, Examples(_AUC, value_N3, scale=100))


def _similarity_label_stratum(
    same: Sequence[tuple[str, str]],
    changed: Sequence[tuple[str, str]],
    encode: Encode,
    similarity: Similarity,
) -> NDArray[np.float64]:
    """Return similarity, 1 for a paraphrase pair or 0, and number of the stratum of each pair, [N, 3]."""
    pairs = [*same, *changed]
    value_N = similarities([*zip(*pairs, strict=True)], encode, similarity)[:, 0]
    label_N = np.arange(len(pairs)) < len(same)
    stratum_N = np.floor(NUM_STRATA * np.array([word_overlap(*pair) for pair in pairs]) + 1e-9)
    return np.stack([value_N, label_N, stratum_N], axis=1)


def word_overlap(first: str, second: str) -> float:
    """Return the Jaccard index of the sets of words of two sentences, in [0, 1]; 1 if neither has a word."""
    first_words, second_words = words_of(first), words_of(second)
    either = first_words | second_words
    return len(first_words & second_words) / len(either) if either else 1.0


def auc_in_strata(value_N3: NDArray[np.float64]) -> float | None:
    """Compute the AUC of (similarity, label, stratum) within strata; None if no stratum has both labels."""
    strata = [set(value_N3[value_N3[:, 1] == label, 2]) for label in (0, 1)]
    return STATISTICS[_AUC](value_N3) if strata[0] & strata[1] else None


def _read(file: DataFile) -> ChangedMeaningTask | None:
    if not file.columns.issuperset(COLUMNS):
        return None
    rows = list(_checked(read_rows(file.path, COLUMNS), file))
    if not any(row[1] and row[2] for row in rows):
        raise ConfigError(f"{file.path}: no row has both a paraphrase and a changed sentence")
    anchors, paraphrases, changed, kinds = (list(column) for column in zip(*rows, strict=True))
    return ChangedMeaningTask(file.name, anchors, paraphrases, changed, kinds)


def _checked(rows: Iterable[tuple[int, list[str]]], file: DataFile) -> Iterable[list[str]]:
    for number, row in rows:
        anchor, paraphrase, changed, kind = row
        if not anchor or not (paraphrase or changed):
            raise ConfigError(
                f"{file.path}, line {number}: a row needs an anchor, and a paraphrase or a changed one"
            )
        if changed and not kind:
            raise ConfigError(
                f"{file.path}, line {number}: name what was changed in the column kind, such as negation"
            )
        yield row


KIND = Kind("changed meaning", f"columns {', '.join(COLUMNS)}", single_files(_read))
