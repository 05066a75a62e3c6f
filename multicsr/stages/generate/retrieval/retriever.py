"""From premises to their demonstrations, in the actors of the LLM (MultiCSR Appendix G).

The paper orders the demonstrations d_1 to d_L by nothing; here the nearest is the first, and of equally near
labelled premises that with the least id. What is shown for a premise is a function of the premise, the
labelled files and the kind of device of P, whose vectors differ in their last digits between CPU and GPU, so
that it depends on neither batches nor shards nor restarts.
"""

import threading
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from multicsr.config import Config, DemonstrationsConfig
from multicsr.models.frozen_encoder import FrozenEncoder
from multicsr.prompts.demonstrations import Demonstration
from multicsr.stages.generate.comparison import comparable
from multicsr.stages.generate.retrieval.encoder import load_encoder, retrieval_device
from multicsr.stages.generate.retrieval.nearest import find_nearest
from multicsr.storage.store import FileEntry, Store


class DemonstrationRetriever:
    """Search over labelled premises, whose texts and fp16 vectors are in memory. Thread-safe."""

    def __init__(
        self, settings: DemonstrationsConfig, encoder: FrozenEncoder, rows: pa.Table, document_ND: Tensor
    ) -> None:
        """Set up the search.

        Args:
            settings: the settings of the demonstrations.
            encoder: the encoder P.
            rows: LABELLED_PREMISE rows.
            document_ND: P's vectors of their premises, in the same order, on the device that searches.
        """
        self._settings, self._encoder = settings, encoder
        self._rows, self._document_ND = rows, document_ND
        self._number = {comparable(text): number for number, text in enumerate(rows["text"].to_pylist())}
        self._lock = threading.Lock()

    def __call__(self, premises: Sequence[str]) -> list[tuple[Demonstration, ...]]:
        """Return the demonstrations of each premise, the nearest first.

        They are at most L labelled premises of at least the cosine lambda. The premise itself is none, case,
        quotes and punctuation aside.
        """
        if not premises:
            return []
        with self._lock:
            query_QD = self._encoder.embed(premises)
        own_Q = [self._number.get(comparable(premise)) for premise in premises]
        nearest = find_nearest(
            query_QD, self._document_ND, self._settings.count, self._settings.similarity, own_Q
        )
        return [tuple(self._demonstration(number) for number in numbers) for numbers in nearest]

    def _demonstration(self, number: int) -> Demonstration:
        return Demonstration(
            *(self._rows[name][number].as_py() for name in ("text", "entailment", "contradiction"))
        )


def load_retriever(config: Config, store: Store, files: Sequence[FileEntry]) -> DemonstrationRetriever | None:
    """Load P and the labelled premises; return None if prompts have no demonstrations.

    Args:
        config: the settings of the run.
        store: its store.
        files: what `prepare_demonstrations` returned.

    Raises:
        ConfigError: P cannot be loaded.
        RunError: a file is damaged.
    """
    settings = config.generate.demonstrations
    if settings is None:
        return None
    encoder = load_encoder(config)
    rows = pa.concat_tables([store.read_table(entry) for entry in files]).combine_chunks()
    [vectors] = rows["vector"].chunks
    document_ND = np.frombuffer(vectors.buffers()[1], np.float16).reshape(-1, encoder.width).copy()
    on_device = torch.from_numpy(document_ND).to(retrieval_device(config))
    return DemonstrationRetriever(settings, encoder, rows.drop_columns(["vector"]), on_device)
