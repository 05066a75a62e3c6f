"""Sentences for tests of generation."""

import pyarrow as pa

from multicsr.execution.stage_runner import StageOutput
from multicsr.rows import SENTENCE, normalise, row_id
from multicsr.stages.generate.assembling import joined
from multicsr.stages.generate.triplets import TripletStage


def make_sentences(texts: list[str]) -> pa.Table:
    """A SENTENCE table of these texts."""
    texts = [normalise(text) for text in texts]
    rows = {
        "row_id": [row_id(text, "en") for text in texts],
        "text": texts,
        "language": ["en"] * len(texts),
        "source": ["test"] * len(texts),
        "position": list(range(len(texts))),
    }
    return pa.table(rows, schema=SENTENCE)


def triplets(stage: TripletStage, sentences: pa.Table) -> StageOutput:
    """SCORED rows and rejects, as they come to lie in the room."""
    written = stage(sentences)
    output = joined(sentences, written.rows)
    return StageOutput(output.rows, output.rejects, written.counters)
