"""Nearest neighbours of a few sentences under each encoder, to be read side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import TypeAdapter

from multicsr.artifacts import FileRecord
from multicsr.stages.evaluate.records import read_record
from multicsr.stages.evaluate.task import Encode
from multicsr.stages.evaluate.vectors import unit_vectors
from multicsr.storage.versions import Snapshot

NEIGHBOURS = "neighbours.json"
"""Name of the record in the artifact `evaluation`."""
NUM_SENTENCES = 30
"""Number of sentences whose neighbours are shown."""
_NUM_NEIGHBOURS = 3
MOST_TEXTS = 3_000
"""Number of texts among which neighbours are looked for."""


class Neighbour(FileRecord):
    """A text near a sentence."""

    text: str
    cosine: float


class Neighbours(FileRecord):
    """The nearest texts of a sentence under each encoder."""

    sentence: str
    by_encoder: dict[str, list[Neighbour]]
    """Label of the encoder -> the nearest texts, the nearest first."""

    def num_neighbours(self) -> int:
        """Return the greatest number of texts of an encoder."""
        return max(map(len, self.by_encoder.values()), default=0)


class NeighboursOfSentences(FileRecord):
    """The record of the nearest texts of several sentences."""

    sentences: list[Neighbours]


_neighbours = TypeAdapter(NeighboursOfSentences)


def side_by_side(
    sentences: Sequence[str], by_encoder: Mapping[str, Sequence[list[Neighbour]]]
) -> NeighboursOfSentences:
    """Return the record of the nearest texts of S sentences.

    Args:
        sentences: S sentences.
        by_encoder: label of the encoder -> the nearest texts of each of the S sentences, from `nearest`.
    """
    return NeighboursOfSentences(
        sentences=[
            Neighbours(sentence=sentence, by_encoder={label: near[row] for label, near in by_encoder.items()})
            for row, sentence in enumerate(sentences)
        ]
    )


def nearest(encode: Encode, sentences: Sequence[str], texts: Sequence[str]) -> list[list[Neighbour]]:
    """Return for each of S sentences the nearest of N distinct texts other than itself, the nearest first."""
    cosines_SN = unit_vectors(sentences, encode) @ unit_vectors(texts, encode).T
    order_SN = np.argsort(-cosines_SN, axis=1, kind="stable")[:, : _NUM_NEIGHBOURS + 1]
    found = []
    for sentence, cosine_N, numbers in zip(sentences, cosines_SN, order_SN.tolist(), strict=True):
        others = [number for number in numbers if texts[number] != sentence][:_NUM_NEIGHBOURS]
        found.append([Neighbour(text=texts[n], cosine=round(float(cosine_N[n]), 4)) for n in others])
    return found


def read_neighbours(snapshot: Snapshot) -> list[Neighbours]:
    """Return the neighbours in the evaluation of a version; empty if it has none.

    Raises:
        RunError: the record is damaged.
    """
    record = read_record(snapshot, NEIGHBOURS, _neighbours)
    return record.sentences if record else []
