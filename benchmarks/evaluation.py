"""The evaluation at scale: the rate of encoding, and the search among many documents.

    .venv/bin/python benchmarks/evaluation.py --documents 5000000 --queries 100

Encoding is that of `multicsr evaluate`, texts to vectors in a file, against one call of
`SentenceTransformer.encode` on the same texts, in turns. Expected: a median ratio of at least 0.95. The
search is among random vectors in a temporary file, and its peak of memory is that of the whole process.
"""

import argparse
import csv
import resource
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multicsr.models.resolve import ASSETS
from multicsr.observability.progress import SilentProgress
from multicsr.stages.evaluate import Candidate, Encode, FoundTasks, Measurement, Role, measure_models, saved
from multicsr.stages.evaluate.search import search
from multicsr.stages.evaluate.similarity import Similarity

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DIMENSIONS = 384
BLOCK = 100_000


@dataclass(frozen=True)
class Texts:
    """A task that only has its texts encoded."""

    sentences: list[str]
    name = "texts"
    kind = "texts"

    def describe(self) -> str:
        """Return the number of texts."""
        return f"{len(self.sentences):,} texts"

    def texts(self) -> Mapping[Role, Iterable[str]]:
        """Return the texts."""
        return {Role.SENTENCE: self.sentences}

    def digest(self) -> str:
        """Return a constant: nothing is kept."""
        return ""

    def measure(self, encode: Encode, _: Similarity = Similarity.COSINE) -> list[Measurement]:
        """Measure nothing."""
        return []


def measure_encoding(model: "SentenceTransformer", sentences: list[str], rounds: int) -> None:
    """Print the rate of encoding relative to `SentenceTransformer.encode`, in turns."""
    found = FoundTasks([Texts(sentences)], {})
    candidate = Candidate("encoder", lambda: model)
    ratios: list[float] = []
    for turn in range(rounds + 1):
        started_s = time.perf_counter()
        model.encode(sentences, batch_size=128, show_progress_bar=False)
        library_s = time.perf_counter() - started_s
        started_s = time.perf_counter()
        measure_models([candidate], found, 128, SilentProgress())
        ours_s = time.perf_counter() - started_s
        if turn:  # the first one warms up
            ratios.append(library_s / ours_s)
            print(f"    encode {library_s:.2f} s, evaluate {ours_s:.2f} s: {ratios[-1]:.3f}", flush=True)
    print(f"    rate of encoding / SentenceTransformer.encode: {median(ratios):.3f}, at least 0.95 wanted")


def measure_search(num_documents: int, num_queries: int, depth: int) -> None:
    """Print time and memory of a search among random vectors of length 1."""
    draw = np.random.default_rng(0)
    queries_QD = draw.normal(size=(num_queries, DIMENSIONS)).astype(np.float32)
    with tempfile.TemporaryFile() as file:
        for start in range(0, num_documents, BLOCK):
            size = min(BLOCK, num_documents - start)
            block_BD = draw.standard_normal((size, DIMENSIONS), dtype=np.float32)
            block_BD /= np.linalg.norm(block_BD, axis=1, keepdims=True)
            file.write(block_BD.tobytes())
        file.flush()
        vectors_ND: NDArray[np.float32] = np.memmap(file, np.float32, "r").reshape(num_documents, DIMENSIONS)

        def vectors(numbers: Sequence[int]) -> NDArray[np.float32]:
            return vectors_ND[list(numbers)]

        started_s = time.perf_counter()
        num_hits = sum(len(hits.documents_K) for hits in search(queries_QD, num_documents, vectors, depth))
        seconds = time.perf_counter() - started_s
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    matrix_gib = num_documents * num_queries * 4 / 2**30
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"    {num_documents:,} documents, {num_queries} queries, {num_hits:,} hits: {seconds:.0f} s; peak "
        f"{peak_mib:,.0f} MiB resident with pages of the file, of them {fields['RssAnon'].split()[0]} kB "
        f"anonymous at the end (a full matrix: {matrix_gib:.1f} GiB)"
    )


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--documents", type=int, default=500_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--depth", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5, help="0: no encoding")
    given = parser.parse_args()
    if given.rounds:
        with (ASSETS / "demo" / "sentences.tsv").open(encoding="utf-8") as file:
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            sentences = sorted({row[-1] for row in rows})
        measure_encoding(saved("all-MiniLM-L6-v2").load(), sentences, given.rounds)
    if given.documents:
        measure_search(given.documents, given.queries, given.depth)


if __name__ == "__main__":
    main()
