"""Input files of every format, and a run of ingest on them."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from multicsr.config import Config
from multicsr.stages.ingest.files import find_files
from multicsr.stages.ingest.readers import read_records


def _write(path, sentences):
    """`sentences` in the format of the path's ending, compressed when it says so."""
    plain = path.with_suffix("") if path.suffix in (".gz", ".bz2", ".zst", ".zstd", ".xz") else path
    if plain.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(sentences)), "text": sentences}), path)
        return path
    if plain.suffix == ".txt":
        lines = sentences
    elif plain.suffix in (".jsonl", ".json"):
        lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(sentences)]
    elif plain.suffix == ".csv":
        quoted = [text.replace('"', '""') for text in sentences]
        lines = ["id,text", *(f'{i},"{text}"' for i, text in enumerate(quoted))]
    else:
        lines = ["id\ttext", *(f"{i}\t{text}" for i, text in enumerate(sentences))]
    data = "".join(line + "\n" for line in lines).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".bz2":
        data = bz2.compress(data)
    if path.suffix == ".xz":
        data = lzma.compress(data)
    if path.suffix in (".zst", ".zstd"):
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


@pytest.fixture
def write():
    return _write


@pytest.fixture
def config(tmp_path):
    """Makes a configuration; keyword arguments go to its `ingest` section."""

    def make(*paths: Path, column="text", documents=False, format="auto", store="store", **ingest):
        return Config.model_validate(
            {
                "name": "t",
                "store": str(tmp_path / store),
                "input": {
                    "paths": [str(path) for path in paths],
                    "column": column,
                    "documents": documents,
                    "format": format,
                },
                "ingest": ingest,
            }
        )

    return make


@pytest.fixture
def records(config):
    """Reads one file to a list of records."""

    def read(path: Path, column="text"):
        (file,) = find_files(config(path, column=None if ".txt" in path.name else column).input).files
        return list(read_records(file, column))

    return read
