"""Records of a file as pass 1 examines them."""

from multicsr.stages.ingest.chunks import read_in_chunks
from multicsr.stages.ingest.reading import convert_markup


def placed_records(config, file):
    """Yield the records of a file, or the sentences of its documents, with their markup converted."""
    for chunk in read_in_chunks(config, file):
        yield from convert_markup(config, file, chunk.placed(range(len(chunk.raw()))))
