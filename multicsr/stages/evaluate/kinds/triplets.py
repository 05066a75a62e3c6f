"""Triplets: the share that an encoder orders correctly."""

from collections.abc import Mapping

from multicsr.labelled_files import TRIPLET_COLUMNS, LabelledTriplets, read_triplets
from multicsr.stages.evaluate.kinds.means import share_measurement
from multicsr.stages.evaluate.kinds.reader import DataFile, Kind, single_files
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Encode, Measurement, Role
from multicsr.stages.evaluate.vectors import similarities


class TripletTask(LabelledTriplets):
    """Anchors, each with a positive and a negative sentence, measured by the share in the right order."""

    kind = "triplets"

    def describe(self) -> str:
        """Implement `Task.describe`."""
        return f"{len(self.anchors):,} triplets"

    def texts(self) -> Mapping[Role, list[str]]:
        """Implement `Task.texts`."""
        return {Role.SENTENCE: [*self.anchors, *self.positives, *self.negatives]}

    def measure(self, encode: Encode, similarity: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Implement `Task.measure`: the share with the positive nearer to the anchor, times 100.

        A tie counts as wrong, so that an encoder that maps every sentence to one vector gets 0.
        """
        value_N2 = similarities(self.columns(), encode, similarity)
        right_N = value_N2[:, 0] > value_N2[:, 1]
        return [share_measurement(self, "accuracy x 100", right_N, similarity=similarity)]


def _read(file: DataFile) -> TripletTask | None:
    if not file.columns.issuperset(TRIPLET_COLUMNS):
        return None
    return TripletTask(**vars(read_triplets(file.path, file.name)))


KIND = Kind("triplets", f"columns {', '.join(TRIPLET_COLUMNS)}", single_files(_read))
